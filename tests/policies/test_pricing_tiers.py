"""Graduated tiers: what a unit costs depends on how many came before it, and on nothing else."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from typing import TYPE_CHECKING

from hypothesis import example, given
from hypothesis import strategies as st

from policies.catalog import Ending, MeterSpec, Price, Rule, Tier
from policies.meters.reading import Reading
from policies.pricing import POSITION_MAX, Final, ceiling, final, terms_of
from policies.settlement import owed, units_text
from policies.terms import Step, Terms

if TYPE_CHECKING:
    from collections.abc import Sequence

CREDIT_PICO = 10**12
# 1-1 000 at 10 credits, 1 001-10 000 at 8, all beyond at 5.
TIERS = (
    Tier(1_000, 10 * CREDIT_PICO),
    Tier(10_000, 8 * CREDIT_PICO),
    Tier(None, 5 * CREDIT_PICO),
)


def graduated(tiers: tuple[Tier, ...], reserve: int = 1) -> Price:
    return Price(meters=(MeterSpec("call", (), 0, reserve, tiers),))


def terms(price: Price) -> Terms:
    fixed = terms_of(price, Rule.MINIMUM, None)
    assert isinstance(fixed, Terms)
    return fixed


def cost(price: Price, units: int, used: int = 0) -> Final:
    return final(terms(price), Reading((units,)), whole=True, positions=(used,))


def exact_microcredits(tiers: Sequence[Tier], used: int, units: int) -> Fraction:
    """Unit by unit: each costs what the first tier says that reaches it."""
    total = 0
    for unit in range(used + 1, used + units + 1):
        tier = next(tier for tier in tiers if tier.up_to is None or unit <= tier.up_to)
        total += tier.picocredits_per_unit
    return Fraction(total, 10**6)


@st.composite
def some_tiers(draw: st.DrawFn) -> tuple[Tier, ...]:
    bounds = sorted(draw(st.sets(st.integers(1, 60), max_size=4)))
    prices = st.integers(0, 10**9)
    return (*(Tier(bound, draw(prices)) for bound in bounds), Tier(None, draw(prices)))


def test_five_thousand_units_cost_42_000() -> None:
    price = graduated(TIERS)
    assert cost(price, 5_000).microcredits == 42_000 * 10**6
    assert cost(price, 1_000).microcredits == 10_000 * 10**6
    assert cost(price, 4_000, used=1_000).microcredits == 32_000 * 10**6
    assert cost(price, 1, used=10_000).microcredits == 5 * 10**6
    assert cost(price, 2, used=9_999).microcredits == 13 * 10**6
    assert cost(price, 20_000).microcredits == (10_000 + 72_000 + 50_000) * 10**6


def test_a_step_holds_wherever_its_units_lie_in_one_tier() -> None:
    price = graduated(TIERS)
    assert cost(price, 10).steps == (Step("call", 0, 990, 10),)
    assert cost(price, 10, used=990).steps == (Step("call", 0, 990, 10),)
    assert cost(price, 10, used=991).steps == (Step("call", 991, 991, 10),)
    assert cost(price, 10, used=1_000).steps == (Step("call", 1_000, 9_990, 10),)
    assert cost(price, 1_000).steps == (Step("call", 0, 0, 1_000),)
    assert cost(price, 7, used=123_456).steps == (Step("call", 10_000, POSITION_MAX, 7),)
    assert cost(price, 0).steps == ()


@given(st.lists(st.integers(1, 4_999), max_size=40).map(set))
def test_splitting_5_000_units_over_any_calls_costs_the_same(cuts: set[int]) -> None:
    price = graduated(TIERS)
    edges = [0, *sorted(cuts), 5_000]
    costs = [cost(price, end - begin, used=begin).microcredits for begin, end in pairwise(edges)]
    assert sum(costs) == 42_000 * 10**6


@given(some_tiers(), st.lists(st.integers(0, 50), min_size=1, max_size=10))
def test_splitting_units_costs_less_than_a_microcredit_per_call_more(
    tiers: tuple[Tier, ...], calls: list[int]
) -> None:
    price = graduated(tiers)
    used = total = 0
    for units in calls:
        total += cost(price, units, used).microcredits
        used += units
    exact = exact_microcredits(tiers, 0, used)
    assert exact <= total < exact + len(calls)


@given(some_tiers(), st.integers(0, 150), st.integers(0, 100))
def test_every_unit_costs_what_its_tier_says(
    tiers: tuple[Tier, ...], used: int, units: int
) -> None:
    exact = exact_microcredits(tiers, used, units)
    assert cost(graduated(tiers), units, used).microcredits == -(-exact // 1)


@given(some_tiers(), st.integers(0, 150), st.integers(1, 100))
def test_a_step_is_right_for_every_position_in_it_and_claims_no_other(
    tiers: tuple[Tier, ...], used: int, units: int
) -> None:
    found = cost(graduated(tiers), units, used)
    (step,) = found.steps
    assert step.least <= used <= step.most
    assert step.units == units
    for position in range(160):
        other = cost(graduated(tiers), units, position)
        (there,) = other.steps
        if step.least <= position <= step.most:
            assert other == found
        else:
            assert not there.least <= used <= there.most


class Counter:
    """What Redis keeps: a call whose step does not begin here is told where it does."""

    def __init__(self) -> None:
        self.used = 0
        self.charged = 0
        self.moved = 0

    def settle(self, price: Price, units: int, assumed: int) -> None:
        found = cost(price, units, assumed)
        for step in found.steps:
            if not step.least <= self.used <= step.most:
                self.moved += 1
                self.settle(price, units, self.used)
                return
            self.used += step.units
        self.charged += found.microcredits


@given(some_tiers(), st.lists(st.tuples(st.integers(0, 50), st.integers(0, 200)), max_size=12))
@example(TIERS, [(600, 0), (600, 0), (600, 700)])
def test_calls_that_run_side_by_side_pay_together_what_one_after_the_other_would(
    tiers: tuple[Tier, ...], calls: list[tuple[int, int]]
) -> None:
    price = graduated(tiers)
    counter = Counter()
    for units, assumed in calls:
        counter.settle(price, units, assumed)
    exact = exact_microcredits(tiers, 0, sum(units for units, _ in calls))
    assert exact <= counter.charged < exact + max(len(calls), 1)


@given(some_tiers(), st.integers(0, 30), st.integers(0, 30), st.integers(0, 100))
def test_wherever_an_account_stands_a_call_within_its_reserve_stays_below_the_ceiling(
    tiers: tuple[Tier, ...], reserve: int, units: int, used: int
) -> None:
    price = graduated(tiers, max(reserve, units))
    assert cost(price, units, used).microcredits <= ceiling(price)


def test_included_units_neither_cost_nor_count() -> None:
    meter = MeterSpec("call", (), 0, 1, (Tier(10, 5 * CREDIT_PICO), Tier(None, 0)), 3)
    found = cost(Price(meters=(meter,)), 8, used=4)
    assert found.microcredits == 25 * 10**6
    assert found.steps == (Step("call", 0, 5, 5),)
    assert cost(Price(meters=(meter,)), 3).steps == ()


def test_each_unit_of_a_price_has_its_own_place() -> None:
    price = Price(
        meters=(
            MeterSpec("page", (), 0, 1, (Tier(10, 2 * CREDIT_PICO), Tier(None, 1 * CREDIT_PICO))),
            MeterSpec("token", (), 3 * CREDIT_PICO, 1),
            MeterSpec("image", (), 0, 1, (Tier(5, 7 * CREDIT_PICO), Tier(None, 4 * CREDIT_PICO))),
        )
    )
    found = final(terms(price), Reading((2, 1, 1)), whole=True, positions=(9, 999, 5))
    assert found.microcredits == (3 + 3 + 4) * 10**6
    assert found.steps == (Step("page", 9, 9, 2), Step("image", 5, POSITION_MAX, 1))


PRICE = graduated(TIERS, reserve=10)


def test_only_actual_use_moves_through_tiers() -> None:
    reading = Reading((30,))
    for rule in Rule:
        owing = owed(terms(PRICE), rule, Ending.COMPLETED, reading)
        assert owing.steps == ((Step("call", 0, 970, 30),) if rule is Rule.ACTUAL else ())


def test_a_settlement_says_how_far_it_moved() -> None:
    def text(reading: Reading, rule: Rule) -> str:
        owing = owed(terms(PRICE), rule, Ending.COMPLETED, reading)
        return units_text(PRICE, reading, owing.steps)

    assert text(Reading((30,)), Rule.ACTUAL) == "call=30;call.tiers=30"
    assert text(Reading((30,)), Rule.MINIMUM) == "call=30"
    assert text(Reading((None,)), Rule.ACTUAL) == "call.tiers=10"
    assert text(Reading((None,)), Rule.NOTHING) == ""
    assert text(Reading((0,)), Rule.ACTUAL) == "call=0"
    included = Price(meters=(PRICE.meters[0], replace(PRICE.meters[0], unit="b", included_units=5)))
    both = Reading((30, 30))
    steps = owed(terms(included), Rule.ACTUAL, Ending.COMPLETED, both).steps
    assert units_text(included, both, steps) == "call=30;b=30;call.tiers=30;b.tiers=25"
