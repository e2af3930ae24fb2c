"""Times as people type them become exact milliseconds, or a mistake that shows the right form."""

from __future__ import annotations

import pytest

from gateway.operations.errors import UsageError
from gateway.operations.moments import format_moment, parse_duration_ms, parse_moment_ms

NOW_MS = 1_790_000_000_000


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90s", 90_000),
        ("90m", 5_400_000),
        ("24h", 86_400_000),
        ("30d", 2_592_000_000),
        (" 1w ", 604_800_000),
    ],
)
def test_a_duration_is_a_number_and_a_unit(text: str, expected: int) -> None:
    assert parse_duration_ms(text) == expected
    assert parse_moment_ms(text, NOW_MS) == NOW_MS + expected
    assert parse_moment_ms(text, NOW_MS, past=True) == NOW_MS - expected


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("2026-12-31", "2026-12-31T00:00:00Z"),
        ("2026-12-31T18:30", "2026-12-31T18:30:00Z"),
        ("2026-12-31T18:30:05Z", "2026-12-31T18:30:05Z"),
        ("2026-12-31T18:30:00+02:00", "2026-12-31T16:30:00Z"),
    ],
)
def test_a_date_is_utc_unless_it_says_otherwise(text: str, shown: str) -> None:
    assert format_moment(parse_moment_ms(text, NOW_MS)) == shown


@pytest.mark.parametrize(
    "text", ["", "soon", "30", "d", "-5d", "1.5h", "2026-13-01", "٣d", "9999999d"]
)
def test_anything_else_is_a_mistake_that_shows_the_right_form(text: str) -> None:
    with pytest.raises(UsageError, match="30d"):
        parse_moment_ms(text, NOW_MS)


def test_never_is_shown_as_nothing() -> None:
    assert format_moment(0) == ""


def test_what_lies_before_1970_or_after_9999_is_held_at_the_border() -> None:
    assert parse_moment_ms("999999w", NOW_MS, past=True) == 0
    assert format_moment(parse_moment_ms("999999w", NOW_MS)) == "9999-12-31T23:59:59Z"
