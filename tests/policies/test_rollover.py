"""Rollover: none, all, or up to a maximum, for so many periods."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from policies.catalog import Plan
from policies.rollover import rolled_over

amounts = st.integers(0, 2**53 - 1)


def plan(most: int | None, periods: int = 1) -> Plan:
    return Plan("pro", 1_000, rollover_microcredits_max=most, rollover_periods=periods)


@given(amounts, st.integers(0, 5))
def test_a_plan_without_rollover_leaves_nothing(rest: int, rollovers: int) -> None:
    assert rolled_over(plan(0, 5), rest, rollovers=rollovers, rolled_already=0) == 0


@given(st.lists(amounts, max_size=8), amounts)
def test_a_period_gets_no_more_than_the_maximum_however_many_lots_ended(
    rests: list[int], most: int
) -> None:
    rolled = 0
    for rest in rests:
        rolled += rolled_over(plan(most), rest, rollovers=0, rolled_already=rolled)
    assert rolled == min(sum(rests), most)


@given(amounts, amounts)
def test_all_of_the_rest_goes_on_where_the_plan_says_so(rest: int, already: int) -> None:
    assert rolled_over(plan(None), rest, rollovers=0, rolled_already=already) == rest


@given(amounts, st.integers(0, 4))
def test_credits_are_rolled_over_for_so_many_periods_and_no_longer(rest: int, periods: int) -> None:
    carried = [
        rolled_over(plan(None, periods), rest, rollovers=before, rolled_already=0)
        for before in range(6)
    ]
    assert carried == [rest] * periods + [0] * (6 - periods)


def test_a_maximum_that_the_plan_lowered_meanwhile_takes_nothing_back() -> None:
    assert rolled_over(plan(5), 10, rollovers=0, rolled_already=7) == 0
