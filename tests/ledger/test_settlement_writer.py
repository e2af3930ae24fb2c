"""A worker's queue: nothing lost, nothing acknowledged before Postgres has it."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from gateway.ledger import Ledger, LedgerUnavailable, SettlementWriter
from gateway.ledger import writer as writer_module
from tests.support.postgres_gate import postgres_gate
from tests.support.settlements import account_with_grants, assert_books_agree, settlement
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from policies.settlement import Settlement

PATIENCE_S = 20.0


@contextlib.asynccontextmanager
async def running(writer: SettlementWriter) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(writer.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])


class Outbox:
    """Records what was acknowledged, and whether Postgres had it then."""

    def __init__(self, ledger: Ledger, account_id: int = 1) -> None:
        self._ledger = ledger
        self._account_id = account_id
        self.batches: list[list[str]] = []
        self.early: list[str] = []
        self._told = asyncio.Condition()

    async def acknowledge(self, settled: Sequence[Settlement]) -> None:
        rows = await self._ledger.settlements(self._account_id, limit=10_000)
        present = {row.call_id for row in rows}
        self.batches.append([row.call_id for row in settled])
        self.early += [row.call_id for row in settled if row.call_id not in present]
        async with self._told:
            self._told.notify_all()

    async def until(self, count: int) -> None:
        async with asyncio.timeout(PATIENCE_S), self._told:
            await self._told.wait_for(lambda: len(self.call_ids) >= count)

    @property
    def call_ids(self) -> set[str]:
        return {call_id for batch in self.batches for call_id in batch}


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "RETRY_PAUSE_MIN_S", 0.01)
    monkeypatch.setattr(writer_module, "RETRY_PAUSE_MAX_S", 0.05)


async def test_the_outbox_is_told_only_what_postgres_has(ledger: Ledger) -> None:
    outbox = Outbox(ledger)
    writer = SettlementWriter(ledger, outbox.acknowledge, flush_interval_ms=1)
    calls = [settlement() for _ in range(30)]
    async with running(writer):
        for call in calls:
            writer.add(call)
        assert writer.backlog == 30
        assert await writer.drain(PATIENCE_S) == 0

    assert outbox.early == []
    assert outbox.call_ids == {call.call_id for call in calls}
    assert len(await ledger.settlements(1, limit=100)) == 30
    await assert_books_agree(ledger)


async def test_a_full_batch_goes_at_once_and_none_is_larger(ledger: Ledger) -> None:
    outbox = Outbox(ledger)
    writer = SettlementWriter(
        ledger, outbox.acknowledge, batch_rows_max=10, flush_interval_ms=3_600_000
    )
    async with running(writer):
        for _ in range(25):
            writer.add(settlement())
        await outbox.until(20)
        assert writer.backlog == 5, "the rest waits for company"
        assert await writer.drain(PATIENCE_S) == 0
    assert [len(batch) for batch in outbox.batches] == [10, 10, 5]


async def test_the_first_settlement_waits_for_company_but_not_for_ever(ledger: Ledger) -> None:
    outbox = Outbox(ledger)
    patient = SettlementWriter(ledger, outbox.acknowledge, flush_interval_ms=3_600_000)
    async with running(patient):
        patient.add(settlement())
        for _ in range(10):
            await asyncio.sleep(0)
        patient.add(settlement())
        assert await patient.drain(PATIENCE_S) == 0
    assert [len(batch) for batch in outbox.batches] == [2]

    hasty = SettlementWriter(ledger, outbox.acknowledge, flush_interval_ms=1)
    async with running(hasty):
        hasty.add(settlement())
        await outbox.until(3)


async def test_nothing_is_lost_while_postgres_is_away(ledger: Ledger, postgres_url: str) -> None:
    platform_id, account_id, (grant,) = await account_with_grants(ledger, 10_000)
    mine = {"platform_id": platform_id, "account_id": account_id}
    outbox = Outbox(ledger, account_id)
    async with postgres_gate(postgres_url) as (gate, url), Ledger(url) as through:
        writer = SettlementWriter(through, outbox.acknowledge, flush_interval_ms=1)
        async with running(writer):
            writer.add(settlement(((grant, 3),), **mine))
            assert await writer.drain(PATIENCE_S) == 0
            gate.shut()
            for _ in range(40):
                writer.add(settlement(((grant, 3),), **mine))
            assert await writer.drain(0.2) == 40
            gate.open()
            assert await writer.drain(PATIENCE_S) == 0

    assert len(outbox.call_ids) == 41
    assert [row.settled_microcredits for row in await ledger.grants(account_id)] == [41 * 3]
    await assert_books_agree(ledger)


async def test_a_commit_without_an_answer_is_written_again_without_effect(
    ledger: Ledger, postgres_url: str
) -> None:
    platform_id, account_id, (grant,) = await account_with_grants(ledger, 10_000)
    outbox = Outbox(ledger, account_id)
    call = settlement(((grant, 3),), platform_id=platform_id, account_id=account_id)
    async with postgres_gate(postgres_url) as (gate, url), Ledger(url) as through:
        gate.lose_next_answer(call.call_id.encode())
        writer = SettlementWriter(through, outbox.acknowledge, flush_interval_ms=1)
        async with running(writer):
            writer.add(call)
            assert await writer.drain(PATIENCE_S) == 0
        assert gate.answers_lost == 1

    assert outbox.batches == [[call.call_id]]
    assert [row.settled_microcredits for row in await ledger.grants(account_id)] == [3]
    await assert_books_agree(ledger)


async def test_a_refused_settlement_keeps_nobody_waiting_and_stays_in_the_outbox(
    ledger: Ledger,
) -> None:
    outbox = Outbox(ledger)
    writer = SettlementWriter(ledger, outbox.acknowledge, flush_interval_ms=1)
    good = settlement()
    async with running(writer):
        writer.add(good)
        writer.add(settlement(units="nul\x00"))
        await writer.flush(PATIENCE_S)
        assert await writer.drain(PATIENCE_S) == 0
    assert outbox.call_ids == {good.call_id}


async def test_a_flush_gives_up_at_its_deadline_and_loses_nothing(ledger: Ledger) -> None:
    writer = SettlementWriter(ledger, Outbox(ledger).acknowledge)
    writer.add(settlement())
    with pytest.raises(LedgerUnavailable):
        await writer.flush(0.01)
    async with running(writer):
        await writer.flush(PATIENCE_S)
    assert len(await ledger.settlements(1, limit=9)) == 1


async def test_an_outbox_that_can_t_be_told_stops_nothing(
    ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    async def acknowledge(_settled: Sequence[Settlement]) -> None:
        raise ConnectionError("Redis is away")

    writer = SettlementWriter(ledger, acknowledge, flush_interval_ms=1)
    async with running(writer):
        for _ in range(2):
            writer.add(settlement())
            assert await writer.drain(PATIENCE_S) == 0
    assert len(await ledger.settlements(1, limit=9)) == 2
    assert caplog.messages.count("1 outbox entries are left to the sweeper: Redis is away") == 2


async def test_a_writer_that_was_stopped_in_a_write_goes_on_where_it_was(
    ledger: Ledger,
) -> None:
    entered = asyncio.Event()

    class Slow:
        async def record_settlements(self, _rows: Sequence[Settlement]) -> Any:
            entered.set()
            await asyncio.Event().wait()

    outbox = Outbox(ledger)
    writer = SettlementWriter(Slow(), outbox.acknowledge, flush_interval_ms=1)
    writer.add(settlement())
    async with running(writer):
        await entered.wait()
    assert writer.backlog == 1

    writer._store = ledger
    async with running(writer):
        assert await writer.drain(PATIENCE_S) == 0
    assert len(outbox.call_ids) == 1


async def test_over_its_bound_the_writer_says_so_and_still_takes_what_is_running(
    ledger: Ledger,
) -> None:
    writer = SettlementWriter(ledger, Outbox(ledger).acknowledge, backlog_rows_max=2)
    fullness = []
    for _ in range(3):
        writer.add(settlement())
        fullness.append(writer.full)
    assert fullness == [False, True, True]
    async with running(writer):
        assert await writer.drain(PATIENCE_S) == 0
        assert not writer.full
    assert len(await ledger.settlements(1, limit=9)) == 3


async def test_settlements_that_wait_too_long_close_the_door_until_they_are_written(
    ledger: Ledger,
) -> None:
    class Away:
        async def record_settlements(self, _rows: Sequence[Settlement]) -> Any:
            raise LedgerUnavailable("Postgres is away")

    writer = SettlementWriter(
        Away(), Outbox(ledger).acknowledge, flush_interval_ms=1, backlog_minutes_max=0.001
    )
    writer.add(settlement())
    assert not writer.full
    async with running(writer):
        await eventually(lambda: writer.full)
        writer._store = ledger
        assert await writer.drain(PATIENCE_S) == 0
    assert not writer.full
