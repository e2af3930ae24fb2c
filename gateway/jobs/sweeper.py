"""Carries settlements to Postgres that no worker carries any more.

A settlement is in the shard's outbox from the moment it exists until somebody has written it to
Postgres. Usually its worker does that within a fraction of a second; what is older belonged to a
worker that died, or to the expiry job. Being late, twice, or at the same time as a living worker is
harmless: the ledger counts each call once.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NoReturn, Protocol

from gateway.counters import CountersUnavailable
from gateway.jobs.rounds import repeat
from policies.settlement import parse_outbox

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from gateway.ledger import Recorded
    from policies.settlement import Settlement

INTERVAL_S = 2.0
OLDER_THAN_MS = 5_000
PAGE_ROWS_MAX = 1_000
PUT_ASIDE_MAX = 10_000

log = logging.getLogger("tollkeeper.jobs")


class Outbox(Protocol):
    """The shards' outbox streams: `Counters`."""

    async def outbox_page(
        self, shard: int, older_than_ms: int, limit: int, after: str | None = None
    ) -> list[tuple[str, dict[bytes, bytes]]]:
        """Entries of at least this age, oldest first, behind the id `after`."""

    async def acknowledge(self, settled: Sequence[Settlement]) -> None:
        """Forget settlements that are in Postgres."""


class SettlementStore(Protocol):
    """Where settlements go: `Ledger`."""

    async def record_settlements(self, settlements: Sequence[Settlement]) -> Recorded:
        """Write a batch, exactly once per call."""


class Sweeper:
    """Empties the outboxes of what is old.

    An entry that can't be read, or that Postgres refuses, stays in the outbox for people to look
    at. It is put aside, so that it neither fills the log nor blocks others; a restart tries again.
    """

    def __init__(
        self,
        outbox: Outbox,
        store: SettlementStore,
        shards: int,
        *,
        older_than_ms: int = OLDER_THAN_MS,
    ) -> None:
        self._outbox = outbox
        self._store = store
        self._shards = shards
        self._older_than_ms = older_than_ms
        self._put_aside: set[tuple[int, str]] = set()

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
                swept += await self._sweep_shard(shard)
            except CountersUnavailable as error:
                failure = error
        if failure is not None:
            raise failure
        return swept

    async def _sweep_shard(self, shard: int) -> int:
        swept = 0
        after: str | None = None
        while True:
            page = await self._outbox.outbox_page(shard, self._older_than_ms, PAGE_ROWS_MAX, after)
            settlements = self._read(shard, page)
            if settlements:
                recorded = await self._store.record_settlements(settlements)
                await self._outbox.acknowledge(recorded.durable)
                self._put(shard, (row.outbox_id for row in recorded.refused))
                swept += len(recorded.durable)
            if len(page) < PAGE_ROWS_MAX:
                return swept
            after = page[-1][0]

    def _read(
        self, shard: int, page: Iterable[tuple[str, Mapping[bytes, bytes]]]
    ) -> list[Settlement]:
        settlements = []
        for outbox_id, fields in page:
            if (shard, outbox_id) in self._put_aside:
                continue
            try:
                settlements.append(parse_outbox(shard, outbox_id, fields))
            except ValueError as error:
                log.error("shard %d: %s", shard, error)  # noqa: TRY400 -- the text says it all
                self._put(shard, [outbox_id])
        return settlements

    def _put(self, shard: int, outbox_ids: Iterable[str | None]) -> None:
        for outbox_id in outbox_ids:
            if outbox_id is not None and len(self._put_aside) < PUT_ASIDE_MAX:
                self._put_aside.add((shard, outbox_id))
