"""Postgres stopped, and killed between a commit and its answer."""

from __future__ import annotations

import asyncio
from random import Random
from typing import TYPE_CHECKING

from tests.faults.clients import Load
from tests.faults.conftest import scaled
from tests.faults.kinds import FIXED_CALL
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from tests.faults.clients import Caller, Seen
    from tests.faults.stage import Stage

# Enough calls, on connections of their own, for every worker to know the key and the account.
WARMING_CALLS = 16


async def known_to_all(caller: Caller) -> list[Seen]:
    """Calls that make the account known to every worker."""
    return await asyncio.gather(*(caller.call(FIXED_CALL) for _ in range(WARMING_CALLS)))


async def test_calls_go_on_while_postgres_is_stopped_and_none_is_lost(stage: Stage) -> None:
    callers = [await stage.caller() for _ in range(4)]
    seen = [call for caller in callers for call in await known_to_all(caller)]
    load = Load(callers, Random(13), clients=8)
    load.start()
    await stage.postgres.stop()
    await asyncio.sleep(scaled(2, 60))
    await stage.postgres.start()
    seen += await load.stop()
    assert [str(call) for call in seen if not call.in_order] == []
    assert await stage.verdict(seen) == []


async def test_a_commit_whose_answer_was_lost_is_not_repeated(stage: Stage) -> None:
    caller = await stage.caller()
    seen = [await caller.call(FIXED_CALL)]
    for _ in range(scaled(1, 10)):
        lost = stage.gate.answers_lost
        running = caller.start(FIXED_CALL, ms=200)
        call_id = await stage.arrived(running.seen)
        stage.gate.lose_next_answer(call_id.encode())
        seen.append(await running.ended())
        await eventually(lambda lost=lost: stage.gate.answers_lost > lost)
        await stage.postgres.kill()
        await stage.postgres.start()
    assert await stage.verdict(seen) == []
    charges = [
        one for one in (await stage.charges()).values() if one.account_id == caller.account_id
    ]
    assert [one.rows for one in charges] == [1] * len(seen)
