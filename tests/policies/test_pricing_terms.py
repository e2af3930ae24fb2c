"""Terms and final costs against an independent model in exact fractions, for any price."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies import pricing
from policies.catalog import MeterSpec, OnMissing, Price, RpcPrices, Rule, Source, Table, Tier
from policies.meters.reading import NOTHING_READ, Reading
from policies.pricing import NotListed, TooDear, Unclear, terms_of
from policies.terms import ESTIMATED, UNITS_MISSING, RpcCall, Terms
from policies.units import AMOUNT_MICROCREDITS_MAX

if TYPE_CHECKING:
    from collections.abc import Sequence

MODEL = Source("request.json", "/model")
MAX_TOKENS = Source("request.json", "/max_tokens")
LENGTH = Source("request.bytes", "")


class Facts(NamedTuple):
    """A request that says just this."""

    texts: dict[Source, str] = {}  # noqa: RUF012 - never changed
    counts: dict[Source, int] = {}  # noqa: RUF012 - never changed
    doubts: dict[Source, str] = {}  # noqa: RUF012 - never changed

    def text(self, source: Source) -> str | None:
        return self.texts.get(source)

    def units(self, source: Source) -> int | None:
        return self.counts.get(source)

    def doubt(self, source: Source) -> str | None:
        return self.doubts.get(source)


class Sold(NamedTuple):
    """One call: its price, what it is sold at, and what was read of it."""

    price: Price
    discount: int
    bound: int | None
    calls: tuple[RpcCall, ...]
    failed: tuple[int, ...]
    units: tuple[int, ...]
    positions: tuple[int, ...]


def model_cost(sold: Sold) -> int:
    """Microcredits, unit by unit and in fractions, with one rounding at the end."""
    price = sold.price
    credits_ = Fraction(price.per_request_microcredits, 10**6)
    for index, call in enumerate(sold.calls):
        if not (price.rpc and index in sold.failed and price.rpc.tool_error is Rule.NOTHING):
            credits_ += Fraction(call.microcredits, 10**6)
    for meter, count, used in zip(price.meters, sold.units, sold.positions, strict=True):
        for unit in range(used + 1, used + 1 + max(count - meter.included_units, 0)):
            reached = [t for t in meter.tiers if t.up_to is None or unit <= t.up_to]
            pico = reached[0].picocredits_per_unit if reached else meter.picocredits_per_unit
            credits_ += Fraction(pico, 10**12)
    credits_ -= credits_ * Fraction(sold.discount, 10_000)
    cost = math.ceil(credits_ * 10**6)
    cost = max(cost, price.minimum_microcredits)
    if price.maximum_microcredits is not None:
        cost = min(cost, price.maximum_microcredits)
    return min(cost, AMOUNT_MICROCREDITS_MAX if sold.bound is None else sold.bound)


PICO = st.integers(0, 10**8) | st.integers(0, 10**13)
MICRO = st.integers(0, 10**7)
SMALL = st.integers(0, 40)


@st.composite
def meters(draw: st.DrawFn) -> MeterSpec:
    bounds = sorted(draw(st.sets(st.integers(1, 50), max_size=3)))
    tiers = (*(Tier(bound, draw(PICO)) for bound in bounds), Tier(None, draw(PICO)))
    return MeterSpec(
        *("unit", (), draw(PICO), draw(SMALL)),
        tiers=tiers if draw(st.booleans()) else (),
        included_units=draw(st.sampled_from([0, 0, 1, 7])),
    )


@st.composite
def calls_sold(draw: st.DrawFn) -> Sold:
    minimum = draw(st.just(0) | MICRO)
    price = Price(
        *(7, draw(MICRO), minimum, draw(st.none() | st.integers(minimum, minimum + 10**8))),
        meters=tuple(draw(st.lists(meters(), max_size=3))),
        rpc=RpcPrices(tool_error=draw(st.sampled_from([Rule.NOTHING, Rule.ACTUAL]))),
    )
    calls = tuple(RpcCall(str(n), "tool", draw(MICRO)) for n in range(draw(st.integers(0, 3))))
    return Sold(
        price,
        draw(st.sampled_from([0, 0, 1, 1_500, 9_999, 10_000])),
        draw(st.none() | st.integers(0, 10**8)),
        calls,
        tuple(sorted(draw(st.sets(st.integers(0, 2), max_size=len(calls))))),
        tuple(draw(SMALL) for _ in price.meters),
        tuple(draw(st.integers(0, 80)) if meter.tiers else 0 for meter in price.meters),
    )


def sell(sold: Sold) -> Terms | TooDear | NotListed | Unclear:
    return terms_of(
        sold.price,
        Rule.MINIMUM,
        None,
        discount=sold.discount,
        bound=sold.bound,
        calls=sold.calls,
    )


@given(calls_sold())
def test_a_call_costs_what_the_model_says_and_a_refused_one_could_not_cost_less(
    sold: Sold,
) -> None:
    nothing = (0,) * len(sold.units)
    floor = model_cost(sold._replace(units=nothing, failed=(), bound=None))
    terms = sell(sold)
    if isinstance(terms, TooDear):
        assert sold.bound is not None
        assert terms == (floor, sold.bound)
        assert floor > sold.bound
        return
    assert isinstance(terms, Terms)
    assert pricing.floor(terms) == floor
    reading = Reading(sold.units, failed=sold.failed)
    found = pricing.final(terms, reading, whole=True, positions=sold.positions)
    assert found.microcredits == model_cost(sold)
    assert type(found.microcredits) is int
    assert found.flags == ()


@given(calls_sold(), st.data())
def test_units_within_their_reserves_never_cost_more_than_is_held(
    sold: Sold, data: st.DataObject
) -> None:
    terms = sell(sold)
    if not isinstance(terms, Terms):
        return
    units = tuple(data.draw(st.none() | st.integers(0, units)) for units in terms.reserves)
    estimates = tuple(data.draw(st.integers(0, 10**6)) for _ in units)
    reading = Reading(units, estimates, sold.failed)
    whole = data.draw(st.booleans())
    found = pricing.final(terms, reading, whole=whole, positions=sold.positions)
    assert found.microcredits <= terms.ceiling
    assert terms.bound is None or terms.ceiling <= terms.bound
    maximum = sold.price.maximum_microcredits
    assert maximum is None or terms.ceiling <= maximum
    assert 0 <= terms.due <= terms.ceiling
    assert (UNITS_MISSING in found.flags) is (None in units)


@given(calls_sold())
def test_what_is_held_is_the_cost_of_the_reserves_at_the_dearest_tier(sold: Sold) -> None:
    terms = sell(sold)
    if not isinstance(terms, Terms):
        return
    dearest = tuple(
        replace(
            meter,
            tiers=(),
            picocredits_per_unit=max(
                [tier.picocredits_per_unit for tier in meter.tiers] or [meter.picocredits_per_unit]
            ),
        )
        for meter in sold.price.meters
    )
    flat = replace(sold.price, meters=dearest)
    cost = model_cost(
        sold._replace(price=flat, units=terms.reserves, failed=(), positions=(0,) * len(dearest))
    )
    # What may cost anything at all holds something, so that it can be refused.
    assert terms.ceiling == cost or (cost, terms.ceiling) == (0, 1)


@given(calls_sold())
def test_nothing_costs_more_than_the_caller_allows(sold: Sold) -> None:
    terms = sell(sold)
    if isinstance(terms, Terms) and terms.bound is not None:
        many = Reading((10**9,) * len(sold.units))
        assert pricing.final(terms, many, whole=True).microcredits <= terms.bound


@given(calls_sold(), st.integers(0, 10_000), st.integers(0, 10_000))
def test_a_higher_discount_never_costs_more(sold: Sold, one: int, other: int) -> None:
    reading = Reading(sold.units)

    def cost(discount: int) -> int:
        terms = sell(sold._replace(discount=discount, bound=None))
        assert isinstance(terms, Terms)
        return pricing.final(terms, reading, whole=True, positions=sold.positions).microcredits

    assert cost(max(one, other)) <= cost(min(one, other))


def test_a_discount_comes_before_minimum_and_maximum() -> None:
    price = Price(0, 1_000_000, 300_000, 900_000)
    for discount, expected in ((0, 900_000), (2_000, 800_000), (9_000, 300_000), (10_000, 300_000)):
        terms = terms_of(price, Rule.MINIMUM, None, discount=discount)
        assert isinstance(terms, Terms)
        assert pricing.final(terms, NOTHING_READ, whole=True).microcredits == expected


def test_a_discounted_price_is_rounded_once() -> None:
    meter = MeterSpec("token", (), 600_000, 1)
    terms = terms_of(Price(0, 1, meters=(meter, meter)), Rule.MINIMUM, None, discount=5_000)
    assert isinstance(terms, Terms)
    # (1 + 0.6 + 0.6) / 2 = 1.1 microcredits
    assert pricing.final(terms, Reading((1, 1)), whole=True).microcredits == 2


def test_a_call_is_held_at_no_more_than_its_caller_allows_and_refused_below_its_floor() -> None:
    price = Price(0, 100, meters=(MeterSpec("token", (), 10**6, 50),))
    held = terms_of(price, Rule.MINIMUM, None, bound=120)
    assert isinstance(held, Terms)
    assert (held.ceiling, held.due, held.bound) == (120, 100, 120)
    assert terms_of(price, Rule.MINIMUM, None, bound=99) == TooDear(100, 99)
    free = terms_of(None, Rule.MINIMUM, None, bound=0)
    assert free == Terms(None, (), 0, 0, 0, 0)


BIG = Price(7, 2_000_000)
BY_MODEL = Price(7, 1_000_000, table=Table(MODEL, {"big": BIG}))


@pytest.mark.parametrize(
    ("facts", "listed_only", "expected"),
    [
        (Facts({MODEL: "big"}), False, 2_000_000),
        (Facts({MODEL: "Big"}), False, 1_000_000),
        (Facts({MODEL: "big"}), True, 2_000_000),
        (Facts({MODEL: "small"}), True, NotListed("small")),
        (Facts(), False, 1_000_000),
        (Facts(), True, NotListed(None)),
        (None, False, 1_000_000),
        (None, True, NotListed(None)),
    ],
)
def test_a_table_sells_by_a_value_of_the_request(
    facts: Facts | None, listed_only: bool, expected: int | NotListed
) -> None:
    table = Table(MODEL, {"big": BIG}, listed_only)
    terms = terms_of(Price(7, 1_000_000, table=table), Rule.MINIMUM, facts)
    assert (terms.ceiling if isinstance(terms, Terms) else terms) == expected
    assert isinstance(terms, NotListed) or (terms.price and terms.price.version) == 7


@pytest.mark.parametrize("listed_only", [True, False])
def test_who_hides_what_he_asks_for_gets_nothing_sold(listed_only: bool) -> None:
    table = Table(MODEL, {"big": BIG}, listed_only)
    facts = Facts({MODEL: "big"}, {}, {MODEL: "is unclear"})
    assert terms_of(Price(table=table), Rule.MINIMUM, facts) == Unclear("is unclear")
    ordered = MeterSpec("image", (Source("request.json", "/n"),), 10**6, 5)
    facts = Facts(doubts={Source("request.json", "/n"): "is unclear"})
    assert terms_of(Price(meters=(ordered,)), Rule.MINIMUM, facts) == Unclear("is unclear")
    big = replace(BIG, meters=(ordered,))
    facts = facts._replace(texts={MODEL: "big"})
    table = Table(MODEL, {"big": big}, listed_only)
    assert terms_of(Price(table=table), Rule.MINIMUM, facts) == Unclear("is unclear")


def test_what_only_reserves_may_be_unclear() -> None:
    meter = MeterSpec("token", (), 10**6, 5, reserve_from=(MAX_TOKENS,))
    terms = terms_of(Price(meters=(meter,)), Rule.MINIMUM, Facts(doubts={MAX_TOKENS: "is"}))
    assert isinstance(terms, Terms)
    assert terms.reserves == (5,)


@pytest.mark.parametrize(
    ("counts", "reserve"),
    [
        ({MAX_TOKENS: 7, LENGTH: 9}, 7),
        ({LENGTH: 9}, 9),
        ({MAX_TOKENS: 0, LENGTH: 9}, 0),
        ({}, 5),
    ],
)
def test_the_first_value_of_the_request_is_reserved_else_the_default(
    counts: dict[Source, int], reserve: int
) -> None:
    meter = MeterSpec("token", (), 10**6, 5, reserve_from=(MAX_TOKENS, LENGTH))
    terms = terms_of(Price(meters=(meter,)), Rule.MINIMUM, Facts({}, counts))
    assert isinstance(terms, Terms)
    assert (terms.reserves, terms.ceiling) == ((reserve,), max(reserve, 1))


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize(
    ("on_missing", "estimates", "units", "flags"),
    [
        (OnMissing.RESERVED, (3,), 10, (UNITS_MISSING,)),
        (OnMissing.MINIMUM, (3,), 0, (UNITS_MISSING,)),
        (OnMissing.ESTIMATE, (3,), 3, (UNITS_MISSING, ESTIMATED)),
        (OnMissing.ESTIMATE, (300,), 10, (UNITS_MISSING, ESTIMATED)),
        (OnMissing.ESTIMATE, (), 0, (UNITS_MISSING, ESTIMATED)),
    ],
)
def test_what_is_missing_costs_what_its_meter_says(
    *,
    whole: bool,
    on_missing: OnMissing,
    estimates: Sequence[int],
    units: int,
    flags: tuple[str, ...],
) -> None:
    price = Price(meters=(MeterSpec("token", (), 10**6, 10, on_missing=on_missing),))
    terms = terms_of(price, Rule.MINIMUM, None)
    assert isinstance(terms, Terms)
    found = pricing.final(terms, Reading((None,), tuple(estimates)), whole=whole)
    assert found == (units, flags, ())


def test_by_default_a_whole_answer_costs_its_reserve_and_a_cut_one_what_passed() -> None:
    terms = terms_of(Price(meters=(MeterSpec("token", (), 10**6, 10),)), Rule.MINIMUM, None)
    assert isinstance(terms, Terms)
    missing = Reading((None,), (3,))
    assert pricing.final(terms, missing, whole=True) == (10, (UNITS_MISSING,), ())
    assert pricing.final(terms, missing, whole=False) == (3, (UNITS_MISSING, ESTIMATED), ())


CALLS = (RpcCall("1", "search", 500), RpcCall("2", "write", 70))


@pytest.mark.parametrize(
    ("tool_error", "failed", "unanswered", "expected"),
    [
        (Rule.NOTHING, (), (), (571, ())),
        (Rule.NOTHING, (0,), (), (71, ())),
        (Rule.NOTHING, (0, 1), (), (1, ())),
        (Rule.ACTUAL, (0, 1), (), (571, ())),
        (Rule.NOTHING, (0,), (1,), (71, (UNITS_MISSING,))),
        (Rule.NOTHING, (), (0, 1), (571, (UNITS_MISSING,))),
    ],
)
def test_json_rpc_calls_cost_their_own_price_unless_they_failed(
    tool_error: Rule,
    failed: tuple[int, ...],
    unanswered: tuple[int, ...],
    expected: tuple[int, tuple[str, ...]],
) -> None:
    price = Price(per_request_microcredits=1, rpc=RpcPrices(tool_error=tool_error))
    terms = terms_of(price, Rule.MINIMUM, None, calls=CALLS)
    assert isinstance(terms, Terms)
    assert (terms.ceiling, terms.due) == (571, 571)
    found = pricing.final(terms, Reading((), (), failed, unanswered), whole=True)
    assert found[:2] == expected


METER = MeterSpec("token", (Source("response.json", "/n"),), 1, 1)


@pytest.mark.parametrize(
    ("price", "needed"),
    [
        (Price(per_request_microcredits=1), False),
        (Price(meters=(METER,)), False),
        (Price(meters=(MeterSpec("n", (MAX_TOKENS,), 1, 1),)), True),
        (Price(meters=(MeterSpec("n", (), 1, 1, reserve_from=(LENGTH,)),)), True),
        (Price(meters=(MeterSpec("n", (), 1, 1, estimate_from=LENGTH),)), True),
        (BY_MODEL, True),
        (Price(rpc=RpcPrices()), True),
    ],
)
def test_only_prices_that_ask_for_the_request_need_it(price: Price, needed: bool) -> None:
    assert pricing.needs_request(price) is needed


def test_the_least_that_a_route_holds_is_its_cheapest_call() -> None:
    by_length = MeterSpec("token", (), 10**6, 50, reserve_from=(LENGTH,))
    assert pricing.least_ceiling(Price(0, 9, meters=(by_length,))) == 9
    assert pricing.least_ceiling(BY_MODEL) == 1_000_000
    only = Price(0, 1, table=Table(MODEL, {"big": BIG}, listed_only=True))
    assert pricing.least_ceiling(only) == 2_000_000
    assert pricing.least_ceiling(Price(0, 3_000_000, table=Table(MODEL, {"big": BIG}))) == 2_000_000
