"""The product's processes as they stand on the simulation's stage.

A worker is what `gateway.app.run_worker` builds, without its listening socket: calls are made on
its parts directly (callers.py). The node is the jobs of `gateway.node`, and an operator's desk.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from gateway import node
from gateway.app import WorkerSettings, run_worker
from gateway.config import GatewayConfig
from gateway.control.metrics import Metrics
from gateway.counters import Counters, CountersUnavailable
from gateway.ledger import Ledger, LedgerUnavailable
from gateway.operations.lost_shards import seeing_to_shards
from gateway.recovery.watermarks import Watermarks

if TYPE_CHECKING:
    from gateway.proxy.admission import Admission
    from gateway.proxy.authenticate import Authenticator
    from gateway.proxy.offers import Offer
    from gateway.proxy.settle import Settler
    from gateway.proxy.trust import Trust
    from tests.simulation.virtual_loop import Process
    from tests.simulation.world import World

PEPPER = b"pepper of the simulation"
SHARDS = 3
START_FAILURES = (LedgerUnavailable, CountersUnavailable)
RESTART_S = 1.0


class Stage:
    """What every process is started with."""

    def __init__(self, world: World, lease_s: int) -> None:
        self.world = world
        # Nobody dials these: the same names in every run make the same traces.
        self.config = GatewayConfig(
            redis_url="redis://redis",
            postgres_url="postgresql://postgres",
            shards=SHARDS,
            lease_s=lease_s,
        )
        self.settings = WorkerSettings(gateway=self.config, pepper=PEPPER)


class Worker:
    """One worker process."""

    def __init__(self, stage: Stage, process: Process) -> None:
        self.stage = stage
        self.process = process
        self._proxy: Any = None

    async def run(self) -> None:
        """Start, again and again if need be, and be there until killed."""
        while True:
            try:
                async with run_worker(self.stage.settings) as inner:
                    self._proxy = inner._proxy
                    self.stage.world.say(f"{self.process} is ready")
                    await asyncio.get_running_loop().create_future()
            except START_FAILURES as failure:
                self.stage.world.say(f"{self.process} can't start: {failure}")
            await asyncio.sleep(RESTART_S)

    @property
    def ready(self) -> bool:
        """Whether it has started, and is not dead or stopped."""
        return self._proxy is not None and self.process.runs

    # Its parts, as its handler uses them.

    def unready(self) -> str | None:
        """Why it takes no calls."""
        why: str | None = self._proxy._unready()
        return why

    @property
    def authenticator(self) -> Authenticator:
        """Who is calling."""
        authenticator: Authenticator = self._proxy._authenticator
        return authenticator

    @property
    def admission(self) -> Admission:
        """Takes holds."""
        admission: Admission = self._proxy._admission
        return admission

    @property
    def counters(self) -> Counters:
        """Redis, as this worker sees it."""
        return self.admission._counters

    @property
    def calls(self) -> dict[str, Any]:
        """The registry of live calls."""
        calls: dict[str, Any] = self._proxy._calls
        return calls

    @property
    def settler(self) -> Settler:
        """Ends holds."""
        settler: Settler = self._proxy._tools.settler
        return settler

    @property
    def trust(self) -> Trust:
        """Runs calls without holds."""
        trust: Trust = self._proxy._trust
        return trust

    async def mark(self, call: Any) -> None:
        """Note that a call is sent on."""
        await self._proxy._tools.mark(call)

    def knows(self, call_id: str) -> bool:
        """Whether a call is still among its live ones."""
        if self._proxy is None:
            return False
        return call_id in self.calls or call_id in self.trust._late._kept

    def seen(self, shard: int) -> tuple[int, int]:
        """The newest epoch and seq of a shard that this worker knows."""
        return self.counters.seen(shard)

    def offer(self, platform_id: int, name: str) -> Offer:
        """A route as this worker offers it."""
        offer: Offer = self._proxy.offers[platform_id].find("POST", f"/{name}")
        return offer


class Node:
    """The jobs of a node, and its connections for people's commands."""

    def __init__(self, stage: Stage, process: Process) -> None:
        self.stage = stage
        self.process = process
        self.ledger: Ledger | None = None
        self.counters: Counters | None = None

    async def run(self) -> None:
        """Start, again and again if need be, and be there until killed."""
        while True:
            try:
                await self._run()
            except START_FAILURES as failure:
                self.stage.world.say(f"{self.process} can't start: {failure}")
            await asyncio.sleep(RESTART_S)

    async def _run(self) -> None:
        """What `running_node` starts, but for the control plane."""
        config = self.stage.config
        async with (
            Ledger(config.postgres_url, connections_max=node.POSTGRES_CONNECTIONS_MAX) as ledger,
            Counters(
                config.redis_url, shards=config.shards, deadline_ms=node.COUNTERS_DEADLINE_MS
            ) as counters,
        ):
            watermarks = Watermarks(counters, ledger)
            await watermarks.start()
            async with seeing_to_shards(ledger, counters, lease_s=config.lease_s) as shards:
                jobs = node._jobs(ledger, counters, shards, Metrics())
                await self._work([watermarks, *jobs], ledger, counters)

    async def _work(self, jobs: list[Any], ledger: Ledger, counters: Counters) -> None:
        async with node._running(jobs):
            self.ledger, self.counters = ledger, counters
            self.stage.world.say(f"{self.process} is ready")
            await asyncio.get_running_loop().create_future()

    @property
    def ready(self) -> bool:
        """Whether commands may come."""
        return self.counters is not None and self.process.runs
