"""Workers without a proxy: each has its own connections, a registry of live calls, a writer."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple

from gateway.clock import now_ms
from gateway.counters import Counters
from gateway.ledger import Ledger, SettlementWriter
from gateway.recovery.carry import Carrier
from gateway.recovery.late import LateApplier
from gateway.recovery.rebuild import Rebuilder
from gateway.recovery.reports import Reporter
from gateway.recovery.shards import Shards
from policies.decision import Admitted, NotLoaded, Settled, ShardLost
from policies.rebuild import HoldText
from policies.settlement import LateSettlement, Settlement, parse_postings
from tests.support.settlements import new_call_id

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from policies.decision import Admission, Settling
    from tests.support.calls import Caller

LEASE_MS = 60_000
ROUTE_ID, PRICE_VERSION = 7, 9
_worker_ids = itertools.count(1)


class LiveCall(NamedTuple):
    """A call of the registry."""

    who: Caller
    hold: HoldText
    stage: int
    session: str


class Hand:
    """Does by hand what a worker does."""

    def __init__(self, counters: Counters, ledger: Ledger, *, report_wait_s: float) -> None:
        self.counters = counters
        self.ledger = ledger
        self.worker_id = next(_worker_ids)
        self.calls: dict[str, LiveCall] = {}
        self.writer = SettlementWriter(ledger, counters.acknowledge, flush_interval_ms=600_000)
        self.carrier = Carrier(counters, ledger)
        self.late = LateApplier(counters, ledger, self.carrier)
        self.rebuilder = Rebuilder(
            counters, ledger, self.carrier, self.late, report_wait_s=report_wait_s
        )
        self.shards = Shards(self.rebuilder, counters, wait_s=60.0)
        self.reporter = Reporter(
            self.worker_id, counters, ledger, self.of_shard, self.flush, lease_ms=LEASE_MS
        )
        self.rebuilder.own = self.reporter

    def of_shard(self, shard: int) -> list[tuple[str, str, int]]:
        return [
            (call_id, str(call.hold), call.stage)
            for call_id, call in self.calls.items()
            if call.who.keys.shard == shard
        ]

    async def flush(self) -> None:
        await self.writer.flush(20.0)

    async def ask(self, who: Caller, amount: int, *, session: str = "") -> Admission:
        """One admit, and nothing else."""
        keys = self.counters.keys(who.account_id)
        context = self._context(who, session).encode()
        key = b"%d" % who.key_id
        return await self.counters.admit(
            keys, new_call_id(), key, amount, LEASE_MS, 1, context, session=session.encode()
        )

    async def admit(
        self, who: Caller, amount: int, *, session: str = "", sent_on: bool = True
    ) -> str:
        """A call that runs, after opening and loading what it needs."""
        while not isinstance(decision := await self.ask(who, amount, session=session), Admitted):
            if isinstance(decision, ShardLost):
                assert await self.shards.ready(decision, who.keys.shard)
            else:
                assert isinstance(decision, NotLoaded), decision
                state = await self.ledger.account_state(who.account_id)
                assert state is not None
                await self.counters.load(self.counters.keys(who.account_id), state, decision)
        call_id, keys = decision.call_id, self.counters.keys(who.account_id)
        if sent_on:
            await self.counters.dispatched(keys, call_id, decision.admitted_ms + LEASE_MS)
        hold = HoldText(
            who.account_id,
            decision.admitted_ms,
            amount,
            1,
            "",
            decision.counted,
            decision.allocation,
            self._context(who, session),
        )
        self.calls[call_id] = LiveCall(who, hold, int(sent_on), session)
        return call_id

    async def settle(self, call_id: str, owed: int) -> Settling:
        """Settle a call of the registry, waiting for its shard; else it stays there."""
        call = self.calls[call_id]
        keys = self.counters.keys(call.who.account_id)
        while True:
            outcome = await self.counters.settle(
                keys, call_id, owed, b"completed,200,,", call.session
            )
            if isinstance(outcome, ShardLost):
                assert await self.shards.ready(outcome, keys.shard)
                continue
            if isinstance(outcome, Settled):
                self.writer.add(self._settlement(call_id, call, outcome))
                del self.calls[call_id]
            return outcome

    async def settle_late(self, call_id: str, owed: int) -> None:
        """Leave word in Postgres of how a call ended."""
        await self.ledger.add_late_settlement(self.late_settlement(call_id, owed))
        del self.calls[call_id]

    def late_settlement(self, call_id: str, owed: int) -> LateSettlement:
        call = self.calls[call_id]
        who, hold = call.who, call.hold
        return LateSettlement(
            call_id,
            who.keys.shard,
            who.platform_id,
            who.account_id,
            who.key_id,
            ROUTE_ID,
            PRICE_VERSION,
            call.session,
            hold.admitted_ms,
            now_ms(),
            "completed",
            200,
            "",
            "",
            hold.held,
            owed,
        )

    def _context(self, who: Caller, session: str) -> str:
        ids = (who.platform_id, who.account_id, who.key_id, ROUTE_ID, PRICE_VERSION)
        return f"{','.join(map(str, ids))},{session}"

    def _settlement(self, call_id: str, call: LiveCall, outcome: Settled) -> Settlement:
        who = call.who
        return Settlement(
            call_id,
            who.keys.shard,
            outcome.outbox_id,
            who.platform_id,
            who.account_id,
            who.key_id,
            ROUTE_ID,
            PRICE_VERSION,
            outcome.admitted_ms,
            outcome.settled_ms,
            "completed",
            200,
            "",
            "",
            call.session,
            call.hold.held,
            outcome.charged,
            outcome.uncollected,
            parse_postings(outcome.postings),
        )


@asynccontextmanager
async def hands(
    redis_url: str, postgres_url: str, count: int, *, shards: int, report_wait_s: float = 60.0
) -> AsyncIterator[list[Hand]]:
    """So many workers that live, each known to the others by its reports alone."""
    async with AsyncExitStack() as stack:
        made = []
        for _ in range(count):
            ledger = await stack.enter_async_context(Ledger(postgres_url))
            counters = await stack.enter_async_context(
                Counters(redis_url, shards=shards, deadline_ms=20_000)
            )
            hand = Hand(counters, ledger, report_wait_s=report_wait_s)
            writing = asyncio.create_task(hand.writer.run())
            stack.callback(writing.cancel)
            stack.push_async_callback(hand.shards.close)
            stack.push_async_callback(hand.reporter.close)
            await hand.reporter.start()
            made.append(hand)
        yield made
