"""Holds whose lease is over are ended, once, whoever died."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from gateway.counters import Counters, CountersUnavailable
from gateway.jobs import reaper as reaper_module
from gateway.jobs import rounds
from gateway.jobs.reaper import Reaper
from gateway.jobs.sweeper import Sweeper
from tests.support.calls import admitted, caller, settled
from tests.support.settlements import assert_books_agree

if TYPE_CHECKING:
    from gateway.ledger import Ledger

SHARDS = 8
OVER_MS = 1  # a lease that is over as soon as anybody looks


async def overdue(counters: Counters, shard: int, count: int) -> None:
    """Return when so many holds are overdue by Redis' clock."""
    async with asyncio.timeout(20):
        while len(await counters.overdue(shard, 1_000)) < count:
            pass  # each look is a round trip to Redis


async def test_the_holds_of_the_dead_end_at_their_floor_and_reach_postgres(
    ledger: Ledger, counters: Counters, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reaper_module, "PAGE_HOLDS_MAX", 2)
    who = await caller(ledger, counters, 1_000)
    for floor in (0, 3, 5, 7, 11):
        await admitted(counters, who, 60, lease_ms=OVER_MS, floor=floor)
    alive = await admitted(counters, who, 60)
    await overdue(counters, who.keys.shard, 5)

    assert await Reaper(counters, SHARDS).reap() == 5
    assert await Reaper(counters, SHARDS).reap() == 0

    seen = await counters.inspect(who.keys)
    (grant,) = who.grants
    assert seen.fields[f"h:{grant}"] == "60", "the living call keeps its hold"
    assert seen.fields[f"s:{grant}"] == "26"
    assert seen.fields["running"] == "1"
    assert await Sweeper(counters, ledger, SHARDS, older_than_ms=0).sweep() == 5
    rows = await ledger.settlements(who.account_id, limit=10)
    assert {row.ending for row in rows} == {"unknown"}
    assert sorted(row.charged_microcredits for row in rows) == [0, 3, 5, 7, 11]
    await settled(counters, who, alive, 1)
    await assert_books_agree(ledger)


async def test_many_reapers_end_a_hold_once(ledger: Ledger, counters: Counters) -> None:
    who = await caller(ledger, counters, 1_000)
    for _ in range(10):
        await admitted(counters, who, 60, lease_ms=OVER_MS, floor=5)
    await overdue(counters, who.keys.shard, 10)

    await asyncio.gather(*(Reaper(counters, SHARDS).reap() for _ in range(4)))

    seen = await counters.inspect(who.keys)
    assert seen.fields[f"s:{who.grants[0]}"] == "50"
    assert await Sweeper(counters, ledger, SHARDS, older_than_ms=0).sweep() == 10


async def test_a_reaper_follows_a_shard_that_others_opened_again(
    ledger: Ledger, counters: Counters, clean_redis_url: str
) -> None:
    async with Counters(clean_redis_url, shards=SHARDS, deadline_ms=20_000) as node:
        who = await caller(ledger, counters, 1_000)
        reaper = Reaper(node, SHARDS)
        await admitted(counters, who, 60, lease_ms=OVER_MS)
        await overdue(node, who.keys.shard, 1)
        assert await reaper.reap() == 1

        lost = (await counters.inspect(who.keys)).epoch
        await counters.open_shard(who.keys.shard, await ledger.next_epoch(who.keys.shard), lost)
        state = await ledger.account_state(who.account_id)
        assert state is not None
        await counters.load(who.keys, state)
        await admitted(counters, who, 60, lease_ms=OVER_MS)
        await overdue(node, who.keys.shard, 1)

        assert [await reaper.reap(), await reaper.reap()] == [0, 1]


async def test_a_shard_that_does_not_answer_keeps_no_other_from_being_reaped(
    ledger: Ledger, counters: Counters, monkeypatch: pytest.MonkeyPatch
) -> None:
    who = await caller(ledger, counters, 1_000)
    await admitted(counters, who, 60, lease_ms=OVER_MS)
    await overdue(counters, who.keys.shard, 1)
    real = counters.overdue

    async def fail_elsewhere(shard: int, limit: int) -> list[tuple[str, int]]:
        if shard != who.keys.shard:
            raise CountersUnavailable(f"shard {shard}")
        return await real(shard, limit)

    monkeypatch.setattr(counters, "overdue", fail_elsewhere)
    with pytest.raises(CountersUnavailable):
        await Reaper(counters, SHARDS).reap()
    assert await real(who.keys.shard, 10) == []


@pytest.mark.parametrize("failure", [CountersUnavailable("away"), ZeroDivisionError("a bug")])
async def test_a_job_goes_on_after_a_round_that_failed(
    failure: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    rounds_done = 0
    enough = asyncio.Event()

    async def work() -> None:
        nonlocal rounds_done
        rounds_done += 1
        if rounds_done == 1:
            raise failure
        enough.set()

    job = asyncio.create_task(rounds.repeat("job", work, 0.0))
    async with asyncio.timeout(20):
        await enough.wait()
    job.cancel()
    assert len([line for line in caplog.messages if "this round failed" in line]) == 1
