"""Starts servers where none are given, runs simulations, tells how they went.

Each simulation is a process of its own: what it replaces in the product is never put back.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from gateway.ledger.migrate import migrate
from tests.simulation import sabotage
from tests.simulation.scenario import Simulation
from tests.support import servers

if TYPE_CHECKING:
    import argparse

CLEAN = re.compile(r"is clean after (\d+) steps")


def run_on_new_servers(arguments: argparse.Namespace, passed_on: list[str]) -> bool:
    """So many simulations, one after the other; whether all were clean."""
    with TemporaryDirectory(prefix="simulation-") as home, asyncio.Runner() as runner:
        stack = AsyncExitStack()
        redis_url, postgres = runner.run(_start_servers(stack, Path(home)))
        try:
            steps, failed = 0, []
            for seed in range(arguments.seed, arguments.seed + arguments.count):
                postgres_url = runner.run(_new_database(postgres))
                where = ["--redis", redis_url, "--postgres", postgres_url, "--seed", str(seed)]
                done = _run_apart([*passed_on, *where])
                steps += done
                failed += [seed] * (not done)
                runner.run(servers.drop_database(postgres_url, postgres))
            if arguments.count > 1:
                tell(f"simulation: {steps} clean steps; seeds that failed: {failed or 'none'}")
        finally:
            runner.run(stack.aclose())
    return not failed


def _run_apart(arguments: list[str]) -> int:
    """One simulation in a process of its own; its steps, 0 if it failed."""
    command = [sys.executable, "-m", "tests.simulation", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        steps = 0
        for line in process.stdout:
            tell(line.rstrip("\n"))
            if match := CLEAN.search(line):
                steps = int(match[1])
    return steps if process.returncode == 0 else 0


async def _start_servers(stack: AsyncExitStack, home: Path) -> tuple[str, str]:
    redis_url = await stack.enter_async_context(servers.redis_server(home / "redis"))
    postgres_url = await stack.enter_async_context(servers.postgres_server(home / "postgres"))
    await servers.administer(postgres_url, f"CREATE DATABASE {servers.TEMPLATE}")
    await migrate(servers.database_url(postgres_url, servers.TEMPLATE))
    return redis_url, postgres_url


async def _new_database(server_url: str) -> str:
    return await servers.create_database(server_url, servers.TEMPLATE)


def simulate(arguments: argparse.Namespace) -> None:
    """One simulation, in this process; prints its seed first, and on failure the last steps."""
    seed = arguments.seed
    tell(f"simulation: seed {seed}, {arguments.steps} steps")
    began = time.perf_counter()
    edit_script = sabotage.commit(arguments.sabotage)
    simulation = Simulation(
        seed, arguments.redis, arguments.postgres, edit_script, harsh=arguments.harsh
    )
    world = simulation.world
    try:
        simulation.prepare()
        simulation.run(arguments.steps)
    except BaseException as failure:
        tell("\n".join(list(world.trace)[-arguments.lines :]))
        tell(f"\nsimulation: seed {seed} failed at step {world.steps}: {failure}")
        raise
    finally:
        world.close()
    if arguments.trace:
        tell("\n".join(world.trace))
    took_s = time.perf_counter() - began
    counts = ", ".join(f"{name} {count}" for name, count in sorted(world.model.counts.items()))
    tell(
        f"simulation: seed {seed} is clean after {world.steps} steps in {took_s:.1f} s; "
        f"trace {world.fingerprint()}; {counts}"
    )


def tell(text: str) -> None:
    """To whoever ran it."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
