"""The end of a hold: what the call owes, told to Redis, and on its way to Postgres.

Writes, in order, and what holds if the process dies after each (I2, I5):

1. `settle.lua` charges the hold and writes the outbox entry, atomically. Death after it: the
sweeper carries the
   entry to Postgres.
2. `writer.add` keeps the settlement in memory until Postgres has it. Death after it: as 1.
3. The writer commits, then deletes the outbox entry. Death between: the sweeper inserts again, in
vain (the call id is
   the primary key), and deletes.

If Redis does not answer in time, 2 happens without 1: the settlement goes straight to Postgres,
at most for what was held, and Redis is told the same figure when it is back. Whatever of the two
is repeated has the same call id.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, NamedTuple, Protocol

from gateway.clock import now_ms
from gateway.counters import CountersUnavailable
from policies.burndown import split
from policies.decision import Settled, format_postings
from policies.settlement import Settlement, owed, parse_postings, result_blob, units_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.counters import Counters
    from gateway.proxy.authenticate import Principal
    from gateway.proxy.offers import Offer
    from policies.catalog import Ending
    from policies.decision import Admitted

POSTGRES_WAIT_S = 2.0
LATE_SETTLES_MAX = 100_000
LATE_RETRY_MIN_S, LATE_RETRY_MAX_S = 0.2, 5.0

log = logging.getLogger("tollkeeper.proxy")


class Hold(NamedTuple):
    """A call that was admitted: who, for what, and what Redis reserved."""

    call_id: str
    principal: Principal
    offer: Offer
    admitted: Admitted


class Receipt(NamedTuple):
    """What the client is told. `remaining` is None when Redis could not be asked."""

    charged_microcredits: int
    remaining_microcredits: int | None


class _End(NamedTuple):
    """How a call ended, and what that makes it owe."""

    ending: Ending
    status: int
    units: str
    flags: str
    due: int


class _Late(NamedTuple):
    """A settlement that Redis still has to be told of."""

    hold: Hold
    charged: int
    result: bytes


class Writer(Protocol):
    """The batched way to Postgres."""

    def add(self, settlement: Settlement) -> None:
        """Take a settlement that is in the outbox; never blocks."""

    async def write(self, settlement: Settlement) -> None:
        """Take a settlement that Redis does not have; returns when it is in Postgres."""


class Settler:
    """Settles and voids holds. `run` tells Redis what it missed."""

    def __init__(self, counters: Counters, writer: Writer) -> None:
        self._counters = counters
        self._writer = writer
        self._late: asyncio.Queue[_Late] = asyncio.Queue(LATE_SETTLES_MAX)

    async def settle(
        self, hold: Hold, ending: Ending, status: int, units: Sequence[int | None]
    ) -> Receipt:
        """Charge what the ending costs.

        Exactly one settlement comes of it, however often parts of this are retried.
        """
        call_id, principal, offer, _ = hold
        route = offer.route
        price = route.price
        if price is None:
            due, flags, metered = 0, "", ""
        else:
            due, flags = owed(price, route.rules[ending], offer.ceiling, units)
            metered = units_text(price, units)
        end = _End(ending, status, metered, flags, due)
        result = result_blob(ending, status, metered, flags).encode("ascii")
        try:
            outcome = await self._counters.settle(principal.keys, call_id, due, result)
        except CountersUnavailable:
            receipt = await self._straight_to_postgres(hold, end)
            self._tell_later(_Late(hold, receipt.charged_microcredits, result))
            return receipt
        if type(outcome) is Settled:
            self._writer.add(_settlement(hold, end, outcome))
            return Receipt(outcome.charged, outcome.remaining)
        # Redis has lost the hold with its shard, or the reaper has ended it. In the second case a
        # settlement of this call exists, and what Postgres gets now comes too late to count.
        log.error("call %s: Redis has no hold of it any more", hold.call_id)
        return await self._straight_to_postgres(hold, end)

    async def void(self, hold: Hold) -> None:
        """Give everything back: the call was never dispatched."""
        try:
            await self._counters.void(hold.principal.keys, hold.call_id)
        except CountersUnavailable:
            self._counters.void_later(hold.principal.keys, hold.call_id)

    async def run(self) -> None:
        """Tell Redis of settlements it missed, oldest first, until cancelled."""
        while True:
            late = await self._late.get()
            wait_s = LATE_RETRY_MIN_S
            while not await self._told(late):
                await asyncio.sleep(wait_s)
                wait_s = min(wait_s * 2, LATE_RETRY_MAX_S)
            self._late.task_done()

    async def drain(self, deadline_s: float) -> None:
        """Wait until Redis knows all. At the deadline leases and the outbox take over."""
        try:
            async with asyncio.timeout(deadline_s):
                await self._late.join()
        except TimeoutError:
            log.warning("%d settlements could not be told to Redis", self._late.qsize() + 1)

    async def _straight_to_postgres(self, hold: Hold, end: _End) -> Receipt:
        """Settle without Redis, and wait a while until Postgres has it.

        Only what was held can be charged: nobody else can have taken that.
        """
        postings, _released, excess = split(parse_postings(hold.admitted.allocation), end.due)
        charged = sum(posting.microcredits for posting in postings)
        outcome = Settled(
            charged=charged,
            uncollected=excess,
            remaining=0,
            postings=format_postings(postings),
            outbox_id="",
            settled_ms=now_ms(),
            admitted_ms=hold.admitted.admitted_ms,
        )
        try:
            async with asyncio.timeout(POSTGRES_WAIT_S):
                await self._writer.write(_settlement(hold, end, outcome))
        except TimeoutError:
            # Both are away. The writer goes on trying for as long as this process lives.
            log.warning("call %s: neither Redis nor Postgres has its settlement", hold.call_id)
        except Exception:
            log.exception("call %s: Postgres refuses its settlement", hold.call_id)
        return Receipt(charged, None)

    def _tell_later(self, late: _Late) -> None:
        try:
            self._late.put_nowait(late)
        except asyncio.QueueFull:
            log.exception("call %s: Redis will end its hold by expiry", late.hold.call_id)

    async def _told(self, late: _Late) -> bool:
        hold = late.hold
        try:
            outcome = await self._counters.settle(
                hold.principal.keys, hold.call_id, late.charged, late.result
            )
        except CountersUnavailable:
            return False
        if type(outcome) is not Settled or outcome.charged != late.charged:
            # Redis had charged something else before it went away, or lost the hold: Postgres has
            # the figure that the client was told. `audit` shows the difference.
            log.error("call %s: Redis and Postgres charged it differently", hold.call_id)
        return True


def _settlement(hold: Hold, end: _End, outcome: Settled) -> Settlement:
    call_id, principal, offer, _admitted = hold
    price = offer.route.price
    # By position: this runs for every call.
    return Settlement(
        call_id,
        principal.keys.shard,
        outcome.outbox_id or None,
        principal.platform_id,
        principal.account_id,
        principal.key_number,
        offer.route.id,
        price.version if price is not None else 0,
        outcome.admitted_ms,
        outcome.settled_ms,
        end.ending,
        end.status,
        end.units,
        end.flags,
        offer.ceiling,
        outcome.charged,
        outcome.uncollected,
        parse_postings(outcome.postings),
    )
