"""Redis cut, killed, emptied, set back, torn, full, and robbed of its scripts."""

from __future__ import annotations

import asyncio
from random import Random
from typing import TYPE_CHECKING

import pytest

from tests.faults.clients import Load, Seen, all_ended, came_to
from tests.faults.conftest import scaled
from tests.faults.kinds import FIXED, FIXED_CALL, STREAM_CALL, TOKENS_CALL
from tests.faults.stage import running_stage
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from tests.faults.clients import Caller, Running
    from tests.faults.stage import Stage


async def served(caller: Caller) -> list[Seen]:
    """Call until it passes, as a client does that heeds Retry-After; all that was seen."""
    seen: list[Seen] = []

    async def passes() -> bool:
        seen.append(await caller.call(FIXED_CALL))
        assert seen[-1].status in {200, 503}, str(seen[-1])
        assert seen[-1].status == 200 or seen[-1].retry_after_s is not None
        return seen[-1].went_well

    await eventually(passes)
    return seen


async def streams_of(callers: list[Caller]) -> list[Running]:
    """A stream of each account, in its middle."""
    running = [caller.start(STREAM_CALL, tokens=5, chunks=40, ms=50) for caller in callers]
    for call in running:
        await came_to(call, 5)
    return running


async def epochs(stage: Stage, callers: list[Caller]) -> dict[int, int]:
    """The epochs of these accounts' shards, as Redis has them."""
    shards = {stage.counters.keys(caller.account_id).shard for caller in callers}
    found = {n: await stage.client.hget(f"tk:{{s{n:03d}}}:meta", "epoch") for n in sorted(shards)}
    return {shard: int(epoch or 0) for shard, epoch in found.items()}


async def test_a_connection_cut_after_the_script_ran_takes_nothing_twice(stage: Stage) -> None:
    caller = await stage.caller()
    seen = [await caller.call(FIXED_CALL)]
    scripts = [stage.counters._scripts[name].sha.encode() for name in ("admit", "settle")]
    for number in range(scaled(20, 1_000)):
        stage.wire.lose_reply_to, stage.wire.losses = scripts[number % 2], 1
        seen.append(await caller.call(FIXED_CALL))
        assert stage.wire.losses == 0
    assert await stage.verdict(seen) == []
    charges = [
        one for one in (await stage.charges()).values() if one.account_id == seen[0].account_id
    ]
    assert sum(one.net for one in charges) == FIXED * sum(call.went_well for call in seen)


async def test_calls_get_503_and_no_agent_while_redis_is_away(stage: Stage) -> None:
    callers = [await stage.caller() for _ in range(4)]
    seen = [call for caller in callers for call in await served(caller)]
    running = await streams_of(callers)
    await stage.redis.kill()
    refused = [await caller.call(FIXED_CALL) for caller in callers]
    ended = await all_ended(running)
    await stage.redis.start()
    assert [call.status for call in refused] == [503] * len(callers)
    assert all(call.retry_after_s is not None for call in refused)
    assert all(call.went_well for call in ended), "what runs goes on"
    seen += [call for caller in callers for call in await served(caller)]
    assert await stage.verdict([*seen, *refused, *ended]) == []


async def _restart_empty(stage: Stage) -> None:
    await stage.redis.kill()
    stage.redis.empty()
    await stage.redis.start()


async def _flush(stage: Stage) -> None:
    await stage.client.flushall()


async def _set_back(stage: Stage) -> None:
    await stage.redis.kill()
    stage.redis.put_back(stage.redis.home.with_name("redis.copy"))
    await stage.redis.start()


@pytest.mark.parametrize("lose", [_restart_empty, _flush, _set_back])
async def test_a_redis_that_lost_data_is_rebuilt_with_the_calls_that_run(
    stage: Stage, lose: object
) -> None:
    callers = [await stage.caller() for _ in range(8)]
    stage.redis.keep_copy()
    seen = [call for caller in callers for call in await served(caller)]
    before = await epochs(stage, callers)
    running = await streams_of(callers)
    await lose(stage)  # type: ignore[operator]
    seen += [call for caller in callers for call in await served(caller)]
    after = await epochs(stage, callers)
    assert all(after[shard] > before[shard] for shard in before)
    holds = await stage.holds()
    assert {await stage.arrived(call.seen) for call in running if not call.task.done()} <= set(
        holds
    )
    assert await stage.audit() == [], "while they run"
    ended = await all_ended(running)
    assert all(call.went_well for call in ended)
    assert await stage.verdict([*seen, *ended]) == []


async def test_a_torn_tail_of_the_log_is_noticed_and_mended(stage: Stage) -> None:
    callers = [await stage.caller() for _ in range(8)]
    random, seen = Random(50), list[Seen]()
    for _ in range(scaled(2, 50)):
        seen += [call for caller in callers for call in await served(caller)]
        running = [caller.start(STREAM_CALL, tokens=5, chunks=10, ms=50) for caller in callers]
        seen += await asyncio.gather(*(caller.call(TOKENS_CALL, tokens=9) for caller in callers))
        await stage.redis.kill()
        log = stage.redis.log_files()[-1]
        size = log.stat().st_size
        torn = random.randint(1, min(size, 12_000))
        with log.open("r+b") as file:
            file.truncate(size - torn)
        await stage.redis.start()
        seen += [call for caller in callers for call in await served(caller)]
        seen += await all_ended(running)
        assert await stage.verdict(seen) == [], f"{torn} of {size} bytes torn off"


async def test_workers_that_race_to_rebuild_seed_each_account_once(
    stage: Stage, tmp_path_factory: pytest.TempPathFactory
) -> None:
    workers = scaled(2, 8)
    if workers == 2:
        await _race(stage)
        return
    async with running_stage(tmp_path_factory.mktemp("race"), workers=workers) as own:
        await _race(own)


async def _race(stage: Stage) -> None:
    callers = [await stage.caller() for _ in range(16)]
    seen = [call for caller in callers for call in await served(caller)]
    for _ in range(scaled(1, 10)):
        before = await epochs(stage, callers)
        await stage.client.flushall()
        seen += await asyncio.gather(*(one.call(FIXED_CALL) for one in callers for _ in range(8)))
        seen += [call for caller in callers for call in await served(caller)]
        after = await epochs(stage, callers)
        assert after == {shard: epoch + 1 for shard, epoch in before.items()}, "one rebuild each"
    assert await stage.verdict(seen) == []


async def test_a_full_redis_takes_no_new_calls_and_settles_the_old(stage: Stage) -> None:
    callers = [await stage.caller() for _ in range(4)]
    seen = [call for caller in callers for call in await served(caller)]
    running = await streams_of(callers)
    await stage.client.config_set("maxmemory", "1mb")
    try:
        refused = [await caller.call(FIXED_CALL) for caller in callers]
        ended = await all_ended(running)
        left = await stage.left()
    finally:
        await stage.client.config_set("maxmemory", "0")
    assert [call.status for call in refused] == [503] * len(callers)
    assert all(call.retry_after_s is not None for call in refused)
    assert all(call.went_well for call in ended)
    assert (left.holds, left.late) == (0, 0), "they are settled in Redis itself"
    assert (await stage.client.info("stats"))["evicted_keys"] == 0
    seen += [call for caller in callers for call in await served(caller)]
    assert await stage.verdict([*seen, *refused, *ended]) == []


async def test_no_client_sees_that_redis_forgets_its_scripts(stage: Stage) -> None:
    callers = [await stage.caller() for _ in range(4)]
    load = Load(callers, Random(11), clients=8)
    load.start()
    for _ in range(scaled(10, 200)):
        await asyncio.sleep(0.1)
        await stage.client.script_flush()
    seen = await load.stop()
    assert [str(call) for call in seen if not call.in_order] == []
    assert await stage.verdict(seen) == []
