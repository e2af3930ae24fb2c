"""Billing periods: their ends, held against the calendar of the standard library."""

from __future__ import annotations

import calendar
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.periods import months_after_ms, period_end_ms

moments = st.integers(0, 430 * 365 * 86_400_000).map(
    lambda moment_ms: datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=moment_ms)
)
months_counts = st.sampled_from([1, 12])


def ms(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


def at(year: int, month: int, day: int, hour: int = 0) -> int:
    return ms(datetime(year, month, day, hour, tzinfo=UTC))


@given(moments, st.integers(-2_000, 2_000))
def test_so_many_months_later_it_is_the_same_day_or_the_months_last(
    anchor: datetime, months: int
) -> None:
    year, month_index = divmod(anchor.year * 12 + anchor.month - 1 + months, 12)
    last = calendar.monthrange(year, month_index + 1)[1]
    expected = anchor.replace(year=year, month=month_index + 1, day=min(anchor.day, last))
    assert months_after_ms(ms(anchor), months) == ms(expected)


@given(moments, moments, months_counts)
def test_every_moment_is_in_exactly_one_period(
    anchor: datetime, moment: datetime, months: int
) -> None:
    end_ms = period_end_ms(ms(anchor), ms(moment), months)
    assert ms(moment) < end_ms
    just_before = period_end_ms(ms(anchor), end_ms - 1, months)
    assert just_before == end_ms
    assert period_end_ms(ms(anchor), end_ms, months) > end_ms


@given(moments, st.integers(1, 100), months_counts)
def test_periods_follow_one_another_without_a_gap(
    anchor: datetime, count: int, months: int
) -> None:
    end_ms = ms(anchor)
    for _ in range(count):
        end_ms = period_end_ms(ms(anchor), end_ms, months)
    assert end_ms == months_after_ms(ms(anchor), count * months)


@pytest.mark.parametrize(
    ("anchor", "starts"),
    [
        (at(2027, 1, 31, 9), [at(2027, 2, 28, 9), at(2027, 3, 31, 9), at(2027, 4, 30, 9)]),
        (at(2028, 1, 30), [at(2028, 2, 29), at(2028, 3, 30)]),
        (at(2026, 12, 1), [at(2027, 1, 1), at(2027, 2, 1)]),
    ],
)
def test_a_short_month_does_not_move_the_anniversary(anchor: int, starts: list[int]) -> None:
    found = []
    moment = anchor
    for _ in starts:
        moment = period_end_ms(anchor, moment)
        found.append(moment)
    assert found == starts


def test_a_year_from_a_leap_day_ends_on_the_28th_until_there_is_another() -> None:
    anchor = at(2028, 2, 29)
    assert period_end_ms(anchor, anchor, 12) == at(2029, 2, 28)
    assert period_end_ms(anchor, at(2031, 6, 1), 12) == at(2032, 2, 29)
