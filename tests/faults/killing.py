"""Kills one component again and again under load, and judges every call that was made meanwhile.

One deployment lives through all of it. A round is a few kills at seeded moments, each after the
deployment has served again; then the load pauses, everything comes to rest, and every call of the
round is judged. Each violation is put to the kills during which its call ran.

The seed decides the calls, the moments and the victims. What the processes were doing at those
moments it can't decide; so a violation comes with the whole evidence of its call.
"""

from __future__ import annotations

import asyncio
import signal
import time
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING

from tests.faults.clients import Load
from tests.faults.kinds import FIXED_CALL
from tests.faults.processes import send_signal
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.faults.clients import Caller, Seen
    from tests.faults.judge import Violation
    from tests.faults.stage import Stage

COMPONENTS = ("gateway", "redis", "postgres")
ACCOUNTS = 8
POOR_CREDITS = 20
CLIENTS = 16
BEFORE_KILL_S_MAX = 1.0
AWAY_S_MAX = 1.0
SERVES_DEADLINE_S = 60.0


@dataclass
class Kill:
    """One kill, and the calls that were under way until the deployment served again."""

    number: int
    victim: str = ""
    killed_s: float = 0.0
    away_s: float = 0.0
    calls: int = 0
    cut: int = 0
    refused: int = 0
    violations: int = 0

    def touches(self, seen: Seen) -> bool:
        """Whether this call was under way meanwhile."""
        return seen.started_s <= self.killed_s + self.away_s and seen.ended_s >= self.killed_s

    def count(self, calls: list[Seen], violations: list[Violation]) -> None:
        """Take what is known of the round's calls."""
        touched = [seen for seen in calls if self.touches(seen)]
        self.calls = len(touched)
        self.cut = sum(seen.cut for seen in touched)
        self.refused = sum(seen.status == 503 for seen in touched)
        self.violations = sum(
            violation.seen is not None and self.touches(violation.seen) for violation in violations
        )

    def __str__(self) -> str:
        verdict = "ok" if not self.violations else f"{self.violations} VIOLATIONS"
        return (
            f"kill {self.number:3} {self.victim:11} away {self.away_s:5.2f} s, {self.calls:3} calls"
            f" under way, {self.cut:2} cut, {self.refused:3} refused: {verdict}"
        )


@dataclass
class Report:
    """A whole run."""

    component: str
    seed: int
    kills: list[Kill] = field(default_factory=list)
    calls: int = 0
    well: int = 0
    cut: int = 0
    refused: int = 0
    unreached: int = 0
    unknown: int = 0
    brink: int = 0
    rest_s: float = 0.0
    took_s: float = 0.0
    violations: list[Violation] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.component}: {len(self.kills)} kills in {self.took_s:.0f} s, {self.calls} calls,"
            f" of which {self.well} went well, {self.cut} were cut, {self.refused} refused with"
            f" 503, {self.unreached} found nobody, {self.unknown} ended unknown, {self.brink} of"
            f" them at the brink; at rest within {self.rest_s:.1f} s; seed {self.seed};"
            f" {len(self.violations)} violations"
        )


class Killing:
    """A run of kills on one stage."""

    def __init__(self, stage: Stage, component: str, seed: int) -> None:
        self.report = Report(component, seed)
        self._stage = stage
        self._random = Random(seed)
        self._load = Load([], Random(seed + 1), clients=CLIENTS)
        self._probes: list[Seen] = []
        self._probing: Caller
        ways: dict[str, tuple[tuple[str, Callable[[], Awaitable[None]]], ...]] = {
            "gateway": (
                ("worker", self._worker),
                ("worker", self._worker),
                ("all workers", self._all_workers),
                ("node", self._node),
            ),
            "redis": (("redis", self._redis),),
            "postgres": (("postgres", self._postgres),),
        }
        self._ways = ways[component]

    async def run(
        self, kills: int, *, together: int, say: Callable[[str], object] = lambda _: None
    ) -> Report:
        """So many kills, `together` of them between two judgements."""
        started_s = time.monotonic()
        self._probing = await self._stage.caller()
        callers = [await self._stage.caller() for _ in range(ACCOUNTS)]
        for first in range(0, kills, together):
            self._load.callers = [*callers, await self._stage.caller(POOR_CREDITS)]
            numbers = range(first + 1, min(first + together, kills) + 1)
            await self._round([Kill(number) for number in numbers], say)
            self.report.took_s = time.monotonic() - started_s
        return self.report

    async def _round(self, kills: list[Kill], say: Callable[[str], object]) -> None:
        report = self.report
        self._load.start()
        for kill in kills:
            await asyncio.sleep(self._random.uniform(0.1, BEFORE_KILL_S_MAX))
            await self._kill(kill)
        calls = await self._load.stop() + self._probes
        self._probes = []
        ended_s = time.monotonic()
        found = await self._stage.verdict(calls)
        violations = [one for one in found if one.rule != "brink" or report.component != "gateway"]
        report.brink += len(found) - len(violations)
        report.rest_s = max(report.rest_s, time.monotonic() - ended_s)
        report.kills += kills
        report.calls += len(calls)
        report.well += sum(seen.in_order for seen in calls)
        report.cut += sum(seen.cut for seen in calls)
        report.refused += sum(seen.status == 503 for seen in calls)
        report.unreached += sum(seen.unreached for seen in calls)
        charges = await self._stage.charges()
        report.unknown += sum(charge.ending == "unknown" for charge in charges.values())
        report.violations += violations
        for kill in kills:
            kill.count(calls, violations)
            say(str(kill))
        for violation in violations:
            say(f"  {violation}")
        self._stage.forget()

    async def _kill(self, kill: Kill) -> None:
        """Kill, restart, and wait until calls pass again."""
        kill.victim, act = self._random.choice(self._ways)
        kill.killed_s = time.time()
        await act()
        await eventually(self._serves, deadline_s=SERVES_DEADLINE_S)
        kill.away_s = time.time() - kill.killed_s

    async def _worker(self) -> None:
        pid = self._random.choice(sorted(await self._stage.gateway.worker_pids()))
        send_signal(pid, signal.SIGKILL)
        await self._stage.gateway.all_ready(but=[pid])

    async def _all_workers(self) -> None:
        pids = await self._stage.gateway.worker_pids()
        for pid in pids:
            send_signal(pid, signal.SIGKILL)
        await self._stage.gateway.all_ready(but=pids)

    async def _node(self) -> None:
        await self._stage.gateway.kill()
        await self._stage.gateway.start()

    async def _redis(self) -> None:
        await self._stage.redis.kill()
        await asyncio.sleep(self._random.uniform(0, AWAY_S_MAX))
        await self._stage.redis.start()

    async def _postgres(self) -> None:
        await self._stage.postgres.kill()
        await asyncio.sleep(self._random.uniform(0, AWAY_S_MAX))
        await self._stage.postgres.start()

    async def _serves(self) -> bool:
        seen = await self._probing.call(FIXED_CALL)
        self._probes.append(seen)
        return seen.went_well
