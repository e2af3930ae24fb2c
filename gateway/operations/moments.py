"""Times as people type them, such as "30d", "90m", "2026-12-31T18:00"; UTC, in milliseconds."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from gateway.operations.errors import UsageError

_UNITS_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_DURATION = re.compile(r"(\d{1,6})([smhdw])", re.ASCII)
# Far enough for every expiry, near enough for every database and language.
_MOMENT_MS_MAX = 253_402_300_799_000  # the end of the year 9999


def parse_duration_ms(text: str) -> int:
    """Milliseconds of a number and a unit (s, m, h, d, w), such as "90m".

    Raises: UsageError for anything else.
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise UsageError(
            f'"{text}" is not a duration: use a number and s, m, h, d or w, as in "30d"'
        )
    return int(match[1]) * _UNITS_MS[match[2]]


def parse_moment_ms(text: str, now_ms: int, *, past: bool = False) -> int:
    """Milliseconds since 1970 of a date, a time (UTC unless it says otherwise), or a duration.

    A duration counts from now: forward, or back where `past` is set.

    Raises: UsageError for anything else.
    """
    if _DURATION.fullmatch(text.strip()):
        distance = parse_duration_ms(text)
        return max(0, now_ms - distance) if past else min(now_ms + distance, _MOMENT_MS_MAX)
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise UsageError(
            f'"{text}" is neither a duration like "30d" nor a date like "2026-12-31T18:00"'
        ) from None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0, int(moment.timestamp()) * 1_000)


def format_moment(moment_ms: int) -> str:
    """ISO 8601 in UTC, to the second: "2026-12-31T18:00:00Z"; empty for 0, which means never."""
    if not moment_ms:
        return ""
    moment = datetime.fromtimestamp(moment_ms // 1000, UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
