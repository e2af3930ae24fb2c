"""Nothing passes that the hold does not cover, and the hold is raised as far as it can be."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from gateway.counters import CountersUnavailable
from gateway.proxy import websocket_cover
from gateway.proxy.decoders import METER_TOOLS
from gateway.proxy.hold import Hold
from gateway.proxy.offers import Offer
from gateway.proxy.websocket_cover import (
    ACCOUNT_SUSPENDED,
    BYTES_AHEAD,
    FRAMES_AHEAD,
    KEY_REVOKED,
    UNAVAILABLE,
    Cover,
    Denied,
)
from policies.catalog import Price, Tier
from policies.decision import (
    AccountSuspended,
    Admitted,
    HoldGone,
    InsufficientCredits,
    KeyRefused,
    Raised,
    ShardLost,
    SpendCapReached,
)
from policies.meters.facts import RequestFacts
from policies.pricing import terms_of
from policies.terms import Terms
from tests.support.conversations import counted, talk_route
from tests.support.gateway import CREDIT

if TYPE_CHECKING:
    from policies.catalog import MeterSpec
    from policies.decision import Raising

INTERVAL_MS = 1_000
LOST = ShardLost("CLOSED", 3, 0)


class Bank:
    """Redis: it has so much, or answers what the test says."""

    def __init__(self, has: int = 0) -> None:
        self.has = has
        self.asked: list[tuple[int, int]] = []
        self.answers: list[Any] = []

    async def raise_hold(self, *told: Any) -> Raising:
        assert told[1:3] == ("c1", b"8")
        least, target = told[3], told[4]
        self.asked.append((least, target))
        if self.answers:
            answer = self.answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer
        held = self.call.hold.held
        if least > held + self.has:
            return InsufficientCredits(least - held, self.has, 0)
        more = min(max(target - held, 0), self.has)
        self.has -= more
        return Raised(held + more, self.has, f"12:{held + more}", "")

    call: Any


class Talk:
    """A conversation without a gateway: time and frames are what the test says."""

    def __init__(
        self, *meters: MeterSpec, has: int = 0, bound: int | None = None, **price: Any
    ) -> None:
        route = talk_route("http://127.0.0.1:9", price=Price(meters=meters, **price), id=7)
        offer = Offer(route, None)
        self.facts = RequestFacts(orjson.loads, "GET", "/talk", "/talk", "", b"", 0)
        terms = terms_of(route.price, offer.rule_if_lost, self.facts, bound=bound)
        assert isinstance(terms, Terms)
        admitted = Admitted("c1", 1, 4, 0, f"12:{terms.ceiling}", 1_000_000, 0, 0, "")
        principal: Any = SimpleNamespace(keys=None, key_id=b"8")
        self.hold = Hold("c1", principal, offer, admitted, "", terms)
        plan = offer.answer_kind((b"", b"")).meter_plan
        self.meter = None if plan is None else plan.open(METER_TOOLS, (), self.facts)
        if self.meter is not None:
            self.meter.note_messages(0, 0)
        self.bank = Bank(has)
        self.bank.call = self
        self.now_ms = 0
        self.cover = Cover(self, self.bank, INTERVAL_MS)

    async def say(
        self, data: bytes = b"x", *, inbound: bool = True, begins: bool = True
    ) -> Denied | None:
        """One frame, as the relay passes it."""
        told = {"inbound": inbound, "begins": begins}
        if not self.cover.covers(self.now_ms, len(data), **told):
            denied = await self.cover.cover(self.now_ms, len(data), **told)
            if denied is not None:
                return denied
        self.cover.note(data, **told)
        assert self.cover.paid_ms(self.now_ms) == self.now_ms
        return None

    async def check(self) -> Denied | None:
        return await self.cover.check(self.now_ms)

    def units(self) -> tuple[int | None, ...]:
        assert self.meter is not None
        return self.meter.reading(self.now_ms).units


IN, OUT, BOTH = "websocket.messages:in", "websocket.messages:out", "websocket.messages"


async def test_a_message_that_the_hold_covers_asks_nobody() -> None:
    talk = Talk(counted(IN, reserve=3))
    for _ in range(3):
        assert await talk.say() is None
    assert talk.bank.asked == []
    assert talk.units() == (3,)


async def test_a_message_beyond_the_hold_is_not_counted_where_nobody_can_pay() -> None:
    talk = Talk(counted(IN, reserve=3), has=CREDIT - 1)
    for _ in range(3):
        assert await talk.say() is None
    denied = await talk.say()
    assert denied == Denied("insufficient_credits: needs 1, has 0.999999")
    assert talk.units() == (3,)
    # What costs nothing still passes.
    assert await talk.say(inbound=False) is None
    assert await talk.say(begins=False) is None
    assert talk.units() == (3,)


async def test_a_message_beyond_the_hold_has_it_raised_for_an_interval_like_this_one() -> None:
    talk = Talk(counted(IN, reserve=3), has=100 * CREDIT)
    for _ in range(4):
        assert await talk.say() is None
    # Four so far, of which all are of this interval.
    assert talk.bank.asked == [(4 * CREDIT, 8 * CREDIT)]
    assert talk.hold.held == 8 * CREDIT
    assert talk.hold.admitted.allocation == f"12:{8 * CREDIT}"


async def test_what_is_held_follows_the_busiest_interval() -> None:
    talk = Talk(counted(IN, reserve=1), has=1_000 * CREDIT)
    for said, held in ((5, 10), (2, 12), (9, 25), (0, 25), (1, 26)):
        for _ in range(said):
            assert await talk.say() is None
        talk.now_ms += INTERVAL_MS
        assert await talk.check() is None
        assert talk.hold.held == held * CREDIT


async def test_a_hold_is_raised_as_far_as_credits_go_and_used_to_the_last() -> None:
    talk = Talk(counted(IN, reserve=2), has=3 * CREDIT)
    passed = 0
    while await talk.say() is None:
        passed += 1
    assert passed == 5
    assert talk.hold.held == 5 * CREDIT


async def test_an_interval_always_asks_whether_key_and_account_may_go_on() -> None:
    talk = Talk(per_request_microcredits=CREDIT)
    assert await talk.check() is None
    assert talk.bank.asked == [(0, 0)]
    talk.bank.answers = [KeyRefused()]
    assert await talk.check() == KEY_REVOKED
    talk.bank.answers = [AccountSuspended()]
    assert await talk.check() == ACCOUNT_SUSPENDED
    talk.bank.answers = [HoldGone()]
    assert await talk.check() == UNAVAILABLE


async def test_a_cap_that_is_reached_is_told_with_whose_it_is() -> None:
    talk = Talk(counted(IN, reserve=1))
    talk.bank.answers = [SpendCapReached("key", "day", 2 * CREDIT, CREDIT, 5)]
    assert await talk.say() is None
    assert await talk.say() == Denied("spend_cap_reached: the cap is 2 (key, day)")


@pytest.mark.parametrize(
    ("source", "inbound", "begins", "units"),
    [
        (IN, True, True, 1),
        (IN, False, True, 0),
        (IN, True, False, 0),
        (OUT, False, True, 1),
        (OUT, True, True, 0),
        (BOTH, True, True, 1),
        (BOTH, False, True, 1),
        (BOTH, False, False, 0),
        ("request.bytes", True, False, 5),
        ("request.bytes", False, True, 0),
        ("response.bytes", False, False, 5),
        ("response.bytes", True, True, 0),
        ("duration:s", True, True, 0),
    ],
)
async def test_a_frame_is_covered_by_as_many_units_as_it_is_counted_by(
    source: str, inbound: bool, begins: bool, units: int
) -> None:
    talk = Talk(counted(source, reserve=0), has=100 * CREDIT, per_request_microcredits=1)
    assert await talk.say(b"12345", inbound=inbound, begins=begins) is None
    assert talk.units() == (units,)
    assert [least for least, _ in talk.bank.asked] == ([units * CREDIT + 1] if units else [])


@pytest.mark.parametrize("more", [-1, 0, 1, 2, FRAMES_AHEAD + 1])
async def test_frames_that_there_is_room_for_are_covered_in_advance_and_no_more(more: int) -> None:
    reserve = FRAMES_AHEAD + more
    talk = Talk(counted(IN, reserve=reserve))
    for _ in range(reserve):
        assert await talk.say() is None
    assert isinstance(await talk.say(), Denied)
    assert talk.units() == (reserve,)


@pytest.mark.parametrize("size", [1, 1_000, BYTES_AHEAD - 1, BYTES_AHEAD, BYTES_AHEAD + 1])
async def test_bytes_are_never_more_than_what_is_held(size: int) -> None:
    reserve = 3 * BYTES_AHEAD
    talk = Talk(counted("response.bytes", credits_per_unit="0.000001", reserve=reserve))
    sent = 0
    data = bytes(size)
    while await talk.say(data, inbound=False, begins=False) is None:
        sent += size
    assert reserve - size < sent <= reserve
    assert talk.units() == (sent,)


async def test_covering_in_advance_ends_with_the_time_it_was_for() -> None:
    talk = Talk(counted(IN, reserve=100), counted("duration:ms", reserve=1_500))
    assert await talk.say() is None
    assert not talk.cover.tight
    talk.now_ms = 1_500 + 98  # what is held for messages pays for time, too
    assert await talk.say() is None
    assert talk.cover.tight

    assert isinstance(await talk.say(), Denied)


async def test_time_is_paid_to_the_millisecond() -> None:
    talk = Talk(counted("duration:ms", reserve=2_500))
    cover = talk.cover
    assert cover.lasts_ms(0, 2_500) == 2_500
    assert cover.lasts_ms(0, 10_000) == 2_501  # then it is beyond
    assert cover.lasts_ms(2_500, 10_000) == 1
    assert cover.lasts_ms(2_501, 10_000) == 0
    assert cover.lasts_ms(9_000, 10_000) == 0
    assert cover.paid_ms(2_400) == 2_400
    assert cover.paid_ms(2_501) == cover.paid_ms(90_000) == 2_500


async def test_seconds_that_have_begun_are_paid_when_they_begin() -> None:
    talk = Talk(counted("duration:s", reserve=2), has=CREDIT)
    cover = talk.cover
    assert cover.lasts_ms(0, 10_000) == 2_001
    talk.now_ms = 1_500
    assert await talk.check() is None  # for as long as an interval more: 2.5 seconds
    assert talk.hold.held == 3 * CREDIT
    assert cover.lasts_ms(1_500, 10_000) == 1_501
    talk.now_ms = 3_001
    assert await talk.check() == Denied("insufficient_credits: needs 1, has 0")
    assert cover.paid_ms(3_001) == 3_000


async def test_tiers_are_covered_at_their_dearest() -> None:
    meter = counted(IN, reserve=2)
    tiers = (Tier(1, 10**12), Tier(None, 3 * 10**12))
    fields = {name: getattr(meter, name) for name in ("unit", "sources", "reserve_units")}
    talk = Talk(type(meter)(picocredits_per_unit=0, tiers=tiers, **fields), has=CREDIT)
    assert talk.hold.held == 6 * CREDIT
    assert await talk.say() is None
    assert await talk.say() is None
    assert isinstance(await talk.say(), Denied)


async def test_a_callers_own_bound_ends_it() -> None:
    talk = Talk(counted(IN, reserve=10), has=100 * CREDIT, bound=3 * CREDIT)
    assert talk.hold.held == 3 * CREDIT
    for _ in range(3):
        assert await talk.say() is None
    assert await talk.say() == Denied("spend_cap_reached: your X-Max-Credits is 3")
    assert talk.bank.asked == []


async def test_a_bound_between_what_is_held_and_what_is_wanted_is_the_target() -> None:
    talk = Talk(counted(IN, reserve=2), has=100 * CREDIT, bound=5 * CREDIT)
    talk.hold = talk.hold._replace(terms=talk.hold.terms._replace(ceiling=2 * CREDIT))
    for _ in range(3):
        assert await talk.say() is None
    assert talk.bank.asked == [(3 * CREDIT, 5 * CREDIT)]


async def test_beyond_the_maximum_of_its_price_nothing_more_is_asked_for() -> None:
    talk = Talk(counted(IN, reserve=10), maximum_microcredits=4 * CREDIT)
    for _ in range(200):
        assert await talk.say() is None
    assert talk.hold.held == 4 * CREDIT
    assert talk.bank.asked == []


@pytest.mark.parametrize("failure", [CountersUnavailable("planted"), LOST])
async def test_while_redis_is_away_what_is_held_can_be_used(failure: Any) -> None:
    talk = Talk(counted(IN, reserve=2), has=100 * CREDIT)
    talk.bank.answers = [failure]
    assert await talk.say() is None
    assert await talk.check() is None
    assert await talk.say() is None


@pytest.mark.parametrize("failure", [CountersUnavailable("planted"), LOST])
async def test_what_is_not_covered_waits_for_redis_to_come_back(
    failure: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(websocket_cover, "RETRY_S", 0.001)
    talk = Talk(counted(IN, reserve=1), has=100 * CREDIT)
    talk.bank.answers = [failure] * 5
    assert await talk.say() is None
    assert await talk.say() is None
    assert len(talk.bank.asked) == 6


async def test_what_is_not_covered_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket_cover, "RETRY_S", 0.001)
    monkeypatch.setattr(websocket_cover, "REDIS_WAIT_S", 0.05)
    talk = Talk(counted(IN, reserve=1), has=100 * CREDIT)
    talk.bank.answers = [CountersUnavailable("planted")] * 10_000
    assert await talk.say() is None
    assert await talk.say() == UNAVAILABLE
    assert UNAVAILABLE.later
    assert talk.units() == (1,)


async def test_two_frames_that_wait_for_more_ask_once() -> None:
    talk = Talk(counted(BOTH, reserve=1), has=100 * CREDIT)
    assert await talk.say() is None
    ways = [talk.cover.cover(0, 1, inbound=inbound, begins=True) for inbound in (True, False)]
    assert await asyncio.gather(*ways) == [None, None]
    assert len(talk.bank.asked) == 1


async def test_a_conversation_that_costs_nothing_by_the_frame_is_not_computed() -> None:
    talk = Talk(per_request_microcredits=CREDIT)
    assert talk.meter is None
    assert not talk.cover.tight
    assert talk.cover.covers(10**9, 10**9, inbound=True, begins=True)
    assert talk.cover.lasts_ms(0, 5) == 5
    talk.cover.note(b"x", inbound=True, begins=True)
    assert talk.bank.asked == []
