"""A server that was restarted is not believed: its last writes may be lost, whoever wrote them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest_asyncio

from gateway.counters import Counters
from policies.decision import Admitted, ShardLost
from tests.counters.conftest import PATIENT_MS, SHARDS, Account
from tests.support.faulty_redis import FaultyWire
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.faulty_redis import OwnRedis


@pytest_asyncio.fixture
async def account(own_redis: OwnRedis) -> AsyncIterator[Account]:
    """Through counters that guard the shards."""
    async with Counters(
        own_redis.url, shards=SHARDS, deadline_ms=PATIENT_MS, guards=True
    ) as counters:
        one = Account(counters)
        await one.seed()
        yield one


async def restarted(redis: OwnRedis, *accounts: Account) -> None:
    """The same server again, with the same data, and these connected to it."""
    runs = [account.counters._link.run for account in accounts]
    redis.kill()
    await redis.start()
    for account, run in zip(accounts, runs, strict=True):
        link = account.counters._link
        await eventually(lambda link=link, run=run: link.run != run and link._wire is not None)


async def test_a_shard_is_closed_when_its_server_was_restarted(
    account: Account, own_redis: OwnRedis, call_id: str
) -> None:
    assert isinstance(await account.admit("a" * 32), Admitted)
    await restarted(own_redis, account)
    assert await account.admit(call_id) == ShardLost("CLOSED", 1, 0)
    assert await account.counters.meta(account.keys.shard) == (1, None)


async def test_it_is_open_again_after_its_rebuild_and_stays_so_for_all_who_connect(
    account: Account, own_redis: OwnRedis, call_id: str
) -> None:
    await restarted(own_redis, account)
    shard = account.keys.shard
    assert await account.counters.close_shard(shard, 2, 1)
    assert await account.counters.open_shard(shard, 2)
    async with Counters(own_redis.url, shards=SHARDS, guards=True) as other:
        assert await other.meta(shard) == (2, 1)


async def test_a_rebuild_does_not_go_on_where_the_server_was_restarted(
    account: Account, own_redis: OwnRedis
) -> None:
    shard = account.keys.shard
    assert await account.counters.close_shard(shard, 2, 1)
    await restarted(own_redis, account)
    assert not await account.counters.open_shard(shard, 2)
    assert await account.counters.meta(shard) == (0, None)


async def test_a_connection_that_was_only_cut_closes_nothing(
    own_redis: OwnRedis, call_id: str
) -> None:
    async with (
        FaultyWire(own_redis.path) as wire,
        Counters(wire.url, shards=SHARDS, deadline_ms=PATIENT_MS, guards=True) as counters,
    ):
        account = Account(counters)
        await account.seed()
        wire.cut()
        assert isinstance(await account.admit(call_id), Admitted)


async def test_who_does_not_serve_calls_closes_nothing(
    account: Account, own_redis: OwnRedis
) -> None:
    own_redis.kill()
    await account.counters._link.close()
    await own_redis.start()
    async with Counters(own_redis.url, shards=SHARDS) as command:
        assert (await command.meta(account.keys.shard))[1] is not None


async def test_a_server_whose_replication_began_anew_is_rebuilt_once(
    account: Account, own_redis: OwnRedis
) -> None:
    """By a process that connected before, and knows the server by what it said of itself then."""
    shard = account.keys.shard
    await account.counters.command("DEBUG", "CHANGE-REPL-ID")
    async with Counters(own_redis.url, shards=SHARDS, guards=True) as other:
        assert await other.meta(shard) == (1, None)
    assert await account.counters.close_shard(shard, 2, 1)
    assert await account.counters.open_shard(shard, 2)
    async with Counters(own_redis.url, shards=SHARDS, guards=True) as other:
        assert await other.meta(shard) == (2, 1)
