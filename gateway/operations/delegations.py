"""Delegation: a part of a key for an agent, with a budget carved out of it, for hours at most.

The key's row comes first, then its budget is carved out of its parent in Redis; only then is it
told to anybody. What a death in between leaves:

    step                               after a death there
    ---------------------------------  -------------------------------------------------------------
    1 the row, in Postgres             nobody knows the key, so nothing calls with it; it is over at
                                       its expiry, and closed then (gateway/jobs/delegations.py)
    2 load the account, if Redis       the same, but its budget counts in its parent until then
      lacks it
    3 carve                            the same
    if that was refused:
    4 revoke the row                   it is over now, and closed by the job; what Redis may count
                                       of it comes back then
    5 give back, with `last`           the same
    6 close the row                    it is done

Where it failed the row is revoked, too, and the rest is for the job: a script that was sent may yet
run, and of a closed key nothing would come back.

Of a parent that is revoked or expired nothing more can be carved, and on the next call of any key
below it Redis refuses, whatever rows say.
"""

from __future__ import annotations

import secrets
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from gateway.counters.errors import CountersUnavailable
from gateway.ledger.delegations import NewDelegation
from gateway.ledger.rows import Guards
from gateway.ledger.specs import combined_guards
from gateway.operations.errors import OperationError, UsageError
from gateway.operations.guards import check_guards, check_metadata
from gateway.operations.keys import PEPPER_VERSION, check_name
from policies.apikeys import digest
from policies.catalog import Caps, Limits
from policies.decision import (
    AccountSuspended,
    Carved,
    CarveRefused,
    ChainTooLong,
    KeyAlive,
    KeyRefused,
    NotLoaded,
    ShardLost,
)
from policies.delegation import DELEGATED_KEYS_MAX, DELEGATION_DEPTH_MAX
from policies.limits import delegated_rules_text, key_text
from policies.units import AMOUNT_MICROCREDITS_MAX, format_credits

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from gateway.counters import Counters
    from gateway.ledger import Ledger
    from gateway.ledger.delegations import Family
    from gateway.ledger.rows import AccountRow, KeyListRow
    from policies.decision import Carving

    Ready = Callable[[ShardLost, int], Awaitable[bool]]

DELEGATED_LIFE_MS_MAX = 86_400_000
# A shorter one would be over before the agent has its token.
DELEGATED_LIFE_MS_MIN = 5_000
# By how much the clock of who asks may be ahead of Postgres'.
CLOCK_LEEWAY_MS = 60_000
DELEGATED_NAME_DEFAULT = "agent"
# An account that is asked for again and again is being changed by others at the same time.
LOADS_MAX = 5
SHOWN_CHARACTERS, LAST_CHARACTERS = 8, 4
NO_LIMITS, NO_CAPS = Limits(), Caps()
NOTHING: Mapping[str, str] = MappingProxyType({})


async def _never_ready(_lost: ShardLost, _shard: int) -> bool:
    """For whoever can't have a shard rebuilt."""
    return False


class NotDelegatedError(OperationError):
    """Redis could not be asked, so no key was made; or one that nobody knows and that is over."""


class Delegated(NamedTuple):
    """A delegated key just made: what the claims of its token say.

    `jti` is what its digest is of. `routes` are those it was narrowed to; none: all its parent's.
    """

    key_id: int
    account_id: int
    jti: str
    expires_ms: int
    routes: tuple[str, ...]


class Wanted(NamedTuple):
    """What a delegated key is to be."""

    budget_microcredits: int
    expires_ms: int
    routes: tuple[str, ...]
    name: str
    metadata: Mapping[str, str]


async def delegate(
    ledger: Ledger,
    counters: Counters,
    account: AccountRow,
    parent: KeyListRow,
    *,
    pepper: bytes,
    budget_microcredits: int,
    expires_ms: int = 0,
    routes: Sequence[str] = (),
    name: str = DELEGATED_NAME_DEFAULT,
    metadata: Mapping[str, str] = NOTHING,
    ready: Ready = _never_ready,
) -> Delegated:
    """A part of a key, which works from now on; `routes` narrow it to some of its parent's.

    It may spend its budget and no more, lives no longer than its parent and those above (until
    `expires_ms`; 0: for as long as it can), and is bound by what binds them. A parent with a cap in
    total has the budget less from now on, until what is left of it comes back. `ready` waits for a
    shard that is lost, or was never used: `recovery.Shards.ready`.

    Raises: UsageError for what can't be, such as a budget above what the parent has left;
    NotDelegatedError.
    """
    if not 0 < budget_microcredits <= AMOUNT_MICROCREDITS_MAX:
        raise UsageError("a budget is more than 0 and less than 2^53 microcredits")
    guards = await check_guards(ledger, account.platform_id, Guards(routes=tuple(routes)))
    wanted = Wanted(
        budget_microcredits, expires_ms, guards.routes, check_name(name), check_metadata(metadata)
    )
    jti = secrets.token_hex(16)
    made: list[NewDelegation] = []

    def decide(family: Family) -> NewDelegation:
        made.append(_decide(wanted, family, jti, pepper))
        return made[-1]

    key_id = await ledger.delegate_key(account.account_id, parent.key_id, decide)
    if key_id is None:
        raise UsageError(f'the account "{account.name}" has no key {parent.key_id}')
    answer: Carving | None = None
    try:
        answer = await _carve(ledger, counters, parent, key_id, made[-1], ready=ready)
    finally:
        if not isinstance(answer, Carved):
            await ledger.revoke_key(account.platform_id, key_id)
    if not isinstance(answer, Carved):
        await _abandon(ledger, counters, account, key_id)
    _check_carved(answer, parent.key_id, wanted)
    return Delegated(key_id, account.account_id, jti, made[-1].expires_ms, wanted.routes)


def _decide(wanted: Wanted, family: Family, jti: str, pepper: bytes) -> NewDelegation:
    """The row of a delegated key. Raises: UsageError for what its family does not allow."""
    parent = family.lineage[0]
    if len(family.lineage) > DELEGATION_DEPTH_MAX:
        raise UsageError(f"a key is delegated over at most {DELEGATION_DEPTH_MAX} levels")
    if family.open_keys >= DELEGATED_KEYS_MAX:
        raise UsageError(
            f"the account has {DELEGATED_KEYS_MAX} delegated keys, which is as many as it can: "
            "revoke some, or wait until some have expired"
        )
    expires_ms = family.now_ms + DELEGATED_LIFE_MS_MAX
    latest_ms = expires_ms + CLOCK_LEEWAY_MS
    for key in family.lineage:
        if key.status == "revoked" or 0 < key.expires_ms <= family.now_ms:
            raise UsageError(f"key {key.key_id} is over, so nothing can be delegated from it")
        if key.expires_ms:
            expires_ms = min(expires_ms, key.expires_ms)
            latest_ms = min(latest_ms, key.expires_ms)
    if wanted.expires_ms:
        expires_ms = min(expires_ms, wanted.expires_ms)
    if expires_ms < family.now_ms + DELEGATED_LIFE_MS_MIN or wanted.expires_ms > latest_ms:
        raise UsageError(
            f"a delegated key lives for {DELEGATED_LIFE_MS_MIN // 1000} s at least, for "
            f"{DELEGATED_LIFE_MS_MAX // 1000} s at most, and no longer than what it is a part of"
        )
    allowed = combined_guards(key.guards for key in family.lineage)
    for name in wanted.routes:
        if allowed.routes and name not in allowed.routes:
            raise UsageError(f'key {parent.key_id} is not for the route "{name}"')
    return NewDelegation(
        name=wanted.name,
        prefix=jti[:SHOWN_CHARACTERS],
        last4=jti[-LAST_CHARACTERS:],
        pepper_version=PEPPER_VERSION,
        digest=digest(jti, pepper),
        budget_microcredits=wanted.budget_microcredits,
        expires_ms=expires_ms,
        routes=wanted.routes,
        guarded=bool(wanted.routes) or allowed != Guards(),
        metadata=wanted.metadata,
    )


async def _carve(
    ledger: Ledger,
    counters: Counters,
    parent: KeyListRow,
    key_id: int,
    new: NewDelegation,
    *,
    ready: Ready,
) -> Carving:
    budget = new.budget_microcredits
    rules = delegated_rules_text(
        NO_LIMITS,
        NO_CAPS,
        parent_key_id=parent.key_id,
        budget_microcredits=budget,
        guard_version=int(new.guarded),
    )
    text = key_text(new.expires_ms, rules)
    keys = counters.keys(parent.account_id)
    answer: Carving
    for _ in range(LOADS_MAX):
        try:
            answer = await counters.carve(keys, parent.key_id, key_id, budget, text)
            if isinstance(answer, NotLoaded):
                state = await ledger.account_state(parent.account_id)
                if state is not None:
                    await counters.load(keys, state, answer)
            elif not (isinstance(answer, ShardLost) and await ready(answer, keys.shard)):
                return answer
        except CountersUnavailable:
            raise NotDelegatedError("Redis did not answer: try again") from None
    return answer


async def _abandon(ledger: Ledger, counters: Counters, account: AccountRow, key_id: int) -> None:
    """Close a revoked key that was not carved, as far as possible; the job does the rest."""
    try:
        given = await counters.give_back(counters.keys(account.account_id), key_id, last=True)
    except CountersUnavailable:
        return
    if not isinstance(given, (KeyAlive, ShardLost)):
        await ledger.close_delegation(key_id)


def _check_carved(answer: Carving, parent_key_id: int, wanted: Wanted) -> None:
    """Raises: UsageError, NotDelegatedError for anything but a budget that was carved out."""
    match answer:
        case Carved():
            return
        case CarveRefused(available_microcredits=available):
            raise UsageError(
                f"key {parent_key_id} has {format_credits(available)} credits left of its cap, "
                f"less than {format_credits(wanted.budget_microcredits)}"
            )
        case ChainTooLong():
            raise UsageError(f"a key is delegated over at most {DELEGATION_DEPTH_MAX} levels")
        case KeyRefused():
            raise UsageError(f"key {parent_key_id} is over, so nothing can be delegated from it")
        case AccountSuspended():
            raise UsageError("the account is suspended")
        case ShardLost():
            raise NotDelegatedError("the account's counters are being rebuilt: try again")
        case NotLoaded():
            raise NotDelegatedError("the account is being changed by others: try again")
