"""Takes credits from an account apart from calls: always in Redis first, then in Postgres.

Redis alone knows what is available at a moment. What it took is carried to Postgres from its
outbox, here at once, or by the sweeper should Postgres not answer now.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from gateway.counters.errors import CountersUnavailable
from gateway.ledger.errors import LedgerUnavailable
from gateway.operations.errors import OperationError
from gateway.recovery.carry import Carrier
from policies.decision import NotLoaded, ShardLost, Withdrawn

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gateway.counters import Counters
    from gateway.ledger import Ledger
    from gateway.ledger.rows import AccountRow

    Ready = Callable[[ShardLost, int], Awaitable[bool]]

# An account that is asked for again and again is being changed by others at the same time.
LOADS_MAX = 5


async def never_ready(_lost: ShardLost, _shard: int) -> bool:
    """For whoever can't have a shard rebuilt."""
    return False


class NotTakenError(OperationError):
    """Redis could not be asked, and nothing was taken."""


async def withdraw(
    ledger: Ledger,
    counters: Counters,
    account: AccountRow,
    grant_id: int,
    *,
    kind: str,
    microcredits: int | None = None,
    change_id: str = "",
    ready: Ready = never_ready,
) -> int:
    """Take from a lot what is available, at most so much (None: all); the microcredits taken.

    `kind` is "revoke" or "adjust". What calls hold stays theirs. With a `change_id` (32 hex digits)
    it is taken once, however often it is asked for. `ready` waits for a shard that is lost, or was
    never used: `recovery.Shards.ready`.

    Raises: NotTakenError.
    """
    keys = counters.keys(account.account_id)
    if change_id:
        # Redis knows a change until it is in Postgres.
        taken = await ledger.change_taken(account.account_id, change_id)
        if taken is not None:
            return taken
    change_id = change_id or uuid.uuid4().hex
    for _ in range(LOADS_MAX):
        try:
            answer = await counters.withdraw(
                keys, change_id, kind, grant_id, microcredits, platform_id=account.platform_id
            )
            if isinstance(answer, NotLoaded):
                state = await ledger.account_state(account.account_id)
                if state is not None:
                    await counters.load(keys, state, answer)
        except CountersUnavailable:
            raise NotTakenError(
                f'Redis did not answer: see "tollkeeper accounts show {account.name}" whether it '
                "was done before you repeat it"
            ) from None
        match answer:
            case ShardLost():
                if await ready(answer, keys.shard):
                    continue
                raise NotTakenError(
                    f'the counters of "{account.name}" are being rebuilt, or were never used: '
                    'try again in a moment, or run "tollkeeper rebuild"'
                )
            case Withdrawn():
                await _carry(ledger, counters, keys.shard, answer)
                return answer.taken
    raise NotTakenError(f'"{account.name}" is being changed by others: try again')


async def _carry(ledger: Ledger, counters: Counters, shard: int, withdrawn: Withdrawn) -> None:
    if not withdrawn.outbox_id:
        return
    try:
        await Carrier(counters, ledger).carry_entry(shard, withdrawn.outbox_id)
    except (CountersUnavailable, LedgerUnavailable):
        return  # it is in the outbox: the sweeper carries it
