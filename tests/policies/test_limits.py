"""The rate of a minute and the quota of a calendar month."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.limits import MINUTE_US, PER_MINUTE_MAX, month_end_ms, rate

NOW_US = 1_790_000_000_000_123
per_minutes = st.one_of(st.integers(1, 1000), st.integers(1, PER_MINUTE_MAX))


@given(per_minutes)
def test_a_full_minutes_calls_may_come_at_once_and_not_one_more(per_minute: int) -> None:
    per_minute = min(per_minute, 500)
    tat_us = 0
    for left in reversed(range(per_minute)):
        asked = rate(per_minute, tat_us, NOW_US)
        assert (asked.remaining, asked.retry_after_ms) == (left, 0)
        tat_us = asked.tat_us
    assert rate(per_minute, tat_us, NOW_US).retry_after_ms > 0


@given(per_minutes, st.integers(0, 2 * MINUTE_US))
def test_a_call_passes_after_the_time_that_its_refusal_named_and_not_before(
    per_minute: int, ahead_us: int
) -> None:
    asked = rate(per_minute, NOW_US + ahead_us, NOW_US)
    if asked.retry_after_ms:
        later_us = NOW_US + asked.retry_after_ms * 1000
        assert rate(per_minute, NOW_US + ahead_us, later_us).retry_after_ms == 0
        if asked.retry_after_ms > 1:
            assert rate(per_minute, NOW_US + ahead_us, later_us - 1001).retry_after_ms > 0


@given(per_minutes, st.lists(st.integers(0, MINUTE_US), max_size=60))
def test_over_an_hour_no_more_calls_pass_than_the_limit_and_one_burst(
    per_minute: int, pauses_us: list[int]
) -> None:
    per_minute = min(per_minute, 20)
    tat_us, now_us, admitted = 0, NOW_US, 0
    for pause_us in pauses_us:
        now_us += pause_us
        asked = rate(per_minute, tat_us, now_us)
        if not asked.retry_after_ms:
            tat_us, admitted = asked.tat_us, admitted + 1
    assert admitted <= per_minute + (now_us - NOW_US) * per_minute // MINUTE_US + 1


@given(per_minutes, st.integers(3 * MINUTE_US, 10**15))
def test_a_clock_that_went_back_locks_nobody_out(per_minute: int, back_us: int) -> None:
    assert rate(per_minute, NOW_US + back_us, NOW_US) == rate(per_minute, 0, NOW_US)


def test_looking_at_a_rate_takes_nothing() -> None:
    assert rate(600, 0, NOW_US, calls=0) == (NOW_US, 600, 0)


@given(st.datetimes(datetime(1970, 1, 1), datetime(2399, 12, 1)))  # noqa: DTZ001 -- made UTC below
def test_a_month_ends_when_the_calendar_says(moment: datetime) -> None:
    moment = moment.replace(tzinfo=UTC)
    year, month = divmod(moment.year * 12 + moment.month, 12)
    expected = datetime(year, month + 1, 1, tzinfo=UTC)
    now_ms = int(moment.timestamp()) * 1000 + 999
    assert month_end_ms(now_ms) == int(expected.timestamp()) * 1000


@pytest.mark.parametrize(
    ("last", "end"),
    [
        ("2024-02-29T23:59:59+00:00", "2024-03-01T00:00:00+00:00"),
        ("2023-02-28T23:59:59+00:00", "2023-03-01T00:00:00+00:00"),
        ("2100-02-28T23:59:59+00:00", "2100-03-01T00:00:00+00:00"),
        ("2026-12-31T23:59:59+00:00", "2027-01-01T00:00:00+00:00"),
    ],
)
def test_the_last_second_of_a_month_belongs_to_it(last: str, end: str) -> None:
    last_ms = int(datetime.fromisoformat(last).timestamp()) * 1000
    end_ms = int(datetime.fromisoformat(end).timestamp()) * 1000
    assert month_end_ms(last_ms) == end_ms
    assert month_end_ms(end_ms) > end_ms
