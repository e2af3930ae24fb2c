"""What a call costs, for any price and any units."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies import pricing
from policies.catalog import MeterSpec, Price, Rule, Source
from policies.meters import UNITS_MAX
from policies.meters.reading import Reading
from policies.terms import Terms
from policies.units import AMOUNT_MICROCREDITS_MAX

TOKENS = Source("response.json", "/usage/total_tokens")
AMOUNTS = st.integers(0, 10**12)
UNITS = st.integers(0, 10**6) | st.integers(0, UNITS_MAX)


def meters(units: st.SearchStrategy[int] = UNITS) -> st.SearchStrategy[tuple[MeterSpec, ...]]:
    meter = st.builds(MeterSpec, st.just("token"), st.just((TOKENS,)), AMOUNTS, units)
    return st.lists(meter, max_size=3).map(tuple)


@st.composite
def prices(draw: st.DrawFn) -> Price:
    minimum = draw(AMOUNTS)
    maximum = draw(st.none() | st.integers(minimum, minimum + 10**12))
    return Price(1, draw(AMOUNTS), minimum, maximum, draw(meters()))


@st.composite
def priced_units(draw: st.DrawFn) -> tuple[Price, tuple[int | None, ...]]:
    price = draw(prices())
    return price, tuple(draw(st.none() | UNITS) for _ in price.meters)


def terms(price: Price, **how: int) -> Terms:
    fixed = pricing.terms_of(price, Rule.MINIMUM, None, **how)
    assert isinstance(fixed, Terms)
    return fixed


def cost(price: Price, *units: int | None) -> int:
    return pricing.final(terms(price), Reading(units), whole=True).microcredits


@given(priced_units())
def test_a_cost_is_an_integer_between_minimum_and_maximum(
    sample: tuple[Price, tuple[int | None, ...]],
) -> None:
    price, units = sample
    for amount in (cost(price, *units), pricing.ceiling(price), pricing.floor(terms(price))):
        assert type(amount) is int
        assert price.minimum_microcredits <= amount <= AMOUNT_MICROCREDITS_MAX
        assert price.maximum_microcredits is None or amount <= price.maximum_microcredits


@given(priced_units(), st.data())
def test_more_units_never_cost_less(
    sample: tuple[Price, tuple[int | None, ...]], data: st.DataObject
) -> None:
    price, _ = sample
    fewer = [data.draw(UNITS) for _ in price.meters]
    more = [count + data.draw(UNITS) for count in fewer]
    assert cost(price, *fewer) <= cost(price, *more)


@given(prices(), st.data())
def test_units_within_the_reserve_cost_no_more_than_the_ceiling(
    price: Price, data: st.DataObject
) -> None:
    units = [data.draw(st.none() | st.integers(0, meter.reserve_units)) for meter in price.meters]
    assert pricing.floor(terms(price)) <= cost(price, *units) <= pricing.ceiling(price)


@given(prices())
def test_what_was_not_read_counts_as_its_reserve_and_says_so(price: Price) -> None:
    missing = Reading((None,) * len(price.meters))
    flags = ("units_missing",) if price.meters else ()
    final = pricing.final(terms(price), missing, whole=True)
    assert final == (pricing.ceiling(price), flags, ())


@given(st.integers(1, 10**6), st.integers(1, 10**6), st.integers(0, 10**15))
def test_splitting_units_over_meters_costs_the_same(
    some: int, others: int, picocredits: int
) -> None:
    meter = MeterSpec("token", (TOKENS,), picocredits, 0)
    together = cost(Price(meters=(meter,)), some + others)
    assert cost(Price(meters=(meter, meter)), some, others) == together


def test_less_than_a_microcredit_is_rounded_up_once() -> None:
    meter = MeterSpec("token", (TOKENS,), 400_000, 1)
    assert cost(Price(meters=(meter, meter)), 1, 1) == 1


def test_units_for_another_number_of_meters_are_an_error_not_a_guess() -> None:
    with pytest.raises(ValueError, match="1 units for 0 meters"):
        cost(Price(per_request_microcredits=1), 5)


@pytest.mark.parametrize(
    ("price", "mistake"),
    [
        (Price(), "reserve nothing"),
        (Price(per_request_microcredits=5, maximum_microcredits=0), "reserve nothing"),
        (Price(minimum_microcredits=2, maximum_microcredits=1), "below minimum"),
        (Price(meters=(MeterSpec("token", (TOKENS,), 1_000, 0),)), "reserve nothing"),
        (Price(meters=(MeterSpec("token", (TOKENS,), 10**12, 2**40),)), "2^53"),
    ],
)
def test_a_price_that_cannot_work_is_named(price: Price, mistake: str) -> None:
    assert mistake in (pricing.mistake_in(price) or "")


def test_a_maximum_makes_any_reserve_affordable() -> None:
    meter = MeterSpec("token", (TOKENS,), 10**12, 2**40)
    assert pricing.mistake_in(Price(maximum_microcredits=5, meters=(meter,))) is None
