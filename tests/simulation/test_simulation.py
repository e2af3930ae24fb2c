"""A short run of some seeds, and of one that nobody has seen; `make simulation` runs more.

A failure prints its seed: `python -m tests.simulation --seed N` does the same again.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from gateway.ledger.migrate import migrate

ROOT = Path(__file__).parents[2]
STEPS = 1_500
# Chosen for what happens in them: see README.md.
SEEDS = ("4", "11", "12")
DEADLINE_S = 300


async def run(redis_url: str, postgres_url: str, *arguments: str) -> tuple[int, str]:
    """Exit code and output of a simulation."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.simulation", "--redis", redis_url),
        *("--postgres", postgres_url, *arguments),
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "0"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(DEADLINE_S):
        output, _ = await process.communicate()
    return process.returncode or 0, output.decode()


@pytest.mark.parametrize("seed", [*SEEDS, "fresh"])
async def test_credits_are_kept_whatever_breaks_when(
    seed: str, clean_redis_url: str, postgres_url: str
) -> None:
    chosen = [] if seed == "fresh" else ["--seed", seed]
    code, output = await run(clean_redis_url, postgres_url, "--steps", str(STEPS), *chosen)
    assert code == 0, output


async def test_the_simulation_finds_a_product_that_was_broken_on_purpose(
    clean_redis_url: str, postgres_url: str
) -> None:
    code, output = await run(
        clean_redis_url, postgres_url, "--seed", "1", "--sabotage", "withdrawals-forget-w"
    )
    assert code != 0
    assert "I1" in output


async def test_a_seed_gives_the_same_steps_again(
    clean_redis_url: str, postgres_url: str, blank_postgres_url: str
) -> None:
    await migrate(blank_postgres_url)
    traces = []
    for url in (postgres_url, blank_postgres_url):
        code, output = await run(clean_redis_url, url, "--seed", "7", "--steps", "200")
        assert code == 0, output
        traces.append(output.partition("; trace ")[2].partition(";")[0])
    assert traces[0]
    assert traces[0] == traces[1]
