"""Drift becomes a metric and an error in the log, and nothing stops the job."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from gateway.counters import CountersUnavailable
from gateway.jobs import reconcile as job_module
from gateway.jobs.reconcile import LOGGED_MAX, Reconciliation
from gateway.operations.errors import OperationError
from gateway.operations.findings import CONSERVATION, Finding
from gateway.operations.reconcile import Turn

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pytest

FINDING = Finding(CONSERVATION, "redis_lot_sum", 7, "grant 12", 100, 101, "it differs")


class SomeTour:
    """Answers turns of the test's choosing, one after the other, the last for ever."""

    def __init__(self, *turns: Turn | Exception) -> None:
        self.turns = list(turns)
        self.taken = asyncio.Event()

    async def turn(self) -> Turn:
        turn = self.turns.pop(0) if len(self.turns) > 1 else self.turns[0]
        if not isinstance(turn, Turn):
            raise turn
        self.taken.set()
        return turn

    def drift(self) -> Mapping[str, int]:
        return {"redis_lot_sum": 1}


class Told:
    """What the metrics were told."""

    def __init__(self) -> None:
        self.accounts = 0
        self.drift: Mapping[str, int] | None = None

    def reconciled(self, accounts: int) -> None:
        self.accounts += accounts

    def drifted(self, findings: Mapping[str, int]) -> None:
        self.drift = findings


def job(tour: SomeTour, told: Told) -> Reconciliation:
    return Reconciliation(tour, reconciled=told.reconciled, drift=told.drifted)


async def test_drift_is_an_error_in_the_log_and_a_figure(caplog: pytest.LogCaptureFixture) -> None:
    told = Told()
    assert await job(SomeTour(Turn(3, 40, [FINDING])), told).reconcile() == 1
    (record,) = caplog.records
    assert record.levelname == "ERROR"
    assert record.getMessage() == (
        "drift in shard 3: account 7 grant 12: it differs "
        "(redis_lot_sum: expected 100 microcredits, found 101 microcredits)"
    )
    assert (told.accounts, told.drift) == (40, {"redis_lot_sum": 1})


async def test_a_flood_of_drift_does_not_flood_the_log(caplog: pytest.LogCaptureFixture) -> None:
    flood = [FINDING] * (LOGGED_MAX + 30)
    await job(SomeTour(Turn(3, 40, flood)), Told()).reconcile()
    assert len(caplog.records) == LOGGED_MAX + 1
    assert "30 more" in caplog.records[-1].getMessage()


async def test_a_clean_turn_logs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    assert await job(SomeTour(Turn(3, 40, ())), Told()).reconcile() == 0
    assert caplog.records == []


async def test_a_shard_too_busy_to_read_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    told = Told()
    assert await job(SomeTour(OperationError("too much under way")), told).reconcile() == 0
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert (told.accounts, told.drift) == (0, None)


async def test_it_goes_on_after_redis_was_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_module, "RECONCILE_PAUSE_S", 0.0)
    tour = SomeTour(CountersUnavailable("away"), OperationError("busy"), Turn(0, 1, ()))
    running = asyncio.create_task(job(tour, Told()).run())
    try:
        async with asyncio.timeout(20):
            await tour.taken.wait()
    finally:
        running.cancel()
        await asyncio.wait([running])
