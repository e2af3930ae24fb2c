"""What to do about a lost shard, for whoever comes across one: wait until it is rebuilt."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from gateway.counters import CountersUnavailable
from gateway.ledger import LedgerUnavailable

if TYPE_CHECKING:
    from gateway.counters import Counters
    from gateway.recovery.rebuild import Rebuilder
    from policies.decision import ShardLost

# What a call waits for a rebuild; then it is refused, and asked to come again.
REBUILD_WAIT_S = 2.0
# After a rebuild that failed: Redis or Postgres is away, and calls keep asking.
FAILED_PAUSE_S = 0.25

log = logging.getLogger("tollkeeper.recovery")


class Shards:
    """The lost shards of one process: each is rebuilt once, whoever waits for it."""

    def __init__(
        self, rebuilder: Rebuilder, counters: Counters, *, wait_s: float = REBUILD_WAIT_S
    ) -> None:
        self._rebuilder = rebuilder
        self._counters = counters
        self._wait_s = wait_s
        self._under_way: dict[int, asyncio.Task[bool]] = {}

    async def ready(self, lost: ShardLost, shard: int) -> bool:
        """Whether the shard can be asked again, after waiting REBUILD_WAIT_S at most.

        Starts its rebuild, or joins the one under way; that goes on when we stop waiting.
        """
        task = self.begin(lost, shard)
        if task is None:
            return True
        done, _ = await asyncio.wait([task], timeout=self._wait_s)
        return bool(done) and not task.cancelled() and task.result()

    def begin(self, lost: ShardLost, shard: int) -> asyncio.Task[bool] | None:
        """The shard's rebuild, started unless it is under way; None: it needs none."""
        if lost.kind == "STALE" and lost.epoch and lost.epoch >= self._counters.seen(shard)[0]:
            self._counters.adopt(shard, lost.epoch)
            return None
        task = self._under_way.get(shard)
        if task is None:
            task = asyncio.create_task(self._rebuild(lost, shard))
            self._under_way[shard] = task
            task.add_done_callback(lambda _: self._under_way.pop(shard, None))
        return task

    async def close(self) -> None:
        """Stop what is under way; another process finishes it."""
        tasks = list(self._under_way.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _rebuild(self, lost: ShardLost, shard: int) -> bool:
        try:
            await self._rebuilder.rebuild(shard, lost)
        except (CountersUnavailable, LedgerUnavailable) as error:
            log.warning("shard %d can't be rebuilt now: %s", shard, error)
        except Exception:
            log.exception("shard %d: the rebuild failed", shard)
        else:
            return True
        await asyncio.sleep(FAILED_PAUSE_S)
        return False
