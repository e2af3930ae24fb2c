"""Two components dead at once: what RELIABILITY.md says is kept, is kept."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

import pytest

from tests.faults.clients import all_ended
from tests.faults.conftest import FULL
from tests.faults.kinds import FIXED_CALL, STREAM_CALL, TOKENS_CALL
from tests.faults.processes import send_signal
from tests.faults.test_fault_postgres import known_to_all
from tests.faults.test_fault_redis import served, streams_of

if TYPE_CHECKING:
    from tests.faults.stage import Stage

pytestmark = pytest.mark.skipif(not FULL, reason="half a minute: only in `make faults`")


async def kill_workers(stage: Stage) -> list[int]:
    """SIGKILL to all workers, without waiting for others."""
    pids = await stage.gateway.worker_pids()
    for pid in pids:
        send_signal(pid, signal.SIGKILL)
    return pids


async def test_without_postgres_and_then_without_workers_every_settlement_is_kept(
    stage: Stage,
) -> None:
    callers = [await stage.caller() for _ in range(4)]
    seen = [call for caller in callers for call in await known_to_all(caller)]
    await stage.postgres.stop()
    seen += await asyncio.gather(*(one.call(TOKENS_CALL, tokens=33) for one in callers))
    assert all(call.went_well for call in seen)
    await kill_workers(stage)
    await stage.postgres.start()
    await stage.gateway.all_ready()
    assert await stage.verdict(seen) == []


async def test_without_redis_and_postgres_running_calls_end_and_are_charged_what_they_were_told(
    stage: Stage,
) -> None:
    callers = [await stage.caller() for _ in range(4)]
    seen = [call for caller in callers for call in await known_to_all(caller)]
    running = await streams_of(callers)
    await asyncio.gather(stage.redis.kill(), stage.postgres.stop())
    refused = [await caller.call(FIXED_CALL) for caller in callers]
    ended = await all_ended(running)
    assert all(call.went_well for call in ended)
    assert [call.status for call in refused] == [503] * len(callers)
    await asyncio.gather(stage.redis.start(), stage.postgres.start())
    seen += [call for caller in callers for call in await served(caller)]
    assert await stage.verdict([*seen, *refused, *ended]) == []


async def test_without_workers_and_redis_calls_end_by_what_redis_had_of_them(stage: Stage) -> None:
    callers = [await stage.caller() for _ in range(4)]
    seen = [call for caller in callers for call in await served(caller)]
    running = await streams_of(callers)
    fixed = [caller.start(FIXED_CALL, ms=60_000) for caller in callers]
    for call in fixed:
        await stage.arrived(call.seen)
    pids = await kill_workers(stage)
    await stage.redis.kill()
    await stage.redis.start()
    await stage.gateway.all_ready(but=pids)
    cut = await all_ended([*running, *fixed])
    assert await stage.verdict([*seen, *cut]) == []
    charges = await stage.charges()
    assert {charges[await stage.arrived(call)].ending for call in cut} == {"unknown"}


async def test_an_empty_redis_without_postgres_stays_closed_until_there_are_balances_to_read(
    stage: Stage,
) -> None:
    callers = [await stage.caller() for _ in range(4)]
    seen = [call for caller in callers for call in await known_to_all(caller)]
    stream = callers[0].start(STREAM_CALL, tokens=5, chunks=40, ms=50)
    await stage.arrived(stream.seen)
    await stage.postgres.stop()
    await stage.client.flushall()
    refused = [await caller.call(FIXED_CALL) for caller in callers]
    assert [call.status for call in refused] == [503] * len(callers)
    await stage.postgres.start()
    seen += [call for caller in callers for call in await served(caller)]
    assert await stage.verdict([*seen, *refused, await stream.ended()]) == []
