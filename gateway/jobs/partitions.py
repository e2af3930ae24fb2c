"""Makes the months' partitions of `settlements` before a call needs them."""

from __future__ import annotations

import logging
from typing import NoReturn, Protocol

from gateway.jobs.rounds import repeat

INTERVAL_S = 24 * 3600.0
MONTHS_AHEAD = 3

log = logging.getLogger("tollkeeper.jobs")


class PartitionedStore(Protocol):
    """Where settlements are: `Ledger`."""

    async def ensure_partitions(self, months_ahead: int) -> list[str]:
        """Make what is missing; answers the new partitions' names."""


class Partitions:
    """Keeps this month's partition and those of the next `MONTHS_AHEAD` in place."""

    def __init__(self, store: PartitionedStore) -> None:
        self._store = store

    async def run(self) -> NoReturn:
        """Look every day, until cancelled."""
        await repeat("partitions", self.ensure, INTERVAL_S)

    async def ensure(self) -> list[str]:
        """One look; answers the partitions made."""
        made = await self._store.ensure_partitions(MONTHS_AHEAD)
        if made:
            log.info("made %s", ", ".join(made))
        return made
