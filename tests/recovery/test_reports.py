"""A worker tells all of a closed shard, in an order in which no call falls through."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from gateway.counters import CountersUnavailable
from gateway.ledger import LedgerUnavailable
from gateway.recovery import reports
from gateway.recovery.reports import REBUILD_CHANNEL, Reporter

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

CALL = ("ab" * 16, "h|7|1|100|0|||12:100|1,7,5,2,9,", 1)


class Everybody:
    """Counters, ledger, registry and writer at once; notes what it is asked, in order."""

    def __init__(self) -> None:
        self.asked: list[object] = []
        self.shards = 3
        self.closed = {1: 4}
        self.failures = 0
        self.calls = [CALL]
        self.attends = True

    def adopt(self, shard: int, epoch: int) -> None:
        self.asked.append(("adopt", shard, epoch))

    async def meta(self, shard: int) -> tuple[int, int | None]:
        self.asked.append("meta")
        await asyncio.sleep(0)
        return (self.closed[shard], None) if shard in self.closed else (1, 1)

    def live(self, shard: int) -> Sequence[tuple[str, str, int]]:
        self.asked.append(("live", shard))
        return self.calls

    async def restore(
        self, shard: int, epoch: int, worker: str, _lease_ms: int, holds: Sequence[object]
    ) -> bool:
        self.asked.append(("restore", worker, len(holds)))
        return self.closed.get(shard) == epoch

    async def flush(self) -> None:
        self.asked.append("flush")
        if self.failures:
            self.failures -= 1
            raise LedgerUnavailable("away")

    async def attend(self, worker_id: int, channel: str, callback: Callable[[str], None]) -> None:
        assert (worker_id, channel) == (17, REBUILD_CHANNEL)
        if self.attends:
            callback("")


async def started(one: Everybody) -> Reporter:
    reporter = Reporter(17, one, one, one.live, one.flush)  # type: ignore[arg-type]
    await reporter.start()
    return reporter


async def told(reporter: Reporter) -> None:
    """Return when nothing is under way."""
    if reporter._looking is not None:
        await reporter._looking
    await asyncio.gather(*reporter._reports.values())


REPORT = [
    ("adopt", 1, 4),
    "meta",  # what was asked before is answered after this
    ("live", 1),
    ("restore", "17", 1),
    "flush",
    ("restore", "17", 0),
]


async def test_a_report_tells_then_flushes_then_says_so() -> None:
    one = Everybody()
    one.closed = {}
    reporter = await started(one)
    await told(reporter)
    one.closed = {1: 4}
    one.asked.clear()

    for _ in range(3):  # the calls of one rebuild
        reporter.called("1:4")
    await told(reporter)
    reporter.called("1:4")
    reporter.called("1:3")
    await told(reporter)

    assert one.asked == REPORT
    await reporter.close()
    reporter.called("1:5")
    assert one.asked == REPORT


async def test_whoever_begins_to_listen_reports_of_what_is_closed() -> None:
    one = Everybody()
    reporter = await started(one)
    await told(reporter)
    assert one.asked == ["meta"] * 3 + REPORT


async def test_a_worker_without_calls_reports_too() -> None:
    one = Everybody()
    one.calls = []
    await told(await started(one))
    assert one.asked[-2:] == ["flush", ("restore", "17", 0)]


async def test_what_could_not_be_flushed_is_not_reported() -> None:
    one = Everybody()
    one.failures = 1
    reporter = await started(one)
    await told(reporter)
    assert one.asked[-1] == "flush"

    reporter.called("1:4")
    await told(reporter)
    assert one.asked[-1] == ("restore", "17", 0)


async def test_a_shard_that_is_open_again_is_not_reported() -> None:
    one = Everybody()
    reporter = await started(one)
    await told(reporter)
    one.asked.clear()
    reporter.called("2:9")
    await told(reporter)
    assert one.asked[-1] == ("restore", "17", 1)
    assert "flush" not in one.asked


async def test_a_redis_that_does_not_answer_is_asked_at_the_next_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = Everybody()
    one.closed = {}
    reporter = await started(one)
    await told(reporter)
    one.closed = {1: 4}
    real = one.meta

    async def fail(_shard: int) -> tuple[int, int | None]:
        monkeypatch.setattr(one, "meta", real)
        raise CountersUnavailable("away")

    monkeypatch.setattr(one, "meta", fail)
    reporter.called("1:4")
    await told(reporter)
    reporter.called("1:4")
    await told(reporter)
    assert one.asked[-1] == ("restore", "17", 0)


async def test_who_can_t_be_called_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "ATTEND_WAIT_S", 0.01)
    one = Everybody()
    one.attends = False
    with pytest.raises(LedgerUnavailable):
        await started(one)
