"""What processes agree on about shards of Redis: epochs, how far they were seen, who rebuilds them.

Redis itself cannot be asked about that: it is what was lost.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from gateway.ledger.database import COMMAND_TIMEOUT_S, Database, Session
from gateway.ledger.errors import LedgerUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

# Classes of Postgres' advisory locks of two numbers: "tol", and what the second number is.
SHARD_LOCKS = 0x746F6C01
WORKER_LOCKS = 0x746F6C02
# A rebuild that another process has begun is waited for as long.
SHARD_LOCK_WAIT_S = 60.0
# Whoever has a shard's lock shows this often that it lives; after 15 s of silence it loses it.
SHARD_LOCK_BEAT_S = 3.0


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

        A holder that is stopped loses it after a while, for it holds up a whole shard.

        Raises: LedgerUnavailable when another process has it for longer than `wait_s`.
        """
        async with self.transaction_apart(wait_s + COMMAND_TIMEOUT_S) as session:
            wait = f"{max(round(wait_s * 1000), 1)}ms"  # waited for there: nobody queues in vain
            await session.one("shard_lock", SHARD_LOCKS, shard, wait)
            done = asyncio.Event()
            beat = asyncio.create_task(_beat(session, done))
            try:
                yield
            finally:
                done.set()
                await asyncio.wait([beat])

    async def settled_of(self, call_ids: Sequence[str]) -> set[str]:
        """Which of these calls are settled here."""
        records = await self._session.all("reconcile_calls", list(call_ids))
        return {row["call_id"] for row in records}

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


async def _beat(session: Session, done: asyncio.Event) -> None:
    """Keep a transaction from being idle for long, until it is done or its connection is lost."""
    while not done.is_set():
        try:
            await asyncio.wait_for(done.wait(), SHARD_LOCK_BEAT_S)
        except TimeoutError:
            try:
                await session.value("shard_lock_keep")
            except LedgerUnavailable:
                return
