"""Each answer that Redis can give at a call's end, and what becomes of the call."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gateway.counters import CountersUnavailable
from gateway.proxy.hold import End, Hold, Receipt, beyond_bound
from gateway.proxy.offers import Offer
from gateway.proxy.settle import VOID_ATTEMPTS_MAX, Settler
from policies.catalog import Ending, Price, Tier
from policies.decision import ExpiredFirst, HoldGone, Moved, Settled, ShardLost, Voided
from policies.meters.reading import Reading
from policies.settlement import Posting
from tests.support.gateway import TOKENS, chat_route
from tests.support.live_calls import hold

SETTLED = Settled(130_000, 0, 7, "12:100000 99o:30000", "5-0", 9, 3)
LOST = ShardLost("STALE", 0, 0)
AWAY = CountersUnavailable("away")


class Stage:
    """Redis, the shards, the writer and what keeps late settlements, as the test says."""

    def __init__(self, *answers: Any, ready: bool = True) -> None:
        self.answers = list(answers)
        self.is_ready = ready
        self.asked: list[tuple[Any, ...]] = []
        self.written: list[Any] = []
        self.late: list[tuple[End, bool]] = []
        self.voided_later: list[tuple[str, str]] = []
        self.calls: dict[str, Any] = {"c1": object()}
        outer = self

        class Late:
            async def settle(self, _hold: object, end: End, *, redis: bool) -> Receipt:
                outer.late.append((end, redis))
                return Receipt(end.owed, None)

        self.settler = Settler(self, self, Late(), self, self.calls)  # type: ignore[arg-type]

    def _next(self) -> Any:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def settle(self, _keys: object, *told: Any) -> Any:
        self.asked.append(told)
        return self._next()

    async def void(self, _keys: object, *told: Any) -> Any:
        self.asked.append(told)
        return self._next()

    def void_later(self, _keys: object, call_id: str, session: str) -> None:
        self.voided_later.append((call_id, session))

    async def ready(self, _lost: ShardLost, _shard: int) -> bool:
        assert list(self.calls) == ["c1"], "a rebuilt shard must be told of it"
        return self.is_ready

    def add(self, settlement: Any) -> None:
        self.written.append(settlement)

    async def end(self, ending: Ending = Ending.COMPLETED, units: int | None = 30) -> Receipt:
        return await self.settler.settle(hold("c1"), ending, 200, Reading((units,)))


async def test_what_redis_settles_goes_to_the_writer_and_out_of_the_registry() -> None:
    stage = Stage(SETTLED)
    assert await stage.end() == Receipt(130_000, 7)
    assert stage.asked == [("c1", 130_000, b"completed,200,token=30,", "s-1")]
    [row] = stage.written
    assert (row.call_id, row.session, row.outbox_id) == ("c1", "s-1", "5-0")
    assert row.postings == (Posting(12, 100_000), Posting(99, 30_000))
    assert row.flags == "overage"
    assert stage.calls == {}
    assert stage.late == []


async def test_an_end_that_nobody_saw_costs_what_the_reaper_would_charge() -> None:
    stage = Stage(SETTLED)
    await stage.end(Ending.UNKNOWN, None)
    assert stage.asked[0][1:3] == (100_000, b"unknown,200,,")


def tiered_hold(used: int, bound: int | None = None) -> Hold:
    """Of a route whose first 100 tokens cost 10 microcredits each, and those behind them 1."""
    tiers = (Tier(100, 10 * 10**6), Tier(None, 10**6))
    price = Price(meters=(replace(TOKENS, tiers=tiers),))
    offer = Offer(chat_route("http://127.0.0.1:9", id=7, price=price), None)
    held = hold("c1")
    held.principal.used[7, "token"] = used
    return held._replace(offer=offer, terms=offer.terms._replace(bound=bound))


@pytest.mark.parametrize(
    ("answers", "owed"),
    [((AWAY,), 10 * 10 + 10), ((Moved((95,)), AWAY), 5 * 10 + 15), ((LOST, LOST), 10 * 10 + 10)],
)
async def test_a_late_settlement_is_computed_from_the_place_in_the_tiers_that_is_known(
    answers: tuple[Any, ...], owed: int
) -> None:
    stage = Stage(*answers)
    await stage.settler.settle(tiered_hold(90), Ending.COMPLETED, 200, Reading((20,)))
    [(end, _)] = stage.late
    assert end.owed == owed


def test_what_is_beyond_a_bound_depends_on_the_place_in_the_tiers() -> None:
    reading = Reading((20,))
    assert beyond_bound(tiered_hold(0, bound=150), Ending.COMPLETED, reading) == 200
    assert beyond_bound(tiered_hold(90, bound=150), Ending.COMPLETED, reading) is None


async def test_a_lost_shard_is_waited_for_and_asked_again() -> None:
    stage = Stage(LOST, SETTLED)
    assert await stage.end() == Receipt(130_000, 7)
    assert len(stage.asked) == 2
    assert stage.calls == {}


@pytest.mark.parametrize(
    ("answers", "redis"),
    [
        ((AWAY,), True),
        ((LOST, LOST), True),
        ((LOST, AWAY), True),
        ((LOST, HoldGone()), False),
        ((HoldGone(),), False),
        ((ExpiredFirst(SETTLED),), False),
    ],
)
async def test_what_redis_does_not_settle_is_kept_with_what_it_owes(
    answers: tuple[Any, ...], redis: bool
) -> None:
    stage = Stage(*answers)
    assert await stage.end() == Receipt(130_000, None)
    [(end, may_have_hold)] = stage.late
    assert (end.ending, end.status, end.units, end.owed) == (
        Ending.COMPLETED,
        200,
        "token=30",
        130_000,
    )
    assert may_have_hold is redis
    assert list(stage.calls) == ["c1"]  # until it is safe


async def test_a_shard_that_is_not_there_in_time_is_not_waited_for_longer() -> None:
    stage = Stage(LOST, ready=False)
    assert await stage.end() == Receipt(130_000, None)
    assert stage.late[0][1] is True


async def test_a_mistake_of_ours_leaves_the_hold_to_its_lease() -> None:
    stage = Stage(RuntimeError("planted"))
    with pytest.raises(RuntimeError, match="planted"):
        await stage.end()
    assert stage.calls == {}


async def test_a_void_leaves_the_registry_once_redis_has_it() -> None:
    stage = Stage(LOST, Voided(5))
    await stage.settler.void(hold("c1"))
    assert stage.asked == [("c1", "s-1")] * 2
    assert stage.calls == {}
    assert stage.voided_later == []


async def test_a_void_that_redis_can_not_be_told_of_is_told_later() -> None:
    stage = Stage(AWAY)
    await stage.settler.void(hold("c1"))
    assert stage.voided_later == [("c1", "s-1")]
    assert stage.calls == {}


async def test_a_void_in_a_shard_that_stays_closed_is_left_to_the_lease() -> None:
    stage = Stage(*[LOST] * VOID_ATTEMPTS_MAX, ready=False)
    await stage.settler.void(hold("c1"))
    assert stage.answers == []
    assert stage.calls == {}
