"""What this worker does on each route, counted for people who look on (`tollkeeper top`).

An offer has its route's sums, so that counting is adding to an attribute; they outlive the offers
of one catalogue. Every second what has changed is written to Redis. If that fails it is part of
what is written the next time: what is written are sums, not differences.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Protocol

from gateway.clock import now_ms
from gateway.counters import CountersUnavailable
from gateway.counters.traffic import TrafficRow

if TYPE_CHECKING:
    from collections.abc import Mapping

WRITE_INTERVAL_S = 1.0
_NOTHING = TrafficRow()

log = logging.getLogger("tollkeeper.proxy")


class RouteTraffic:
    """Sums of one route since this worker's start."""

    __slots__ = ("calls", "denials", "microcredits")

    def __init__(self) -> None:
        self.calls = 0  # settled
        self.microcredits = 0  # charged
        self.denials = 0  # refused once the route was known

    def count(self, charged: int) -> None:
        """Add a settled call."""
        self.calls += 1
        self.microcredits += charged


class TrafficStore(Protocol):
    """Where sums are written: `Counters`."""

    async def save_traffic(
        self, worker_id: int, rows: Mapping[int, TrafficRow], now_ms: int
    ) -> bool:
        """Write rows by route; False: everything is to be written again."""


class Traffic:
    """The sums of all routes. `run` tells them."""

    def __init__(self, store: TrafficStore, worker_id: int) -> None:
        self._store = store
        self._worker_id = worker_id
        self._routes: dict[int, RouteTraffic] = {}
        self._told: dict[int, TrafficRow] = {}

    def of(self, route_id: int) -> RouteTraffic:
        """The sums of a route, the same object for as long as this worker lives."""
        return self._routes.setdefault(route_id, RouteTraffic())

    async def run(self) -> None:
        """Write what has changed, every second, until cancelled."""
        while True:
            try:
                await self.write()
            except CountersUnavailable:
                pass  # the log has enough of it already
            except Exception:
                log.exception("what the routes' traffic is could not be told")
            await asyncio.sleep(WRITE_INTERVAL_S)

    async def write(self) -> None:
        """Write what has changed. Raises: CountersUnavailable."""
        changed = {}
        for route_id, sums in self._routes.items():
            row = TrafficRow(sums.calls, sums.microcredits, sums.denials)
            if row != self._told.get(route_id, _NOTHING):
                changed[route_id] = row
        if await self._store.save_traffic(self._worker_id, changed, now_ms()):
            self._told.update(changed)
        else:
            self._told.clear()  # what was written now is there, but nothing from before
