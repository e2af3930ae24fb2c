"""Holds whose lease is over are ended as their stage says, once, whoever died."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from gateway.counters import Counters, CountersUnavailable
from gateway.jobs import reaper as reaper_module
from gateway.jobs import rounds
from gateway.jobs.reaper import Reaper
from gateway.jobs.sweeper import Sweeper
from gateway.recovery.carry import Carrier
from tests.support.calls import admitted, caller, settled
from tests.support.settlements import assert_books_agree

if TYPE_CHECKING:
    from gateway.ledger import Ledger
    from policies.decision import ShardLost

OVER_MS = 1  # a lease that is over as soon as anybody looks


class LostShards:
    """Notes which shards it is told to see to."""

    def __init__(self) -> None:
        self.told: list[tuple[str, int]] = []

    def begin(self, lost: ShardLost, shard: int) -> None:
        self.told.append((lost.kind, shard))


def a_reaper(counters: Counters) -> Reaper:
    return Reaper(counters, LostShards())


async def overdue(counters: Counters, shard: int, count: int) -> None:
    """Return when so many holds are overdue by Redis' clock."""
    async with asyncio.timeout(20):
        while len(await counters.overdue(shard, 1_000)) < count:
            pass  # each look is a round trip to Redis


async def sweep(counters: Counters, ledger: Ledger) -> int:
    return await Sweeper(Carrier(counters, ledger), counters.shards, older_than_ms=0).sweep()


async def test_the_calls_of_the_dead_end_by_their_stage_and_reach_postgres(
    ledger: Ledger, counters: Counters, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reaper_module, "PAGE_HOLDS_MAX", 2)
    who = await caller(ledger, counters, 1_000)
    for due in (0, 3, 5, 7, 11):
        await admitted(counters, who, 60, lease_ms=OVER_MS, due=due, sent_on=True)
    for _ in range(3):  # not sent on: nothing is due
        await admitted(counters, who, 60, lease_ms=OVER_MS, due=13)
    alive = await admitted(counters, who, 60)
    await overdue(counters, who.keys.shard, 8)

    assert await a_reaper(counters).reap() == 8
    assert await a_reaper(counters).reap() == 0

    seen = await counters.inspect(who.keys)
    (grant,) = who.grants
    assert seen.fields[f"h:{grant}"] == "60", "the living call keeps its hold"
    assert seen.fields[f"s:{grant}"] == "26"
    assert seen.fields["running"] == "1"
    assert await sweep(counters, ledger) == 5
    rows = await ledger.settlements(who.account_id, limit=10)
    assert {(row.ending, row.flags) for row in rows} == {("unknown", "expired")}
    assert sorted(row.charged_microcredits for row in rows) == [0, 3, 5, 7, 11]
    await settled(counters, who, alive, 1)
    await assert_books_agree(ledger)


async def test_many_reapers_end_a_hold_once(ledger: Ledger, counters: Counters) -> None:
    who = await caller(ledger, counters, 1_000)
    for _ in range(10):
        await admitted(counters, who, 60, lease_ms=OVER_MS, due=5, sent_on=True)
    await overdue(counters, who.keys.shard, 10)

    await asyncio.gather(*(a_reaper(counters).reap() for _ in range(4)))

    seen = await counters.inspect(who.keys)
    assert seen.fields[f"s:{who.grants[0]}"] == "50"
    assert await sweep(counters, ledger) == 10


async def test_a_reaper_follows_a_shard_that_others_opened_again(
    ledger: Ledger, counters: Counters, clean_redis_url: str
) -> None:
    who = await caller(ledger, counters, 1_000)
    async with Counters(clean_redis_url, shards=counters.shards, deadline_ms=20_000) as node:
        lost_shards = LostShards()
        reaper = Reaper(node, lost_shards)
        await admitted(counters, who, 60, lease_ms=OVER_MS)
        await overdue(node, who.keys.shard, 1)
        assert await reaper.reap() == 1

        lost, _ = await counters.meta(who.keys.shard)
        epoch = await ledger.next_epoch(who.keys.shard)
        assert await counters.close_shard(who.keys.shard, epoch, lost)
        assert await counters.open_shard(who.keys.shard, epoch)
        state = await ledger.account_state(who.account_id)
        assert state is not None
        await counters.load(who.keys, state)
        await admitted(counters, who, 60, lease_ms=OVER_MS)
        await overdue(node, who.keys.shard, 1)

        assert await reaper.reap() == 1
        assert lost_shards.told == []


@pytest.mark.parametrize("loss", ["empty", "closed", "older", "other"])
async def test_a_shard_that_nobody_calls_is_found_lost(
    loss: str, ledger: Ledger, counters: Counters
) -> None:
    who = await caller(ledger, counters, 1_000)
    shard, meta = who.keys.shard, who.keys.state.meta
    epoch, _ = await counters.meta(shard)
    counters.adopt(shard, epoch + 1, 10)
    await counters.command("HSET", meta, "epoch", epoch + 1, "seq", 10)
    lost_shards = LostShards()
    reaper = Reaper(counters, lost_shards)
    await reaper.reap()
    assert lost_shards.told == []

    expected = {"empty": "STALE", "closed": "CLOSED", "older": "REGRESSED", "other": "STALE"}
    if loss == "empty":
        await counters.command("DEL", meta)
    elif loss == "closed":
        await counters.command("HDEL", meta, "seq")
    elif loss == "older":
        await counters.command("HSET", meta, "seq", 9)
    else:
        await counters.command("HSET", meta, "epoch", epoch)
    await reaper.reap()

    assert lost_shards.told == [(expected[loss], shard)]


async def test_a_shard_that_does_not_answer_keeps_no_other_from_being_reaped(
    ledger: Ledger, counters: Counters, monkeypatch: pytest.MonkeyPatch
) -> None:
    who = await caller(ledger, counters, 1_000)
    await admitted(counters, who, 60, lease_ms=OVER_MS)
    await overdue(counters, who.keys.shard, 1)
    real = counters.meta

    async def fail_elsewhere(shard: int) -> tuple[int, int | None]:
        if shard != who.keys.shard:
            raise CountersUnavailable(f"shard {shard}")
        return await real(shard)

    monkeypatch.setattr(counters, "meta", fail_elsewhere)
    with pytest.raises(CountersUnavailable):
        await a_reaper(counters).reap()
    assert await counters.overdue(who.keys.shard, 10) == []


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
