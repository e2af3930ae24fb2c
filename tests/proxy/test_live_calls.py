"""The registry of live calls: what is renewed, with what, and what a rebuilt shard is told."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from gateway.counters import CountersUnavailable
from gateway.proxy import live as live_module
from gateway.proxy.live import DISPATCHED, HELD, LiveCalls
from policies.decision import ShardLost
from policies.meters.reading import Reading
from policies.rebuild import parse_hold
from tests.support.live_calls import Call, hold
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Sequence

LEASE_MS = 30_000


class Leases:
    """Redis, as the test says."""

    def __init__(self) -> None:
        self.answers: list[Any] = []
        self.extended: list[tuple[int, list[Any]]] = []
        self.marked: list[tuple[str, int]] = []

    def dispatched(self, _keys: object, call_id: str, deadline_ms: int) -> Any:
        self.marked.append((call_id, deadline_ms))
        return asyncio.sleep(0)

    async def extend(self, shard: int, lease_ms: int, calls: Sequence[Any]) -> Any:
        assert lease_ms == LEASE_MS
        self.extended.append((shard, list(calls)))
        answer = self.answers.pop(0) if self.answers else []
        if isinstance(answer, Exception):
            raise answer
        return answer


class Stage:
    def __init__(self, *calls: Call) -> None:
        self.leases = Leases()
        self.lost: list[tuple[ShardLost, int]] = []
        self.live = LiveCalls(self.leases, LEASE_MS, lambda *lost: self.lost.append(lost))
        for call in calls:
            self.live.calls[call.hold.call_id] = call


async def test_a_call_is_renewed_from_its_second_round_on() -> None:
    stage = Stage(Call(hold("old")))
    await stage.live.renew()
    assert stage.leases.extended == []
    stage.live.calls["new"] = Call(hold("new"))
    await stage.live.renew()
    assert stage.leases.extended == [(3, [("old", HELD, None, "")])]
    await stage.live.renew()
    assert len(stage.leases.extended[1][1]) == 2


async def test_a_renewal_says_the_stage_and_what_a_metered_stream_would_cost() -> None:
    call = Call(hold("c1"), units=(250,))
    stage = Stage(call)
    await stage.live.mark(call)
    await stage.live.renew()
    await stage.live.renew()
    assert stage.leases.extended == [(3, [("c1", DISPATCHED, 350_000, "token=250")])]
    call.meter.reading = lambda _elapsed_ms: Reading((None,))
    await stage.live.renew()
    assert stage.leases.extended[1] == (3, [("c1", DISPATCHED, 100_000, "")])


async def test_renewals_are_batched_by_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_module, "RENEW_BATCH", 2)
    stage = Stage(*(Call(hold(f"c{number}", shard=number % 2)) for number in range(6)))
    await stage.live.renew()
    await stage.live.renew()
    assert [(shard, len(calls)) for shard, calls in stage.leases.extended] == [
        (0, 2),
        (0, 1),
        (1, 2),
        (1, 1),
    ]


async def test_a_missing_hold_is_logged_and_the_call_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stage = Stage(Call(hold("c1")))
    stage.leases.answers = [["c1", "ended-meanwhile"]]
    await stage.live.renew()
    await stage.live.renew()
    assert "1 calls outlived their holds; they settle late: ['c1']" in caplog.text
    assert list(stage.live.calls) == ["c1"]


async def test_a_lost_shard_is_seen_to_and_the_others_are_renewed() -> None:
    stage = Stage(Call(hold("c1", shard=1)), Call(hold("c2", shard=2)))
    lost = ShardLost("STALE", 0, 0)
    stage.leases.answers = [lost]
    await stage.live.renew()
    await stage.live.renew()
    assert stage.lost == [(lost, 1)]
    assert [shard for shard, _ in stage.leases.extended] == [1, 2]


async def test_a_round_that_failed_is_soon_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_module, "RENEWALS_PER_LEASE", 3_000)
    monkeypatch.setattr(live_module, "RETRY_S", 0.001)
    stage = Stage(Call(hold("c1")))
    stage.leases.answers = [CountersUnavailable("away"), RuntimeError("planted")]
    task = asyncio.create_task(stage.live.run())
    await eventually(lambda: len(stage.leases.extended) > 3)
    task.cancel()
    await asyncio.wait([task])


async def test_a_mark_goes_by_the_lease_of_the_admission() -> None:
    call = Call(hold("c1"))
    stage = Stage(call)
    await stage.live.mark(call)
    assert stage.leases.marked == [("c1", 1_000_000 + LEASE_MS)]
    assert call.stage == DISPATCHED


async def test_a_call_that_was_renewed_before_it_is_sent_on_is_marked_by_a_renewal() -> None:
    call = Call(hold("c1"))
    stage = Stage(call)
    await stage.live.renew()
    await stage.live.renew()
    await stage.live.mark(call)
    assert stage.leases.marked == []
    assert stage.leases.extended[1] == (3, [("c1", DISPATCHED, None, "")])


@pytest.mark.parametrize("answer", [["c1"], ShardLost("CLOSED", 2, 0)])
async def test_a_call_whose_hold_has_gone_before_it_is_sent_on_is_not(answer: object) -> None:
    call = Call(hold("c1"))
    call.rounds = 2
    stage = Stage(call)
    stage.leases.answers = [answer]
    with pytest.raises(CountersUnavailable):
        await stage.live.mark(call)


async def test_a_call_of_a_rebuilt_shard_is_marked_by_a_renewal() -> None:
    """Its lease is the rebuild's: the mark of the admission's would not count."""
    call = Call(hold("c1"))
    stage = Stage(call)
    stage.live.of_shard(3)
    await stage.live.mark(call)
    assert stage.leases.marked == []
    assert stage.leases.extended == [(3, [("c1", DISPATCHED, None, "")])]


def test_a_rebuilt_shard_is_told_its_calls_with_what_they_would_cost_now() -> None:
    streaming, other = Call(hold("c1"), units=(250,)), Call(hold("c2", shard=9))
    streaming.stage = DISPATCHED
    waiting = Call(hold("c3", session=""))
    stage = Stage(streaming, other, waiting)
    told = stage.live.of_shard(3)
    assert [(call_id, at) for call_id, _, at in told] == [("c1", DISPATCHED), ("c3", HELD)]
    assert told[0][1] == ("h|5|1000000|1100000|350000|token=250|A.cd@9|12:1100000|1,5,8,7,0,s-1")
    text = parse_hold(told[1][1])
    assert (text.due, text.units, text.context) == (100_000, "", "1,5,8,7,0,")
    assert stage.live.of_shard(8) == []
