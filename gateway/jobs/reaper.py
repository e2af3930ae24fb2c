"""Ends holds whose lease is over, because whoever held them died: invariant I4, no leak.

Redis decides by its own clock whether a lease is over, and by the hold's stage what becomes of it:
undone if its call was never sent on, else settled at what is due; that is in the outbox afterwards,
from where the sweeper takes it. Several reapers do no harm.

It also looks at every shard as a whole, so that one that lost its data, or that a rebuild left
closed because it died, is seen to although nobody calls there.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, NoReturn, Protocol

from gateway.counters import CountersUnavailable
from gateway.jobs.rounds import repeat
from gateway.recovery.loss import loss_of
from policies.decision import Settled, ShardLost, Voided

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.counters import Counters

INTERVAL_S = 1.0
PAGE_HOLDS_MAX = 200

log = logging.getLogger("tollkeeper.jobs")


class LostShards(Protocol):
    """Who sees to lost shards: `recovery.Shards`."""

    def begin(self, lost: ShardLost, shard: int) -> object:
        """Have it rebuilt, without waiting for that."""


class Reaper:
    """Ends overdue holds, shard by shard."""

    def __init__(
        self,
        counters: Counters,
        lost_shards: LostShards,
        *,
        count: Callable[[int], None] = lambda _: None,
    ) -> None:
        """`count` is told how many holds were ended, whenever some were."""
        self._counters = counters
        self._lost_shards = lost_shards
        self._count = count

    async def run(self) -> NoReturn:
        """Reap until cancelled."""
        await repeat("reaper", self.reap, INTERVAL_S)

    async def reap(self) -> int:
        """One round over all shards; answers how many holds were ended.

        Raises: CountersUnavailable, after the shards that did answer.
        """
        ended = 0
        failure: CountersUnavailable | None = None
        for shard in range(self._counters.shards):
            try:
                if await self._is_open(shard):
                    ended += await self._reap_shard(shard)
            except CountersUnavailable as error:
                failure = error
        if ended:
            self._count(ended)
            log.warning("%d holds outlived their lease and were ended", ended)
        if failure is not None:
            raise failure
        return ended

    async def _is_open(self, shard: int) -> bool:
        known = self._counters.seen(shard)
        epoch, seq = await self._counters.meta(shard)
        if lost := loss_of(known, epoch, seq):
            self._lost_shards.begin(lost, shard)
            return False
        self._counters.adopt(shard, epoch, seq or 0)
        return epoch > 0

    async def _reap_shard(self, shard: int) -> int:
        ended = 0
        expire, keys = self._counters.expire, self._counters.keys
        while overdue := await self._counters.overdue(shard, PAGE_HOLDS_MAX):
            outcomes = await asyncio.gather(
                *(expire(keys(account_id), call, session) for call, account_id, session in overdue)
            )
            ended_now = sum(isinstance(outcome, Settled | Voided) for outcome in outcomes)
            ended += ended_now
            for outcome in outcomes:
                if isinstance(outcome, ShardLost):
                    self._lost_shards.begin(outcome, shard)
                    return ended
            if not ended_now or len(overdue) < PAGE_HOLDS_MAX:
                break
        return ended
