"""A script whose outcome is uncertain never takes effect twice, and never leaves credits behind."""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING, Any

import pytest
import uvloop

from gateway.counters import Counters, CountersUnavailable
from policies.decision import Admitted, HoldGone, NotLoaded, Settled, ShardLost
from tests.support.shards import outbox_of, state
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.faulty_redis import FaultyWire, OwnRedis

CREDITS = 1_000_000


def new_id() -> str:
    return uuid.uuid4().hex


async def outbox_calls(account: Any) -> list[str]:
    return [row.call_id for row in await outbox_of(account.counters, account.keys.shard)]


async def test_an_admit_whose_reply_was_lost_holds_once(
    wired_account: Any, wire: FaultyWire, call_id: str
) -> None:
    wire.lose_reply_to = call_id.encode()
    admitted = await wired_account.admit(call_id)
    assert isinstance(admitted, Admitted)
    assert admitted.remaining == CREDITS - 1000
    assert wire.losses == 0
    assert await wired_account.lot() == (CREDITS - 1000, 1000, 0)


async def test_a_settle_whose_reply_was_lost_charges_once(
    wired_account: Any, wire: FaultyWire, call_id: str
) -> None:
    await wired_account.admit(call_id)
    wire.lose_reply_to = call_id.encode()
    settled = await wired_account.settle(call_id)
    assert isinstance(settled, Settled)
    assert settled.charged == 700
    assert wire.losses == 0
    assert await wired_account.lot() == (CREDITS - 700, 0, 700)
    assert await outbox_calls(wired_account) == [call_id]


async def test_a_script_is_sent_twice_at_most_and_then_given_back(
    wired_account: Any, wire: FaultyWire, call_id: str
) -> None:
    wire.lose_reply_to, wire.losses = call_id.encode(), 2
    with pytest.raises(CountersUnavailable):
        await wired_account.admit(call_id)
    assert wire.losses == 0

    async def given_back() -> bool:
        return bool(await wired_account.lot() == (CREDITS, 0, 0))

    assert await eventually(given_back, unless=(CountersUnavailable,))


async def test_a_forced_load_is_never_sent_twice(wired_account: Any, wire: FaultyWire) -> None:
    fields = state(5, lots="77")
    wire.lose_reply_to, wire.losses = b"a:77", 2
    with pytest.raises(CountersUnavailable):
        await wired_account.counters.load(wired_account.keys, fields, force=True)
    assert wire.losses == 1


async def test_an_opening_is_never_sent_twice(wired_account: Any, wire: FaultyWire) -> None:
    """A server that was restarted meanwhile has closed the shard again, under the same epoch."""
    counters, shard = wired_account.counters, wired_account.keys.shard
    assert await counters.close_shard(shard, 2, 1)
    wire.lose_reply_to, wire.losses = b":oldleases", 2
    with pytest.raises(CountersUnavailable):
        await counters.open_shard(shard, 2)
    assert wire.losses == 1


async def test_an_admit_that_passed_its_deadline_holds_nothing_afterwards(
    own_account: Any, own_redis: OwnRedis, call_id: str
) -> None:
    own_redis.stop()
    with pytest.raises(CountersUnavailable):
        await own_account.admit(call_id)
    own_redis.resume()

    async def given_back() -> bool:
        snapshot = await own_account.counters.inspect(own_account.keys)
        # seq: opened, the load, the admit, its void
        return bool(snapshot.seq == 4 and not snapshot.holds)

    assert await eventually(given_back, unless=(CountersUnavailable,))
    assert await own_account.lot() == (CREDITS, 0, 0)


async def test_an_admit_that_its_caller_left_holds_nothing_afterwards(account: Any) -> None:
    tasks = [asyncio.ensure_future(account.admit(new_id())) for _ in range(20)]
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    assert all(
        isinstance(r, BaseException) for r in await asyncio.gather(*tasks, return_exceptions=True)
    )

    async def given_back() -> bool:
        snapshot = await account.counters.inspect(account.keys)
        return bool(snapshot.seq == 42 and not snapshot.holds)

    assert await eventually(given_back)
    assert await account.lot() == (CREDITS, 0, 0)


async def test_a_settle_that_its_caller_left_is_settled(account: Any, call_id: str) -> None:
    await account.admit(call_id)
    task = asyncio.ensure_future(account.settle(call_id))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])

    async def settled() -> bool:
        return await outbox_calls(account) == [call_id]

    assert await eventually(settled)


async def test_scripts_that_the_server_forgot_are_run_once(account: Any) -> None:
    ids = [new_id() for _ in range(300)]

    async def call(each: str) -> None:
        assert isinstance(await account.admit(each), Admitted)
        assert isinstance(await account.settle(each), Settled)

    async def forget() -> None:
        for _ in range(20):
            await account.counters.command("SCRIPT", "FLUSH")

    await asyncio.gather(*(call(each) for each in ids), forget())
    assert await account.lot() == (CREDITS - 300 * 700, 0, 300 * 700)
    assert sorted(await outbox_calls(account)) == sorted(ids)


async def test_a_call_goes_on_after_the_server_was_killed_and_came_back(
    own_account: Any, own_redis: OwnRedis, call_id: str
) -> None:
    admitted = await own_account.admit(call_id)
    own_redis.kill()
    with pytest.raises(CountersUnavailable):
        await own_account.settle(call_id)
    await own_redis.start()

    async def settled() -> Any:
        return await own_account.settle(call_id)

    outcome = await eventually(settled, unless=(CountersUnavailable,))
    assert outcome.admitted_ms == admitted.admitted_ms
    assert await own_account.lot() == (CREDITS - 700, 0, 700)
    assert await outbox_calls(own_account) == [call_id]


async def test_lost_data_is_noticed_by_the_next_call(account: Any, call_id: str) -> None:
    counters, shard = account.counters, account.keys.shard
    await account.admit(call_id)
    await counters.command("HSET", f"tk:{{s{shard:03d}}}:meta", "seq", 1)
    assert await account.admit(new_id()) == ShardLost("REGRESSED", 1, 1)
    assert await account.settle(call_id) == ShardLost("REGRESSED", 1, 1)
    await counters.command("FLUSHALL")
    assert await account.settle(call_id) == ShardLost("STALE", 0, 0)
    assert await counters.close_shard(shard, 2, 0)
    assert await counters.open_shard(shard, 2)
    assert await account.settle(call_id) == HoldGone()
    assert await account.admit(new_id()) == NotLoaded(2, 1)


async def test_a_shard_that_another_process_opened_again_is_adopted(
    account: Any, clean_redis_url: str, call_id: str
) -> None:
    shard = account.keys.shard
    async with Counters(clean_redis_url, shards=64) as other:
        await other.close_shard(shard, 3, 1)
        await other.open_shard(shard, 3)
    lost = await account.admit(call_id)
    assert lost == ShardLost("STALE", 3, 1)
    account.counters.adopt(shard, lost.epoch)
    assert await account.admit(call_id) == NotLoaded(3, 1)
    account.counters.adopt(shard, 2)
    assert await account.admit(call_id) == NotLoaded(3, 1)


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
async def test_credits_are_conserved_while_connections_are_cut_under_load(
    own_account: Any, own_redis: OwnRedis, run: Callable[[Any], Any]
) -> None:
    """Also on the event loop of production, which a thread of its own runs here."""
    ended = await asyncio.to_thread(lambda: run(cut_under_load(own_redis, own_account)))

    async def settled_rows() -> Any:  # the last cut hit this connection, too
        return await outbox_of(own_account.counters, own_account.keys.shard)

    rows = await eventually(settled_rows, unless=(CountersUnavailable,))
    charged = {row.call_id: row.charged_microcredits for row in rows}
    assert len(charged) == len(rows)
    assert ended <= charged.keys()

    async def quiet() -> bool:
        snapshot = await own_account.counters.inspect(own_account.keys)
        available, held, settled = await own_account.lot()
        live = sum(int(text.split("|")[3]) for text in snapshot.holds.values())
        return bool(available + held + settled == CREDITS and held == live)

    assert await quiet()
    assert (await own_account.lot())[2] == sum(charged.values())


async def cut_under_load(server: OwnRedis, model: Any) -> set[str]:
    """The calls that were told that they are settled."""
    told: set[str] = set()
    async with Counters(server.url, shards=64, deadline_ms=10_000) as counters:
        account = type(model)(counters)

        async def calls() -> None:
            for _ in range(25):
                each = new_id()
                try:
                    if isinstance(await account.admit(each), Admitted):
                        await account.settle(each)
                        told.add(each)
                except CountersUnavailable:
                    pass

        async def cuts() -> None:
            async with Counters(server.url, shards=64) as other:
                for _ in range(10):
                    await other.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
                    await asyncio.sleep(0.005)

        await asyncio.gather(cuts(), *(calls() for _ in range(30)))
    return told
