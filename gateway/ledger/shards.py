"""What processes agree on about shards of Redis: epochs, how far they were seen, who rebuilds them.

Redis itself cannot be asked about that: it is what was lost.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from gateway.ledger.database import Database

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

# Classes of Postgres' advisory locks of two numbers: "tol", and what the second number is.
SHARD_LOCKS = 0x746F6C01
WORKER_LOCKS = 0x746F6C02
# A rebuild that another process has begun is waited for as long.
SHARD_LOCK_WAIT_S = 60.0


class Shards(Database):
    """Epochs, watermarks, locks and presence."""

    async def next_epoch(self, shard: int) -> int:
        """A number greater than any epoch this shard ever had."""
        return int(await self._session.value("shard_epoch_next", shard))

    async def epoch_of(self, shard: int) -> int:
        """The last epoch given to the shard; 0: it was never opened."""
        return int(await self._session.value("shard_epoch", shard) or 0)

    @asynccontextmanager
    async def shard_locked(
        self, shard: int, *, wait_s: float = SHARD_LOCK_WAIT_S
    ) -> AsyncIterator[None]:
        """Keep every other process from rebuilding this shard, while it lasts.

        A lost connection ends it unnoticed: each step of a rebuild has to be safe without it.

        Raises: LedgerUnavailable when another process has it for longer than `wait_s`.
        """
        async with self.transaction_apart(wait_s) as session:
            await session.one("shard_lock", SHARD_LOCKS, shard)
            yield

    async def watermarks(self) -> dict[int, tuple[int, int]]:
        """Of every shard the epoch in force and the highest seq that was seen of it."""
        records = await self._session.all("shard_watermarks")
        return {row["shard"]: (row["epoch"], row["seq"]) for row in records}

    async def save_watermarks(self, seen: Mapping[int, tuple[int, int]]) -> None:
        """Remember (epoch, seq) of shards. A lower seq, or an epoch not in force, is ignored."""
        if not seen:
            return
        shards = sorted(seen)
        epochs, seqs = zip(*(seen[shard] for shard in shards), strict=True)
        await self._session.value("shard_watermarks_save", shards, list(epochs), list(seqs))

    async def attend(self, worker_id: int, channel: str, callback: Callable[[str], None]) -> None:
        """Listen as `listen` does, and be counted among the living while the connection lasts.

        `worker_id` is this process' own, 0 … 2^31 - 1. After a lost connection both begin again.
        """
        self._keep_listening(channel, callback, "worker_attend", WORKER_LOCKS, worker_id)

    async def attending(self) -> set[int]:
        """The workers that live, of all nodes; one that died is gone as soon as Postgres knows."""
        records = await self._session.all("worker_attending", WORKER_LOCKS)
        return {row["worker_id"] for row in records}

    async def notify(self, channel: str, payload: str) -> None:
        """Tell whoever listens."""
        await self._session.value("channel_notify", channel, payload)
