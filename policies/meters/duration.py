"""`duration:s`, `duration:ms`: how long a call takes, from being sent on to its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from policies.catalog import Source
    from policies.meters.reader import Observed

KIND = "duration"
_MS_PER_S = 1000


class Duration:
    """Milliseconds, or seconds that have begun."""

    @staticmethod
    def mistake_in(source: Source) -> str | None:
        """It takes the unit of time."""
        return None if source.argument in {"s", "ms"} else 'needs "s" or "ms", as in "duration:s"'

    @staticmethod
    def prepare(source: Source) -> Callable[[Observed], int | None]:
        """What tells the time in this unit."""
        return _milliseconds if source.argument == "ms" else _seconds


def _milliseconds(observed: Observed) -> int:
    return max(0, observed.elapsed_ms)


def _seconds(observed: Observed) -> int:
    return -(-max(0, observed.elapsed_ms) // _MS_PER_S)
