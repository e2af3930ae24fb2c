"""How often an account may call: the rate of a minute and the quota of a calendar month.

Integers throughout. `admit.lua` does the same inside Redis and is held against this file by
`tests/policies/lua`.
"""

from __future__ import annotations

from typing import NamedTuple

MINUTE_US = 60_000_000
DAY_MS = 86_400_000
# Above this an emission interval would be under a microsecond.
PER_MINUTE_MAX = MINUTE_US

_MONTH_DAYS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


class Rate(NamedTuple):
    """A rate limit asked for one call.

    `tat_us` is the theoretical arrival time to keep if the call is admitted; `remaining` the calls
    that could follow at once; `retry_after_ms` above 0 denies.
    """

    tat_us: int
    remaining: int
    retry_after_ms: int


def rate(per_minute: int, tat_us: int, now_us: int, *, calls: int = 1) -> Rate:
    """Ask for one call under a limit of `per_minute` (1 … PER_MINUTE_MAX); for 0 just look.

    The generic cell rate algorithm (ITU-T I.371, virtual scheduling) with the whole minute's
    allowance as burst. The interval is rounded up, so that a limit is never exceeded for its
    rounding. A kept time further ahead than the burst means that the clock went back or the plan
    changed: the limit starts anew, for otherwise nobody could call until the clock caught up.
    """
    interval_us = -(-MINUTE_US // per_minute)
    burst_us = interval_us * per_minute
    if not now_us <= tat_us <= now_us + burst_us:
        tat_us = now_us
    tat_us += calls * interval_us
    left_us = now_us + burst_us - tat_us
    if left_us < 0:
        return Rate(tat_us, 0, -(left_us // 1000))
    return Rate(tat_us, left_us // interval_us, 0)


def month_end_ms(now_ms: int) -> int:
    """When the calendar month (UTC) of a time from 1970 on ends, in ms since 1970."""
    days = now_ms // DAY_MS
    month_end = 0
    year, month = 1970, 0
    while month_end <= days:
        leap = month == 1 and year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
        month_end += _MONTH_DAYS[month] + leap
        year, month = (year + 1, 0) if month == 11 else (year, month + 1)
    return month_end * DAY_MS
