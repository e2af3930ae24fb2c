"""A worker's part in a rebuild: to tell which calls of a lost shard it still runs.

Whoever rebuilds a shard closes it and calls all workers, several times a second until they have
reported. A worker that hears it:

1. goes by the new epoch, so that from now on nothing of it is settled in the closed shard;
2. asks Redis something and waits for the answer: what was asked before is answered then, so that a
   call just admitted is in the registry, and one just settled is with the writer;
3. tells the holds of its live calls of the shard;
4. flushes what has left the registry (settlements, late settlements) to Postgres;
5. notes that it has told all.

Every step is idempotent and the call is repeated, so a worker that fails at any of them begins
again. One that dies is not waited for: its presence goes with its connection to Postgres.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Protocol

from gateway.counters import CountersUnavailable
from gateway.ledger import LedgerUnavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from gateway.counters import Counters

REBUILD_CHANNEL = "tollkeeper_rebuild"
LEASE_MS = 30_000
ATTEND_WAIT_S = 5.0

log = logging.getLogger("tollkeeper.recovery")


class Presence(Protocol):
    """Where workers are known and called: `Ledger`."""

    async def attend(self, worker_id: int, channel: str, callback: Callable[[str], None]) -> None:
        """Be known as a live worker while a connection lasts, and listen.

        Called back with "" whenever that has begun, first and after a lost connection.
        """


class Reporter:
    """Reports for one worker: `start` before it takes calls, `close` when it has none any more."""

    def __init__(
        self,
        worker_id: int,
        counters: Counters,
        ledger: Presence,
        live: Callable[[int], Sequence[tuple[str, str, int]]],
        flush: Callable[[], Awaitable[None]],
        *,
        lease_ms: int = LEASE_MS,
    ) -> None:
        """Take what is reported. `worker_id` is 0 … 2^31 - 1, and nobody else's.

        `live` answers the worker's calls of a shard: id, text of the hold, stage (0 held, 1
        dispatched). `flush` returns when all that has left them is in Postgres; it may raise
        LedgerUnavailable.
        """
        self.worker_id = worker_id
        self._name = str(worker_id)
        self._counters = counters
        self._ledger = ledger
        self._live = live
        self._flush = flush
        self._lease_ms = lease_ms
        self._reported: dict[int, int] = {}  # epoch by shard
        self._reports: dict[int, asyncio.Task[None]] = {}
        self._looking: asyncio.Task[None] | None = None
        self._attends = asyncio.Event()
        self._closed = False

    async def start(self) -> None:
        """Return when it is known as a live worker. Raises: LedgerUnavailable."""
        await self._ledger.attend(self.worker_id, REBUILD_CHANNEL, self.called)
        try:
            async with asyncio.timeout(ATTEND_WAIT_S):
                await self._attends.wait()
        except TimeoutError:
            raise LedgerUnavailable("rebuilds of shards can't be heard of") from None

    async def close(self) -> None:
        """Stop what is under way and begin nothing more; the presence ends with the ledger."""
        self._closed = True
        tasks = [*self._reports.values(), *([self._looking] if self._looking else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def called(self, payload: str) -> None:
        """Somebody rebuilds a shard: "shard:epoch". With "" some calls may have been missed."""
        if self._closed:
            return
        if not payload:
            self._attends.set()
            if self._looking is None or self._looking.done():
                self._looking = asyncio.create_task(self._look_everywhere())
            return
        shard, epoch = map(int, payload.split(":"))
        self._begin(shard, epoch)

    def _begin(self, shard: int, epoch: int) -> None:
        """Report, unless that is done, or under way: then the next call begins again."""
        under_way = self._reports.get(shard)
        if self._reported.get(shard, 0) < epoch and (under_way is None or under_way.done()):
            self._reports[shard] = asyncio.create_task(self._try_report(shard, epoch))

    async def _look_everywhere(self) -> None:
        """Report of every shard that is closed now."""
        try:
            for shard in range(self._counters.shards):
                epoch, seq = await self._counters.meta(shard)
                if epoch and seq is None:
                    self._begin(shard, epoch)
        except CountersUnavailable as error:
            log.warning("shards that are being rebuilt wait for their next call: %s", error)

    async def _try_report(self, shard: int, epoch: int) -> None:
        try:
            await self._report(shard, epoch)
        except (CountersUnavailable, LedgerUnavailable) as error:
            log.warning("shard %d: the report waits for the next call: %s", shard, error)
        except Exception:
            log.exception("shard %d: the report failed", shard)

    async def _report(self, shard: int, epoch: int) -> None:
        counters = self._counters
        counters.adopt(shard, epoch)
        await counters.meta(shard)
        calls = self._live(shard)
        restore = counters.restore
        if calls and not await restore(shard, epoch, self._name, self._lease_ms, calls):
            return  # it is open, or closed anew under an epoch that we shall be called with
        await self._flush()
        if await restore(shard, epoch, self._name, self._lease_ms, ()):
            self._reported[shard] = epoch
            log.info("shard %d: reported %d running calls", shard, len(calls))
