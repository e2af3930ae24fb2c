"""Periods, part periods, discounts: the sums that invoices are made of."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.fake_stripe import lines, periods, proration
from tests.support.stripe_billing import at


@pytest.mark.parametrize(
    ("number", "day"),
    [
        (1, (2030, 2, 28)),
        (2, (2030, 3, 31)),
        (3, (2030, 4, 30)),
        (13, (2031, 2, 28)),
        (25, (2032, 2, 29)),
    ],
)
def test_a_month_from_the_31st_ends_on_the_last_day_of_shorter_months(
    number: int, day: tuple[int, int, int]
) -> None:
    assert periods.boundary(at(2030, 1, 31), "month", 1, number) == at(*day)


@pytest.mark.parametrize(
    ("interval", "count", "day"),
    [
        ("day", 3, (2030, 2, 3)),
        ("week", 2, (2030, 2, 14)),
        ("month", 3, (2030, 4, 30)),
        ("year", 1, (2031, 1, 31)),
    ],
)
def test_periods_of_every_interval_end_where_the_next_begins(
    interval: str, count: int, day: tuple[int, int, int]
) -> None:
    start_s = at(2030, 1, 31)
    assert periods.next_after(start_s, interval, count, start_s) == at(*day)


@given(
    st.integers(0, 4_000_000_000),
    st.sampled_from(["day", "week", "month", "year"]),
    st.integers(1, 3),
    st.integers(-100_000_000, 400_000_000),
)
def test_the_next_period_is_the_first_that_begins_later(
    anchor_s: int, interval: str, count: int, later_s: int
) -> None:
    now_s = anchor_s + later_s
    found = periods.next_after(anchor_s, interval, count, now_s)
    assert found > now_s
    near = (
        later_s // (86_400 * {"day": 1, "week": 7, "month": 31, "year": 366}[interval])
    ) // count
    all_near = [periods.boundary(anchor_s, interval, count, near + n) for n in range(-3, 40)]
    assert not [each for each in all_near if now_s < each < found]


@pytest.mark.parametrize(
    ("amount", "parts", "share"),
    [(1000, (0, 30, 15), 500), (1000, (0, 3, 2), 333), (5, (0, 2, 1), 3), (-5, (0, 2, 1), -3)],
)
def test_part_of_a_period_costs_its_share_rounded_half_away_from_zero(
    amount: int, parts: tuple[int, int, int], share: int
) -> None:
    assert proration.part(amount, *parts) == share


def test_nothing_is_left_after_a_period_and_all_of_it_before() -> None:
    assert proration.part(1000, 10, 20, 25) == 0
    assert proration.part(1000, 10, 20, 5) == 1000


@given(st.lists(st.integers(0, 10**9), max_size=20), st.integers(0, 10**12))
def test_shares_add_up_to_the_whole_and_are_at_most_one_off(weights: list[int], total: int) -> None:
    parts = proration.shares(total, weights)
    whole = sum(weights)
    assert sum(parts) == (total if whole else 0)
    for weight, part in zip(weights, parts, strict=True):
        assert abs(part * whole - total * weight) < max(whole, 1)


@pytest.mark.parametrize(
    ("total", "balance", "due", "left"),
    [
        (1000, 0, 1000, 0),
        (1000, -300, 700, 0),
        (1000, -1500, 0, -500),
        (-1000, 0, 0, -1000),
        (30, 0, 0, 30),
        (1000, 30, 1030, 0),
        (0, 0, 0, 0),
    ],
)
def test_a_balance_is_used_first_and_keeps_what_is_too_little_to_charge(
    total: int, balance: int, due: int, left: int
) -> None:
    assert lines.balanced(total, balance) == (due, left)
