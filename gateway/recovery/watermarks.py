"""How far each shard was seen, kept in Postgres: tells an older Redis from this one.

A worker knows the highest seq of the shards that it uses, and every script is told of it. A Redis
that went back while nobody ran would be believed, if workers did not begin with what was seen
before. What was written in the last second before all of them died can be missed.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, NoReturn, Protocol

from gateway.ledger import LedgerUnavailable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.counters import Counters

INTERVAL_S = 1.0

log = logging.getLogger("tollkeeper.recovery")


class WatermarkBooks(Protocol):
    """Where watermarks are: `Ledger`."""

    async def watermarks(self) -> dict[int, tuple[int, int]]:
        """Epoch and seq by shard."""

    async def save_watermarks(self, seen: Mapping[int, tuple[int, int]]) -> None:
        """Remember them; what is lower than before is ignored."""


class Watermarks:
    """One process' part: `start` before it asks Redis anything of a shard, `run` afterwards."""

    def __init__(self, counters: Counters, ledger: WatermarkBooks) -> None:
        self._counters = counters
        self._ledger = ledger
        self._saved: dict[int, tuple[int, int]] = {}

    async def start(self) -> None:
        """Go by what was seen before. Raises: LedgerUnavailable."""
        for shard, (epoch, seq) in (await self._ledger.watermarks()).items():
            if shard < self._counters.shards:
                self._counters.adopt(shard, epoch, seq)
                self._saved[shard] = (epoch, seq)

    async def run(self) -> NoReturn:
        """Save what has grown, every second, until cancelled."""
        while True:
            await asyncio.sleep(INTERVAL_S)
            try:
                await self.save()
            except LedgerUnavailable as error:
                log.warning("watermarks are saved later: %s", error)
            except Exception:
                log.exception("watermarks can't be saved")

    async def save(self) -> None:
        """Save what has grown since the last time. Raises: LedgerUnavailable."""
        seen = {shard: self._counters.seen(shard) for shard in range(self._counters.shards)}
        grown = {
            shard: mark for shard, mark in seen.items() if mark > self._saved.get(shard, (0, 0))
        }
        await self._ledger.save_watermarks(grown)
        self._saved |= grown
