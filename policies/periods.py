"""When a billing period ends: whole months after an anchor, in UTC.

A period is half-open: it holds its start and not its end, which is the next one's start. Every
boundary is counted from the same anchor, so a period that was cut short by February does not move
the next ones: from the 31st of January it goes to the 28th of February and the 31st of March.
"""

from __future__ import annotations

from policies.spans import DAY_MS

# Calendar months in a plan's period.
MONTHS = {"month": 1, "year": 12}


def period_end_ms(anchor_ms: int, start_ms: int, months: int = 1) -> int:
    """The first boundary after `start_ms`, of those every so many months after the anchor.

    `start_ms` need not be a boundary. Times are ms since 1970; the anchor's time of the day and,
    as far as months reach, its day of the month are those of every boundary.
    """
    anchor_year, anchor_month, _ = _civil(anchor_ms // DAY_MS)
    year, month, _ = _civil(start_ms // DAY_MS)
    steps = ((year - anchor_year) * 12 + month - anchor_month) // months
    end_ms = months_after_ms(anchor_ms, steps * months)
    while end_ms <= start_ms:
        steps += 1
        end_ms = months_after_ms(anchor_ms, steps * months)
    return end_ms


def months_after_ms(anchor_ms: int, months: int) -> int:
    """So many calendar months after (below 0: before) the anchor, on its day or the month's last.

    The anchor's time of the day stays.
    """
    year, month, day = _civil(anchor_ms // DAY_MS)
    years, month_index = divmod(month - 1 + months, 12)
    year += years
    next_year, next_index = divmod(month_index + 1, 12)
    month_days = _days(year + next_year, next_index + 1, 1) - _days(year, month_index + 1, 1)
    days = _days(year, month_index + 1, min(day, month_days))
    return days * DAY_MS + anchor_ms % DAY_MS


# After Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms": years begin in March, so that
# the leap day is the last of its year; an era is 400 years.
def _days(year: int, month: int, day: int) -> int:
    year -= month < 3
    era, year_of_era = divmod(year, 400)
    day_of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    day_of_era = year_of_era * 365 + year_of_era // 4 - year_of_era // 100 + day_of_year
    return era * 146_097 + day_of_era - 719_468


def _civil(days: int) -> tuple[int, int, int]:
    era, day_of_era = divmod(days + 719_468, 146_097)
    leap_days = day_of_era // 1_460 - day_of_era // 36_524 + day_of_era // 146_096
    year_of_era = (day_of_era - leap_days) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    month_from_march = (5 * day_of_year + 2) // 153
    month = (month_from_march + 2) % 12 + 1
    day = day_of_year - (153 * month_from_march + 2) // 5 + 1
    return era * 400 + year_of_era + (month < 3), month, day
