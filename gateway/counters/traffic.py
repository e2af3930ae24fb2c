"""What the workers are doing: calls, credits and denials of each route, for people who look on.

Not books, but a look at the moment: every worker writes its own sums since its start, and Redis
forgets them TRAFFIC_TTL_MS after it last did. The names are of no shard:

    tk:traffic            zset  worker id by the time at which it last wrote, by its own clock
    tk:traffic:<worker>   hash  route id -> "calls:microcredits:denials", and "worker" -> its id

Whoever shows rates looks twice and takes `since` of both.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple

from gateway.counters.base import Base

if TYPE_CHECKING:
    from collections.abc import Mapping

TRAFFIC_TTL_MS = 10_000
# Rows written by one command: bounds how long Redis is busy with it.
TRAFFIC_BATCH = 250
# Workers that have not written for as long are dropped from the index. Far longer than clocks of
# nodes differ; what a dead worker wrote is gone long before.
INDEX_TTL_MS = 3_600_000
_INDEX = "tk:traffic"
_OWN_FIELD = "worker"  # so that a worker without a call is there, too


class TrafficRow(NamedTuple):
    """What happened on one route, at one worker or at several."""

    calls: int = 0  # that were settled, be it for nothing
    microcredits: int = 0  # charged
    denials: int = 0  # calls that were refused

    def __str__(self) -> str:
        return f"{self.calls}:{self.microcredits}:{self.denials}"


# What each live worker did since its start: rows by worker id, then by route id.
Traffic = dict[int, dict[int, TrafficRow]]


class TrafficSums(Base):
    """Where workers write what they did, and who looks on reads it."""

    async def save_traffic(
        self, worker_id: int, rows: Mapping[int, TrafficRow], now_ms: int
    ) -> bool:
        """Write those of a worker's rows that have changed, by route, and that it lives.

        False: Redis had nothing of this worker, so all its rows are to be written.
        """
        name = f"{_INDEX}:{worker_id}"
        fields = [part for route_id, row in rows.items() for part in (route_id, str(row))]
        known, *_ = await asyncio.gather(
            self.command("PEXPIRE", name, TRAFFIC_TTL_MS),
            self.command("HSET", name, _OWN_FIELD, worker_id),
            *(
                self.command("HSET", name, *fields[start : start + 2 * TRAFFIC_BATCH])
                for start in range(0, len(fields), 2 * TRAFFIC_BATCH)
            ),
            self.command("PEXPIRE", name, TRAFFIC_TTL_MS),
            self.command("ZADD", _INDEX, now_ms, worker_id),
            self.command("ZREMRANGEBYSCORE", _INDEX, "-inf", now_ms - INDEX_TTL_MS),
        )
        return bool(known)

    async def traffic(self) -> Traffic:
        """What every live worker did since its start, on routes that were called."""
        workers = [int(worker) for worker in await self.command("ZRANGE", _INDEX, 0, -1)]
        hashes = await asyncio.gather(
            *(self.command("HGETALL", f"{_INDEX}:{worker}") for worker in workers)
        )
        return {
            worker: {
                int(route_id): TrafficRow(*map(int, row.split(b":")))
                for route_id, row in zip(flat[::2], flat[1::2], strict=True)
                if route_id != _OWN_FIELD.encode()
            }
            for worker, flat in zip(workers, hashes, strict=True)
            if flat
        }


def since(before: Traffic, now: Traffic) -> dict[int, TrafficRow]:
    """What happened between two looks, by route, over all workers.

    Only workers that both looks saw count: what a worker did that Redis had forgotten for a while
    would seem to have happened at once.
    """
    sums: dict[int, TrafficRow] = {}
    for worker in before.keys() & now.keys():
        known = before[worker]
        for route_id, row in now[worker].items():
            calls, microcredits, denials = sums.get(route_id, TrafficRow())
            old = known.get(route_id, TrafficRow())
            sums[route_id] = TrafficRow(
                calls + row.calls - old.calls,
                microcredits + row.microcredits - old.microcredits,
                denials + row.denials - old.denials,
            )
    return sums
