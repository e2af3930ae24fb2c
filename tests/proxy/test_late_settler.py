"""What a call owes is kept until Postgres or Redis has it, whichever comes back first."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, cast

import pytest

from gateway.counters import CountersUnavailable
from gateway.ledger import LedgerRejected, LedgerUnavailable
from gateway.proxy import late as late_module
from gateway.proxy.hold import End
from gateway.proxy.late import LateSettler
from policies.catalog import Ending
from policies.decision import HoldGone, Settled, ShardLost
from tests.support.live_calls import hold
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from policies.settlement import LateSettlement, Settlement

OWED = End(Ending.COMPLETED, 200, "token=30", "", 130_000, 5)


class Servers:
    """Postgres, Redis and the writer, each as the test says."""

    def __init__(self) -> None:
        self.postgres: Exception | None = LedgerUnavailable("away")
        self.redis: Any = CountersUnavailable("away")
        self.late: list[LateSettlement] = []
        self.written: list[Settlement] = []
        self.asked: list[tuple[str, int, bytes]] = []
        self.calls: dict[str, Any] = {}
        self.settler = LateSettler(self, self, self, self.calls)

    async def add_late_settlement(self, row: LateSettlement) -> None:
        if self.postgres is not None:
            raise self.postgres
        self.late.append(row)

    async def settle(
        self, _keys: object, call_id: str, owed: int, result: bytes, *_more: object
    ) -> Any:
        self.asked.append((call_id, owed, result))
        if isinstance(self.redis, Exception):
            raise self.redis
        return self.redis

    def add(self, settlement: Settlement) -> None:
        self.written.append(settlement)

    def kept(self, call_id: str = "c1", *, redis: bool = True) -> asyncio.Task[Any]:
        self.calls[call_id] = object()
        return asyncio.create_task(self.settler.settle(hold(call_id), OWED, redis=redis))


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(late_module, "RETRY_MIN_S", 0.005)
    monkeypatch.setattr(late_module, "RETRY_MAX_S", 0.01)


@contextlib.asynccontextmanager
async def running() -> AsyncIterator[Servers]:
    servers = Servers()
    task = asyncio.create_task(servers.settler.run())
    try:
        yield servers
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_usually_postgres_keeps_it_and_the_call_leaves_the_registry() -> None:
    async with running() as servers:
        servers.postgres = None
        receipt = await servers.kept()
        assert (receipt.charged_microcredits, receipt.remaining_microcredits) == (130_000, None)
        [row] = servers.late
        assert (row.call_id, row.owed_microcredits, row.units) == ("c1", 130_000, "token=30")
        assert (row.held_microcredits, row.session, row.ended_ms) == (1_100_000, "s-1", 5)
        assert servers.calls == {}
        assert len(servers.settler) == 0


async def test_while_both_are_away_it_is_kept_and_the_client_is_not_kept_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(late_module, "POSTGRES_WAIT_S", 0.05)
    async with running() as servers:
        receipt = await servers.kept()
        assert receipt.charged_microcredits == 130_000
        assert list(servers.calls) == ["c1"]
        assert len(servers.settler) == 1
        with pytest.raises(LedgerUnavailable):
            await servers.settler.flush(0.01)
        servers.postgres = None
        await servers.settler.flush(10)
        assert [row.call_id for row in servers.late] == ["c1"]


async def test_redis_that_is_back_before_postgres_settles_it() -> None:
    async with running() as servers:
        waiting = servers.kept()
        await eventually(lambda: servers.asked)
        assert servers.asked[0] == ("c1", 130_000, b"completed,200,token=30,")
        servers.redis = Settled(120_000, 10_000, 0, "12:120000", "7-0", 9, 3)
        await waiting
        [row] = servers.written
        assert (row.charged_microcredits, row.uncollected_microcredits) == (120_000, 10_000)
        assert (row.outbox_id, row.session, row.units) == ("7-0", "s-1", "token=30")
        assert servers.late == []
        assert servers.calls == {}


@pytest.mark.parametrize("answer", [HoldGone(), ShardLost("CLOSED", 2, 0)])
async def test_what_redis_can_not_settle_waits_for_postgres(answer: object) -> None:
    async with running() as servers:
        servers.redis = answer
        waiting = servers.kept()
        await eventually(lambda: servers.asked)
        servers.postgres = None
        await waiting
        assert len(servers.late) == 1
        assert servers.written == []


async def test_redis_is_not_asked_about_a_call_without_a_hold() -> None:
    async with running() as servers:
        first, second = servers.kept("c1", redis=False), servers.kept("c2")
        await eventually(lambda: servers.asked)
        servers.postgres = None
        await asyncio.gather(first, second)
        assert {call_id for call_id, *_ in servers.asked} == {"c2"}
        assert {row.call_id for row in servers.late} == {"c1", "c2"}


async def test_the_first_end_of_a_call_counts() -> None:
    async with running() as servers:
        first = servers.kept()
        await eventually(lambda: len(servers.settler) == 1)
        second = asyncio.create_task(
            servers.settler.settle(hold("c1"), OWED._replace(owed=7), redis=True)
        )
        await asyncio.sleep(0)  # it has begun when Postgres comes back, however slow this is
        servers.postgres = None
        await asyncio.gather(first, second)
        assert [row.owed_microcredits for row in servers.late] == [130_000]


async def test_what_postgres_refuses_for_good_is_left_to_its_lease(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with running() as servers:
        servers.postgres = LedgerRejected("no such account")
        await servers.kept()
        assert servers.calls == {}
        assert "call c1: Postgres refuses its settlement" in caplog.text


async def test_a_mistake_of_ours_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    async with running() as servers:
        servers.redis = cast("Any", RuntimeError("planted"))
        servers.postgres = RuntimeError("planted")
        waiting = servers.kept()
        await eventually(lambda: len(servers.asked) > 1)
        servers.postgres = None
        await waiting
        assert len(servers.late) == 1


async def test_the_last_flush_of_a_process_says_what_it_could_not_keep(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with running() as servers:
        waiting = servers.kept()
        await eventually(lambda: len(servers.settler) == 1)
        await servers.settler.drain(0.01)
        assert "1 late settlements wait for Postgres; their leases end these calls" in caplog.text
        servers.postgres = None
        await waiting
        await servers.settler.drain(0.01)
