"""Applies late settlements: charges in Redis what calls owe that ended while it could not be asked.

A late settlement is a row in Postgres: what a call owes and how it ended. It is applied by whoever
has its row locked, and the row is deleted last. Looking comes first, in Redis and then in Postgres,
because a settlement leaves Redis only after Postgres has it: what neither of the two has, looked at
in this order, has not happened, and only the holder of the row can make it happen.

    Redis has of the call     Postgres has         what is done, write by write
    ------------------------  -------------------  ----------------------------------------------
    its hold                  nothing              settle, carry the entry, delete the row
    nothing                   nothing              late (charges without a hold), carry, delete
    its settlement            nothing, or it       carry; then by what Postgres has
    its correction            expired settlement   carry; then "corrected"
    nothing                   own settlement       delete
    nothing                   expired, cost less   withdraw what is missing, carry, delete
    nothing                   expired, cost more   credit the difference there, publish, delete
    nothing                   expired, corrected   publish if it was a credit, delete

What a death between two of these writes leaves, and where the next one goes on:

    settle or late, carry     its settlement in Redis: third line
    carry, delete             its own settlement in Postgres: fifth line
    withdraw, carry           its correction in Redis: fourth line
    carry, delete             corrected in Postgres: last line
    credit, publish, delete   corrected in Postgres: last line; telling Redis twice is harmless

While a shard is closed, nobody but its rebuild may charge there, and it has emptied the outbox:
then only what neither has is charged; corrections wait until the shard is open.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Protocol

from gateway.counters import CommandRefused
from gateway.recovery.loss import loss_of
from policies.burndown import split
from policies.catalog import Ending
from policies.decision import NotLoaded, Settled, ShardLost, Withdrawn
from policies.settlement import EXPIRED, correction_id, result_blob

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping
    from contextlib import AbstractAsyncContextManager

    from gateway.counters import AccountKeys, Counters
    from gateway.recovery.carry import Carrier
    from policies.settlement import LateSettlement, Posting

LOAD_ATTEMPTS_MAX = 3
# What was found out about a row counts for so long: Postgres takes the row from who says nothing
# for a minute (idle_in_transaction_session_timeout), and another may have applied it since.
LOOK_S = 20.0
LATE = "late"  # the kind of ledger changes that correct a settlement
# Why a row has to wait.
REBUILT = "its shard is being rebuilt"
NOT_LOADED = "its account can't be loaded"
OUTDATED = "we were held up, and somebody else may have applied it"

log = logging.getLogger("tollkeeper.recovery")


class Taken(Protocol):
    """A row that nobody else has."""

    @property
    def row(self) -> LateSettlement:
        """What it says."""

    async def delete(self) -> None:
        """It is applied."""


class SettledCall(Protocol):
    """What Postgres has of a settled call."""

    @property
    def flags(self) -> str:
        """Comma-joined words."""

    @property
    def charged_microcredits(self) -> int:
        """What it cost."""

    @property
    def adjusted(self) -> bool:
        """Whether it was corrected."""

    @property
    def refunded(self) -> bool:
        """Whether it was given back."""

    @property
    def postings(self) -> tuple[Posting, ...]:
        """What each lot paid."""


class LateBooks(Protocol):
    """Where late settlements are: `Ledger`."""

    def take_late_settlement(
        self, *, after: str = "", shard: int | None = None
    ) -> AbstractAsyncContextManager[Taken | None]:
        """The next row behind a call id that nobody has taken."""

    async def settlement_of(self, call_id: str) -> SettledCall | None:
        """How a call was settled."""

    async def credit_call(
        self, call_id: str, kind: str, postings: Iterable[Posting], note: str = ""
    ) -> bool:
        """Give credits back to lots, once per call and kind."""

    async def account_state(self, account_id: int) -> Mapping[str, str | int] | None:
        """The fields of an account that Redis does not have."""


class _Look(NamedTuple):
    """When somebody looked what Redis and Postgres have of a call, and under which epoch."""

    since_s: float
    epoch: int


class LateApplier:
    """Applies late settlements, one row at a time. Several appliers do no harm."""

    def __init__(
        self,
        counters: Counters,
        ledger: LateBooks,
        carrier: Carrier,
        publish: Callable[[int], Awaitable[None]] | None = None,
    ) -> None:
        """`publish` tells Redis what Postgres has of an account; needed by `apply` alone."""
        self._counters = counters
        self._ledger = ledger
        self._carrier = carrier
        self._publish = publish

    async def apply(self, lost: Callable[[int, ShardLost], None]) -> int:
        """Go through all rows once; answers how many were applied.

        `lost` is told of shards that can't be charged now; their rows stay. Raises:
        CountersUnavailable, LedgerUnavailable; what was not applied stays, too.
        """
        applied = 0
        after = ""
        lost_shards: set[int] = set()
        while True:
            since_s = asyncio.get_running_loop().time()
            async with self._ledger.take_late_settlement(after=after) as taken:
                if taken is None:
                    return applied
                row = taken.row
                after = row.call_id
                if row.shard in lost_shards:
                    continue
                try:
                    problem = await self._apply(row, since_s)
                except CommandRefused as refusal:
                    log.error(  # noqa: TRY400 -- Redis' words say it all
                        "call %s: Redis refuses its late settlement: %s", row.call_id, refusal
                    )
                    continue
                if isinstance(problem, ShardLost):
                    lost_shards.add(row.shard)
                    lost(row.shard, problem)
                elif problem is None:
                    await taken.delete()
                    applied += 1
                else:
                    log.warning("call %s: its late settlement waits: %s", row.call_id, problem)

    async def apply_closed(self, shard: int) -> set[int]:
        """Charge what can be charged in a shard that we rebuild; answers whose accounts.

        The outbox must be empty and the accounts loaded. Raises: as `apply`.
        """
        accounts: set[int] = set()
        after = ""
        while True:
            async with self._ledger.take_late_settlement(after=after, shard=shard) as taken:
                if taken is None:
                    return accounts
                row = taken.row
                after = row.call_id
                settled = await self._ledger.settlement_of(row.call_id)
                if settled is None:
                    outcome = await self._counters.late(self._counters.keys(row.account_id), row)
                    if not isinstance(outcome, Settled):
                        log.warning("call %s waits until its shard is open", row.call_id)
                        continue
                    accounts.add(row.account_id)
                    if await self._carried(row, outcome.outbox_id):
                        continue
                elif EXPIRED in settled.flags.split(","):
                    continue
                await taken.delete()

    async def _apply(self, row: LateSettlement, since_s: float) -> str | ShardLost | None:
        """None once it is applied, else why it has to wait."""
        counters = self._counters
        known = counters.seen(row.shard)
        epoch, seq = await counters.meta(row.shard)
        if lost := loss_of(known, epoch, seq):
            return lost
        if seq is None:
            return ShardLost("STALE", 0, 0)
        counters.adopt(row.shard, epoch, seq)
        keys = counters.keys(row.account_id)
        mark, correction = await self._marks(keys, row.call_id)
        for settled_mark in (mark, correction):
            if settled_mark and not settled_mark.startswith("h|"):
                await self._carrier.carry_entry(row.shard, settled_mark[2:])
        settled = await self._ledger.settlement_of(row.call_id)
        look = _Look(since_s, epoch)
        if settled is not None:
            own = EXPIRED not in settled.flags.split(",")
            return None if own else await self._correct(keys, row, settled, look)
        if mark.startswith("h|"):
            return await self._settle(keys, row)
        if mark:
            return "Postgres refuses what is in the outbox"
        return await self._charge(keys, row, look)

    async def _marks(self, keys: AccountKeys, call_id: str) -> tuple[str, str]:
        """What Redis has of a call and of its correction, "" for nothing.

        A hold is 'h|…'; else s, x or c and the id of an outbox entry.
        """
        ids = (call_id, correction_id(call_id))
        texts: list[bytes | None] = await self._counters.command("HMGET", keys.state.holds, *ids)
        mark, correction = (text.decode() if text else "" for text in texts)
        return mark, correction

    async def _settle(self, keys: AccountKeys, row: LateSettlement) -> str | ShardLost | None:
        """It has its hold. Not `late`: that would charge if the hold ended just now."""
        result = result_blob(Ending(row.ending), row.status, row.units, row.flags)
        outcome = await self._counters.settle(
            keys, row.call_id, row.owed_microcredits, result.encode(), row.session
        )
        if isinstance(outcome, Settled):
            return await self._carried(row, outcome.outbox_id)
        return outcome if isinstance(outcome, ShardLost) else "its hold has just ended"

    async def _charge(
        self, keys: AccountKeys, row: LateSettlement, look: _Look
    ) -> str | ShardLost | None:
        """Nobody has settled it, and there is no hold of which anybody could."""
        for _ in range(LOAD_ATTEMPTS_MAX):
            if outdated := self._outdated(row, look):
                return outdated
            outcome = await self._counters.late(keys, row)
            if isinstance(outcome, Settled):
                return await self._carried(row, outcome.outbox_id)
            if not isinstance(outcome, NotLoaded):
                return outcome if isinstance(outcome, ShardLost) else "it has just been settled"
            await self._load(keys, outcome)
        return NOT_LOADED

    async def _correct(
        self, keys: AccountKeys, row: LateSettlement, settled: SettledCall, look: _Look
    ) -> str | ShardLost | None:
        """Its hold had expired, perhaps at another price."""
        more = row.owed_microcredits - settled.charged_microcredits
        if settled.refunded or more == 0 or (settled.adjusted and more > 0):
            return None
        if more > 0:
            return await self._take(keys, row, more, look)
        if not settled.adjusted:
            back = split(settled.postings, row.owed_microcredits).released
            await self._ledger.credit_call(row.call_id, LATE, back, "its hold had expired")
        if self._publish is not None:
            await self._publish(row.account_id)
        return None

    async def _take(
        self, keys: AccountKeys, row: LateSettlement, more: int, look: _Look
    ) -> str | ShardLost | None:
        withdraw = partial(
            self._counters.withdraw, platform_id=row.platform_id, call_id=row.call_id
        )
        for _ in range(LOAD_ATTEMPTS_MAX):
            if outdated := self._outdated(row, look):
                return outdated
            outcome = await withdraw(keys, correction_id(row.call_id), LATE, None, more)
            if isinstance(outcome, Withdrawn):
                nothing = not outcome.outbox_id
                return None if nothing else await self._carried(row, outcome.outbox_id)
            if isinstance(outcome, ShardLost):
                return outcome
            await self._load(keys, outcome)
        return NOT_LOADED

    def _outdated(self, row: LateSettlement, look: _Look) -> str | None:
        """Why what was found out no longer counts. To be asked just before Redis is written."""
        if self._counters.seen(row.shard)[0] != look.epoch:
            return REBUILT
        late = asyncio.get_running_loop().time() - look.since_s > LOOK_S
        return OUTDATED if late else None

    async def _carried(self, row: LateSettlement, outbox_id: str) -> str | None:
        """Carry what was just written; None when it is in Postgres."""
        carried = await self._carrier.carry_entry(row.shard, outbox_id)
        return None if carried else "somebody else carries it, or Postgres refuses it"

    async def _load(self, keys: AccountKeys, asked: NotLoaded) -> None:
        state = await self._ledger.account_state(keys.account_id)
        if state is not None:
            await self._counters.load(keys, state, asked)
