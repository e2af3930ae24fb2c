"""Grants: lots of credits that operators give to an account, add to, take from and end."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from gateway.ledger.errors import LedgerRejected
from gateway.operations.errors import UsageError
from gateway.operations.publish import publish_account
from gateway.operations.withdraw import NotTakenError, never_ready, withdraw
from policies.units import AMOUNT_MICROCREDITS_MAX

if TYPE_CHECKING:
    from gateway.counters import Counters
    from gateway.ledger import Ledger
    from gateway.ledger.rows import AccountRow, GrantRow
    from gateway.operations.withdraw import Ready

SOURCES = ("plan", "pack", "trial", "coupon", "manual", "rollover")
OVERAGE = "overage"
PRIORITY_DEFAULT = 0
PRIORITY_MAX = 1_000
NOTE_CHARACTERS_MAX = 500


class OwnedGrant(NamedTuple):
    """A grant and whose it is."""

    account: AccountRow
    grant: GrantRow


async def add_grant(
    ledger: Ledger,
    counters: Counters,
    account: AccountRow,
    microcredits: int,
    *,
    source: str = "manual",
    effective_ms: int = 0,
    expires_ms: int = 0,
    priority: int = PRIORITY_DEFAULT,
    note: str = "",
    business_key: str | None = None,
) -> int:
    """Give credits to an account; the grant's id. Effective now and for ever where the times are 0.

    A `business_key` names what they are given for, once: given again, it is the grant there is.

    Raises: UsageError for values out of range; NotToldError when Redis could not be told.
    """
    if source not in SOURCES:
        raise UsageError(f'"{source}" is no source of grants: use one of {", ".join(SOURCES)}')
    if not 0 < microcredits <= AMOUNT_MICROCREDITS_MAX:
        raise UsageError("a grant is more than 0 and less than 2^53 microcredits")
    if not 0 <= priority <= PRIORITY_MAX:
        raise UsageError(f"a priority is 0 (which pays first) to {PRIORITY_MAX}")
    check_note(note)
    try:
        grant_id = await ledger.add_grant(
            account.account_id,
            microcredits,
            source=source,
            effective_ms=effective_ms or None,
            expires_ms=expires_ms,
            priority=priority,
            note=note,
            business_key=business_key,
        )
    except LedgerRejected:
        raise UsageError("a grant must expire after it takes effect") from None
    if grant_id is None:
        raise UsageError(f'the account "{account.name}" is gone')
    await publish_account(ledger, counters, account.account_id, account.name)
    return grant_id


async def find_grant(ledger: Ledger, platform_id: int, grant_id: int) -> OwnedGrant:
    """The grant of this number.

    Raises: UsageError when the platform has none.
    """
    account = await ledger.account_of_grant(platform_id, grant_id)
    if account is None:
        raise UsageError(
            f'there is no grant {grant_id}: "tollkeeper grants list ACCOUNT" shows their numbers'
        )
    grant = await ledger.grant(platform_id, grant_id)
    if grant is None:
        raise UsageError(f"grant {grant_id} is gone")
    return OwnedGrant(account, grant)


async def revoke_grant(ledger: Ledger, counters: Counters, owned: OwnedGrant) -> int | None:
    """End a grant now; the microcredits it had left, which are gone.

    What calls hold of it stays theirs; what they give back is taken afterwards, by itself. None:
    its credits can't be used any more, but what is left could not be taken off the books at once.

    Raises: UsageError for a period's overage; NotToldError when Redis could not be told.
    """
    account, grant = owned
    _refuse_overage(grant)
    await ledger.revoke_grant(grant.grant_id)
    await publish_account(ledger, counters, account.account_id, account.name)
    try:
        return await withdraw(ledger, counters, account, grant.grant_id, kind="revoke")
    except NotTakenError:
        return None  # a job withdraws whatever ended lots have left


async def adjust_grant(
    ledger: Ledger,
    counters: Counters,
    owned: OwnedGrant,
    microcredits: int,
    note: str = "",
    *,
    change_id: str = "",
    ready: Ready = never_ready,
) -> int:
    """Add to a grant, or take (below 0) what is available of it; what it came to.

    Only what is added keeps a note. Nothing is taken that calls hold, nor more than there is. With
    a `change_id` (32 hex digits) it is done once, however often it is asked for; `ready` is as in
    `withdraw`.

    Raises: UsageError for an ended grant, a period's overage, or a note on what is taken;
    NotToldError when Redis could not be told of what was added; NotTakenError.
    """
    account, grant = owned
    _refuse_overage(grant)
    if not 0 < abs(microcredits) <= AMOUNT_MICROCREDITS_MAX:
        raise UsageError("an adjustment is some credits, less than 2^53 microcredits")
    if microcredits < 0:
        if note:
            raise UsageError("only credits that are added keep a note: leave it out")
        taken = await withdraw(
            ledger,
            counters,
            account,
            grant.grant_id,
            kind="adjust",
            microcredits=-microcredits,
            change_id=change_id,
            ready=ready,
        )
        return -taken
    check_note(note)
    try:
        credited = await ledger.credit_grant(
            grant.grant_id, microcredits, note, change_id=change_id or None
        )
    except LedgerRejected:
        raise UsageError("a grant stays below 2^53 microcredits") from None
    if credited is None:
        raise UsageError(f'grant {grant.grant_id} has ended: add a new one with "grants add"')
    await publish_account(ledger, counters, account.account_id, account.name)
    return microcredits


def check_note(note: str) -> None:
    """Raises: UsageError for a note that is too long, or has more than one line."""
    if len(note) > NOTE_CHARACTERS_MAX or not (note + " ").isprintable():
        raise UsageError(f"a note is at most {NOTE_CHARACTERS_MAX} printable characters")


def _refuse_overage(grant: GrantRow) -> None:
    if grant.source == OVERAGE:
        raise UsageError(
            f"grant {grant.grant_id} is a period's overage: its plan's overage_cap says how much"
        )
