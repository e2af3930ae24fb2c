"""What the seeding script makes is as true as what calls would have left, and can be read."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import asyncpg
import pytest

from gateway.ledger import Ledger
from tests.support.settlements import assert_books_agree

LOADTESTS = Path(__file__).parents[2] / "loadtests"
SIZE = {"accounts": 7, "keys": 40, "settlements": 3_000, "routes": 3, "days": 40}


async def run(script: str, *arguments: str) -> tuple[int | None, str]:
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        LOADTESTS / script,
        *arguments,
        cwd=LOADTESTS.parent,
        env={"PYTHONPATH": str(LOADTESTS.parent), "PATH": ""},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await child.communicate()
    return child.returncode, output.decode()


async def seeded(url: str, slug: str) -> dict[str, int]:
    sizes = [f"--{name}={value}" for name, value in SIZE.items()]
    code, output = await run("seed.py", url, "--platform", slug, *sizes)
    assert code == 0, output
    return dict(json.loads(output.splitlines()[-1]))


async def test_seeded_books_agree_and_have_what_was_asked_for(postgres_url: str) -> None:
    done = await seeded(postgres_url, "one")
    await seeded(postgres_url, "two")

    async with Ledger(postgres_url) as ledger:
        await assert_books_agree(ledger)
        platform_id = done["platform_id"]
        assert len(await ledger.accounts(platform_id)) == SIZE["accounts"]
        used = await ledger.usage_of_platform(platform_id, 0)
        assert used.calls == SIZE["settlements"]
        assert used.charged_microcredits > 0
    connection = await asyncpg.connect(postgres_url)
    facts = await connection.fetchrow(
        "SELECT (SELECT count(*) FROM api_keys WHERE platform_id = $1),"
        " (SELECT count(DISTINCT key_id) > 20 FROM settlements WHERE platform_id = $1),"
        " (SELECT count(*) FROM settlements WHERE settled_at < admitted_at OR settled_at > now()),"
        " (SELECT max(settled_at) - min(settled_at) > interval '39 days' FROM settlements),"
        " (SELECT count(*) FROM settlements_default)",
        done["platform_id"],
    )
    await connection.close()
    assert tuple(facts) == (SIZE["keys"], True, 0, True, 0)


async def test_a_platform_is_seeded_once(postgres_url: str) -> None:
    await seeded(postgres_url, "one")
    code, output = await run("seed.py", postgres_url, "--platform", "one", "--settlements", "10")
    assert code == 1
    assert "name a new one" in output


@pytest.mark.parametrize("how", ["time", "explain"])
async def test_what_is_seeded_can_be_read_in_every_way(postgres_url: str, how: str) -> None:
    await seeded(postgres_url, "one")
    options = ["--explain"] if how == "explain" else ["--requests", "2"]

    code, output = await run("reads.py", postgres_url, "--platform", "one", *options)

    assert "Traceback" not in output
    assert ("p99 of 50 ms and more" in output) == (how == "time")
    if how == "explain":
        assert code == 0
        assert "Index" in output
