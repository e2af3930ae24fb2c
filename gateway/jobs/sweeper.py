"""Carries to Postgres what no worker carries any more.

A settlement is in the shard's outbox from the moment it exists until somebody has written it to
Postgres. Usually its worker does that within a fraction of a second; what is older belonged to a
worker that died, or to the expiry of a hold. Other changes that took credits have no other carrier.
Being late, twice, or at the same time as a living worker is harmless: see `recovery.carry`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from gateway.counters import CountersUnavailable
from gateway.jobs.rounds import repeat

if TYPE_CHECKING:
    from gateway.recovery.carry import Carrier

INTERVAL_S = 2.0
OLDER_THAN_MS = 5_000


class Sweeper:
    """Empties the outboxes of what is old."""

    def __init__(
        self, carrier: Carrier, shards: int, *, older_than_ms: int = OLDER_THAN_MS
    ) -> None:
        self._carrier = carrier
        self._shards = shards
        self._older_than_ms = older_than_ms

    async def run(self) -> NoReturn:
        """Sweep until cancelled."""
        await repeat("sweeper", self.sweep, INTERVAL_S)

    async def sweep(self) -> int:
        """One round over all shards; answers how many entries were brought to Postgres.

        A shard that does not answer does not keep the others from being swept.

        Raises: LedgerUnavailable, which ends the round; CountersUnavailable after it.
        """
        swept = 0
        failure: CountersUnavailable | None = None
        for shard in range(self._shards):
            try:
                swept += await self._carrier.carry(shard, older_than_ms=self._older_than_ms)
            except CountersUnavailable as error:
                failure = error
        if failure is not None:
            raise failure
        return swept
