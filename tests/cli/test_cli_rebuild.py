"""`tollkeeper rebuild`: what people ask for, and what they are asked."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from typer.testing import CliRunner

from gateway.cli.app import app
from tests.support.deployment import running_deployment

if TYPE_CHECKING:
    from tests.cli.conftest import CommandLine


async def test_an_account_s_shard_is_rebuilt_with_its_running_calls(
    cli: CommandLine, clean_redis_url: str, postgres_url: str
) -> None:
    async with running_deployment(clean_redis_url, postgres_url) as deployment:
        alice = await deployment.caller("alice")
        call_id = await deployment.hold(alice)
        await deployment.call(alice)

        document = await cli.json("rebuild", "--account", "alice", "--yes")

        shard = alice.keys.shard
        assert document == {
            "shards": [{"shard": shard, "epoch": 2, "accounts": 1, "calls": 1, "silent_workers": 0}]
        }
        assert await deployment.counters.meta(shard) == (2, 1)
        assert list(await deployment.counters.live_holds(shard)) == [call_id]
        assert len(await deployment.ledger.settlements(alice.account.account_id, limit=9)) == 1


async def test_all_are_those_in_use(
    cli: CommandLine, clean_redis_url: str, postgres_url: str
) -> None:
    async with running_deployment(clean_redis_url, postgres_url) as deployment:
        alice = await deployment.caller("alice")
        await deployment.call(alice)
        rows = (await cli.json("rebuild", "--all", "--yes"))["shards"]
        assert [row["shard"] for row in rows] == [alice.keys.shard]


async def test_it_asks_before_it_does_anything(
    cli: CommandLine, clean_redis_url: str, postgres_url: str
) -> None:
    async with running_deployment(clean_redis_url, postgres_url) as deployment:
        alice = await deployment.caller("alice")
        await deployment.call(alice)
        where = ["--config", str(cli.config), "--data-dir", str(cli.data_dir)]
        words = ["rebuild", "--shard", str(alice.keys.shard), *where]

        answer = await asyncio.to_thread(CliRunner().invoke, app, words, input="n\n")
        assert answer.exit_code == 1
        assert "refused meanwhile" in answer.stderr
        assert (await deployment.counters.meta(alice.keys.shard))[0] == 1

        answer = await asyncio.to_thread(CliRunner().invoke, app, words, input="y\n")
        assert answer.exit_code == 0
        assert (await deployment.counters.meta(alice.keys.shard))[0] == 2


async def test_one_way_of_choosing_is_asked_for(cli: CommandLine) -> None:
    for words in ([], ["--all", "--shard", "1"], ["--account", "alice", "--all"]):
        answer = await cli("rebuild", *words, "--yes")
        assert answer.code == 2
        assert "--shard, --account and --all" in answer.err


async def test_a_shard_that_there_is_not_is_refused(
    cli: CommandLine, clean_redis_url: str, postgres_url: str
) -> None:
    async with running_deployment(clean_redis_url, postgres_url):
        answer = await cli("rebuild", "--shard", "4", "--yes")
    assert answer.code == 2
    assert "there are 4 shards, 0 to 3" in answer.err
