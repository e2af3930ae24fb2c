"""The fake's time, and what falls due on it.

Time is in whole seconds, as at Stripe. The clock stands still until it is moved, or runs with
real time (`running`), in which case a move leaps ahead of it and it runs on from there.
"""

from __future__ import annotations

import heapq
import time
from dataclasses import dataclass
from typing import Any

MINUTE_S = 60
HOUR_S = 3600
DAY_S = 86_400


class Clock:
    """Tells `now_s`. It never goes back."""

    def __init__(self, now_s: int | None = None, *, running: bool = False) -> None:
        self._at_s = int(time.time()) if now_s is None else now_s
        self._since_s = time.monotonic() if running else None

    @property
    def running(self) -> bool:
        """Whether it runs with real time between its moves."""
        return self._since_s is not None

    @property
    def now_s(self) -> int:
        if self._since_s is None:
            return self._at_s
        return self._at_s + int(time.monotonic() - self._since_s)

    def move_to(self, to_s: int) -> None:
        """Leaps ahead. A time that is past already changes nothing."""
        if to_s <= self.now_s:
            return
        self._at_s = to_s
        if self._since_s is not None:
            self._since_s = time.monotonic()


@dataclass(frozen=True, slots=True, order=True)
class Due:
    """One thing that is to be looked at, at a time. It may turn out that it matters no more."""

    at_s: int
    number: int
    what: str
    object_id: str
    livemode: bool


class Agenda:
    """All that falls due, in the order of time, then as it was put down."""

    def __init__(self) -> None:
        self._heap: list[Due] = []
        self._last = 0

    def add(self, at_s: int, what: str, object_id: str, *, livemode: bool) -> None:
        """Puts something down. The same thing may be there more than once."""
        self._last += 1
        heapq.heappush(self._heap, Due(at_s, self._last, what, object_id, livemode))

    def next(self, until_s: int) -> Due | None:
        """Takes off what falls due first, if that is not after `until_s`."""
        if not self._heap or self._heap[0].at_s > until_s:
            return None
        return heapq.heappop(self._heap)

    def dump(self) -> list[Any]:
        """All of it as JSON."""
        return [[d.at_s, d.number, d.what, d.object_id, d.livemode] for d in sorted(self._heap)]

    def load(self, saved: list[Any]) -> None:
        """Takes the place of all there was."""
        self._heap = [Due(*row) for row in saved]
        heapq.heapify(self._heap)
        self._last = max((due.number for due in self._heap), default=0)
