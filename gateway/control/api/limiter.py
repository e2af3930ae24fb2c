"""How often somebody may ask, counted in this process: the same cell rate algorithm as for calls.

A node's own count is enough here: it bounds guessing and flooding, not what anybody pays for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from policies.limits import rate

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

# The least recently seen makes room: an attacker with more addresses than this has other ways.
KNOWN_MAX = 50_000


class Limiter:
    """So many per minute for each; as many at once."""

    def __init__(self, per_minute: int, now_ms: Callable[[], int]) -> None:
        self._per_minute = per_minute
        self._now_ms = now_ms
        self._tats_us: dict[Hashable, int] = {}

    def take(self, who: Hashable) -> int:
        """Count one; 0, or the milliseconds until one more is allowed: a refused one is not."""
        kept = self._tats_us.pop(who, 0)
        asked = rate(self._per_minute, kept, self._now_ms() * 1_000)
        if len(self._tats_us) >= KNOWN_MAX:
            del self._tats_us[next(iter(self._tats_us))]
        self._tats_us[who] = kept if asked.retry_after_ms else asked.tat_us
        return asked.retry_after_ms

    def wait_ms(self, who: Hashable) -> int:
        """What `take` would say now; nothing is counted."""
        kept = self._tats_us.get(who, 0)
        return rate(self._per_minute, kept, self._now_ms() * 1_000).retry_after_ms
