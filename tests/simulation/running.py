"""Starts servers where none are given, runs one simulation, tells how it went."""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from gateway.ledger.migrate import migrate
from tests.simulation import sabotage
from tests.simulation.scenario import Simulation
from tests.support import servers

if TYPE_CHECKING:
    import argparse
    from pathlib import Path


def run_with_servers(home: Path, arguments: argparse.Namespace, seed: int) -> None:
    """Run on the servers given, or on new ones. Exits with 1 when something is wrong."""
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        redis_url, postgres_url = runner.run(_servers(stack, home, arguments))
        try:
            simulate(redis_url, postgres_url, arguments, seed)
        finally:
            runner.run(stack.aclose())


async def _servers(
    stack: AsyncExitStack, home: Path, arguments: argparse.Namespace
) -> tuple[str, str]:
    redis_url, postgres_url = arguments.redis, arguments.postgres
    if redis_url is None:
        redis_url = await stack.enter_async_context(servers.redis_server(home / "redis"))
    if postgres_url is None:
        server = await stack.enter_async_context(servers.postgres_server(home / "postgres"))
        postgres_url = await servers.create_database(server)
        await migrate(postgres_url)
    return redis_url, postgres_url


def simulate(redis_url: str, postgres_url: str, arguments: argparse.Namespace, seed: int) -> None:
    """One simulation; prints its seed first, and on failure the last steps."""
    tell(f"simulation: seed {seed}, {arguments.steps} steps")
    began = time.perf_counter()
    edit_script = sabotage.commit(arguments.sabotage)
    simulation = Simulation(seed, redis_url, postgres_url, edit_script, harsh=arguments.harsh)
    world = simulation.world
    try:
        simulation.prepare()
        simulation.run(arguments.steps)
    except BaseException:
        tell("\n".join(list(world.trace)[-arguments.lines :]))
        tell(f"\nsimulation: seed {seed} failed at step {world.steps}")
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
