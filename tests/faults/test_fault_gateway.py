"""Workers that are killed, frozen and stopped, at every step of a call."""

from __future__ import annotations

import asyncio
import signal
from random import Random
from typing import TYPE_CHECKING

from tests.faults.clients import Load, all_ended, came_to
from tests.faults.kinds import (
    CONNECT_CALL,
    CREDIT,
    FIXED,
    FIXED_CALL,
    PER_REQUEST,
    STREAM_CALL,
    TOKENS_CALL,
)
from tests.faults.processes import send_signal
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from tests.faults.stage import Stage

A_MINUTE_MS = 60_000


async def kill_workers(stage: Stage) -> None:
    """SIGKILL to all workers at once; the supervisor starts others."""
    pids = await stage.gateway.worker_pids()
    for pid in pids:
        send_signal(pid, signal.SIGKILL)
    await stage.gateway.all_ready(but=pids)


async def test_calls_of_a_killed_worker_end_as_their_stage_says(stage: Stage) -> None:
    caller = await stage.caller()
    connecting = caller.start(CONNECT_CALL)
    fixed = caller.start(FIXED_CALL, ms=A_MINUTE_MS)
    metered = caller.start(TOKENS_CALL, tokens=50, ms=A_MINUTE_MS)
    stream = caller.start(STREAM_CALL, tokens=5, chunks=100, ms=50)
    calls = [connecting, fixed, metered, stream]
    await stage.held(caller.account_id, len(calls))
    ids = [await stage.arrived(call.seen) for call in calls[1:]]
    await eventually(lambda: _has_checkpoint(stage, ids[2]))
    await kill_workers(stage)
    seen = await all_ended(calls)

    assert await stage.verdict(seen) == []
    charges = await stage.charges()
    ours = {number for number, one in charges.items() if one.account_id == caller.account_id}
    assert ours == set(ids), "what was not sent on leaves no settlement"
    assert [charges[number].ending for number in ids] == ["unknown"] * 3
    assert [charges[number].net for number in ids[:2]] == [FIXED, PER_REQUEST]
    assert PER_REQUEST < charges[ids[2]].net <= STREAM_CALL.checkpoint(seen[3].tokens_read + 5)
    charged = sum(charges[number].net for number in ids)
    (grant_id,) = caller.grant_ids
    assert int((await stage.account(caller))[f"a:{grant_id}"]) == 100_000 * CREDIT - charged


async def test_what_was_settled_before_the_worker_died_is_charged_exactly_once(
    stage: Stage,
) -> None:
    caller = await stage.caller()
    warming = await caller.call(TOKENS_CALL, tokens=41)
    settle = stage.counters._scripts["settle"].sha.encode()

    # The settlement ran, and the worker dies before its client has the end of the answer.
    stage.wire.hold_reply_to = settle
    first = caller.start(TOKENS_CALL, tokens=42)
    await stage.wire.held.wait()
    await kill_workers(stage)
    stage.wire.heal()

    # Postgres has the settlement, and the worker dies before it deletes the outbox entry.
    stage.wire.hold_request = stage.counters._scripts["acknowledge"].sha.encode()
    second = caller.start(TOKENS_CALL, tokens=43)
    await second.ended()
    await stage.wire.held.wait()
    await kill_workers(stage)
    stage.wire.heal()

    seen = await all_ended([first, second])
    assert not seen[0].complete
    assert seen[1].went_well
    assert await stage.verdict([warming, *seen]) == []
    for call in seen:
        charge = await stage.charge(await stage.arrived(call))
        assert charge is not None
        assert charge.rows == 1
        assert charge.ending == "completed"
        assert charge.net == TOKENS_CALL.cost(call.tokens)


async def test_a_worker_that_slept_past_its_lease_settles_its_call_once(stage: Stage) -> None:
    caller = await stage.caller()
    stream = caller.start(STREAM_CALL, tokens=5, chunks=40, ms=50)
    await came_to(stream, 25)
    call_id = await stage.arrived(stream.seen)
    pids = await stage.gateway.worker_pids()
    for pid in pids:
        send_signal(pid, signal.SIGSTOP)
    try:
        await eventually(lambda: _expired(stage, call_id))
    finally:
        for pid in pids:
            send_signal(pid, signal.SIGCONT)
    seen = await stream.ended()
    assert seen.went_well
    assert await stage.verdict([seen]) == []
    charge = await stage.charge(call_id)
    assert charge is not None
    assert (charge.rows, charge.net) == (1, STREAM_CALL.cost(seen.tokens))


async def _has_checkpoint(stage: Stage, call_id: str) -> bool:
    due = (await stage.holds())[call_id].split("|")[4]
    return int(due) > PER_REQUEST


async def _expired(stage: Stage, call_id: str) -> bool:
    return call_id not in await stage.holds()


async def test_no_call_fails_while_workers_are_replaced_one_after_the_other(stage: Stage) -> None:
    callers = [await stage.caller() for _ in range(4)]
    long = callers[0].start(STREAM_CALL, tokens=5, chunks=40, ms=50)
    load = Load(callers, Random(7), clients=8)
    await came_to(long, 5)
    load.start()
    for pid in await stage.gateway.worker_pids():
        send_signal(pid, signal.SIGTERM)
        await stage.gateway.all_ready(but=[pid])
        await asyncio.sleep(0.2)
    seen = [*await load.stop(), await long.ended()]
    assert [str(call) for call in seen if not call.in_order] == []
    assert await stage.verdict(seen) == []
    charges = (await stage.charges()).values()
    ours = {caller.account_id for caller in callers}
    assert [one for one in charges if one.ending == "unknown" and one.account_id in ours] == []
