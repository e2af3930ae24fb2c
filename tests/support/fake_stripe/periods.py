"""Periods of billing, counted from an anchor: the 31st stays the last day of shorter months."""

from __future__ import annotations

from calendar import monthrange
from datetime import UTC, datetime

from .clock import DAY_S

MONTHS = {"month": 1, "year": 12}
DAYS = {"day": 1, "week": 7}


def boundary(anchor_s: int, interval: str, count: int, number: int) -> int:
    """When period `number` after the anchor begins; before it, when that is negative."""
    if interval in DAYS:
        return anchor_s + number * count * DAYS[interval] * DAY_S
    at = datetime.fromtimestamp(anchor_s, UTC)
    months = at.year * 12 + at.month - 1 + number * count * MONTHS[interval]
    year, month = divmod(months, 12)
    day = min(at.day, monthrange(year, month + 1)[1])
    return int(at.replace(year=year, month=month + 1, day=day).timestamp())


def next_after(anchor_s: int, interval: str, count: int, at_s: int) -> int:
    """The first beginning of a period that is later than `at_s`."""
    if interval in DAYS:
        number = (at_s - anchor_s) // (count * DAYS[interval] * DAY_S)
    else:
        anchor, at = (datetime.fromtimestamp(s, UTC) for s in (anchor_s, at_s))
        months = (at.year - anchor.year) * 12 + at.month - anchor.month
        number = months // (count * MONTHS[interval]) - 1
    while boundary(anchor_s, interval, count, number) <= at_s:
        number += 1
    return boundary(anchor_s, interval, count, number)


def day_of(at_s: int) -> str:
    """A day as descriptions of lines name it: 5 Nov 2026."""
    at = datetime.fromtimestamp(at_s, UTC)
    return f"{at.day} {at:%b %Y}"
