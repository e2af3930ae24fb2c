"""Ends holds whose lease is over, because whoever held them died: invariant I4, no leak.

Redis decides by its own clock whether a lease is over, and what the call then costs; the settlement
is in the outbox afterwards, from where the sweeper takes it. Several reapers do no harm.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Generic, NoReturn, Protocol, TypeVar

from gateway.counters import CountersUnavailable
from gateway.jobs.rounds import repeat
from policies.decision import Settled, ShardLost

if TYPE_CHECKING:
    from policies.decision import Expiring

INTERVAL_S = 1.0
PAGE_HOLDS_MAX = 200

log = logging.getLogger("tollkeeper.jobs")

K = TypeVar("K")


class Holds(Protocol[K]):
    """The shards' holds and leases: `Counters`."""

    async def overdue(self, shard: int, limit: int) -> list[tuple[str, int]]:
        """Call id and account id of holds whose lease is over."""

    def keys(self, account_id: int) -> K:
        """The names of an account."""

    async def expire(self, keys: K, call_id: str) -> Expiring:
        """End one such hold."""

    def adopt(self, shard: int, epoch: int) -> None:
        """Go by an epoch that somebody else opened."""


class Reaper(Generic[K]):
    """Ends overdue holds, shard by shard."""

    def __init__(self, holds: Holds[K], shards: int) -> None:
        self._holds = holds
        self._shards = shards

    async def run(self) -> NoReturn:
        """Reap until cancelled."""
        await repeat("reaper", self.reap, INTERVAL_S)

    async def reap(self) -> int:
        """One round over all shards; answers how many holds were ended.

        Raises: CountersUnavailable, after the shards that did answer.
        """
        ended = 0
        failure: CountersUnavailable | None = None
        for shard in range(self._shards):
            try:
                ended += await self._reap_shard(shard)
            except CountersUnavailable as error:
                failure = error
        if failure is not None:
            raise failure
        if ended:
            log.warning("%d holds outlived their lease and were ended", ended)
        return ended

    async def _reap_shard(self, shard: int) -> int:
        ended = 0
        while overdue := await self._holds.overdue(shard, PAGE_HOLDS_MAX):
            outcomes = await asyncio.gather(
                *(
                    self._holds.expire(self._holds.keys(account_id), call_id)
                    for call_id, account_id in overdue
                )
            )
            settled = sum(isinstance(outcome, Settled) for outcome in outcomes)
            ended += settled
            for outcome in outcomes:
                if isinstance(outcome, ShardLost):
                    self._lost(shard, outcome)
                    break
            if not settled or len(overdue) < PAGE_HOLDS_MAX:
                break
        return ended

    def _lost(self, shard: int, lost: ShardLost) -> None:
        """A worker opens a lost shard on its next call; until then its holds are nobody's."""
        if lost.kind == "STALE" and lost.epoch:
            self._holds.adopt(shard, lost.epoch)
        else:
            log.warning("shard %d is lost: its holds wait for a worker to open it", shard)
