"""Forgets parked holds whose calls are settled: by a lease, or by one who died just then."""

from __future__ import annotations

import logging
from typing import NoReturn, Protocol

from gateway.jobs.rounds import repeat
from gateway.ledger.parked import CLEAN_ROWS_MAX

INTERVAL_S = 30.0

log = logging.getLogger("tollkeeper.jobs")


class ParkedStore(Protocol):
    """Where parked holds are: `Ledger`."""

    async def clean_parked_holds(self) -> int:
        """Forget a page of those whose calls are settled; answers how many."""


class ParkedHoldCleaning:
    """Keeps what a lost shard would be rebuilt with to what is still held."""

    def __init__(self, store: ParkedStore) -> None:
        self._store = store

    async def run(self) -> NoReturn:
        """Clean again and again, until cancelled."""
        await repeat("parked holds", self.clean, INTERVAL_S)

    async def clean(self) -> int:
        """One round; answers how many were forgotten."""
        forgotten = 0
        while page := await self._store.clean_parked_holds():
            forgotten += page
            if page < CLEAN_ROWS_MAX:
                break
        return forgotten
