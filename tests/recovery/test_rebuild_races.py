"""Who rebuilds a shard may die at any step, be slow, or be one of many: it is rebuilt once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from gateway.jobs.reaper import Reaper
from gateway.ledger import LedgerUnavailable
from gateway.recovery import rebuild as rebuild_module
from gateway.recovery.carry import Carrier
from policies.decision import HoldGone, Settled, ShardLost
from tests.recovery.conftest import SHARDS
from tests.recovery.test_rebuilding import delete_meta, flush_all, planned, rebuild
from tests.support.hands import Hand, hands
from tests.support.rebuilt import assert_rebuilt
from tests.support.settlements import assert_books_agree
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gateway.counters import Counters
    from gateway.ledger import Ledger

STEPS = (
    "_close",
    "_hear_workers",
    "_empty_outbox",
    "_keep_holds",
    "_drop_settled",
    "_load_accounts",
    "_charge_late",
    "_seed_sessions",
    "_hear_latecomers",
    "_note_loss",
    "_open",
    "_tell_changes",
)


class Died(BaseException):
    """As a process dies: nothing catches it."""


def test_the_steps_are_all_here(workers: list[Hand]) -> None:
    names = [step.__name__ for step in workers[0].rebuilder._steps()]
    assert names == list(STEPS[1:])


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", STEPS)
async def test_whoever_dies_at_a_step_another_finishes(
    step: str,
    when: str,
    ledger: Ledger,
    counters: Counters,
    workers: list[Hand],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one, other = workers
    who = await planned(ledger, counters, 500, 100_000, name="alice")
    ended = [await one.admit(who, 400) for _ in range(2)]
    await other.admit(who, 300, session="s.1")
    await other.settle_late(await other.admit(who, 400), 111)
    await one.settle(ended[0], 222)
    kept = await one.admit(who, 50)
    del one.calls[kept]  # nobody tells of it
    real: Callable[..., Awaitable[Any]] = getattr(one.rebuilder, step)

    async def die(*arguments: Any) -> None:
        if when == "after":
            await real(*arguments)
        raise Died

    monkeypatch.setattr(one.rebuilder, step, die)
    await delete_meta(counters, who, {})
    with pytest.raises(Died):
        await one.rebuilder.rebuild(who.keys.shard, ShardLost("STALE", 0, 0))

    if (await counters.meta(who.keys.shard))[1] is None:  # else it was open already
        await rebuild(other, who)

    await assert_rebuilt(ledger, counters, [who], [*one.calls, *other.calls, kept])
    rows = await ledger.settlements(who.account_id, limit=10)
    assert sorted(row.charged_microcredits for row in rows) == [111, 222]
    for worker in workers:
        for call_id in list(worker.calls):
            assert isinstance(await worker.settle(call_id, 7), Settled)
        await worker.flush()
    await assert_books_agree(ledger)


@pytest.mark.parametrize("used", [False, True])
async def test_eight_workers_race_and_one_seeds(
    used: bool, ledger: Ledger, counters: Counters, clean_redis_url: str, postgres_url: str
) -> None:
    async with hands(clean_redis_url, postgres_url, 8, shards=SHARDS) as workers:
        who = await planned(ledger, counters, 100_000, name="alice")
        shard = who.keys.shard
        if used:
            for worker in workers:
                await worker.admit(who, 400)
        epoch = await ledger.epoch_of(shard)
        await flush_all(counters, who, {})
        lost = ShardLost("STALE", 0, 0)

        rebuilt = await asyncio.gather(
            *(worker.rebuilder.rebuild(shard, lost) for worker in workers)
        )

        assert [one.by_us for one in rebuilt].count(True) == 1
        assert {one.epoch for one in rebuilt} == {epoch + 1}
        assert await ledger.epoch_of(shard) == epoch + 1
        if used:
            calls = [call_id for worker in workers for call_id in worker.calls]
            await assert_rebuilt(ledger, counters, [who], calls)


async def test_a_shard_that_never_was_opens_without_waiting_for_anybody(
    ledger: Ledger, counters: Counters, workers: list[Hand], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = workers
    monkeypatch.setattr(other.reporter, "_report", forget)
    monkeypatch.setattr(one.rebuilder, "_hear_workers", forget)

    outcomes = await asyncio.gather(
        *(one.shards.ready(ShardLost("STALE", 0, 0), shard) for shard in range(SHARDS))
    )

    assert outcomes == [True] * SHARDS
    assert [await counters.meta(shard) for shard in range(SHARDS)] == [(1, 1)] * SHARDS


async def forget(*_: object) -> None:
    pass


async def test_a_worker_that_does_not_report_is_waited_for_only_so_long(
    ledger: Ledger, counters: Counters, workers: list[Hand], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What Redis still had of its calls is kept; what only it knows of settles late."""
    one, other = workers
    who = await planned(ledger, counters, 100_000, name="alice")
    known, forgotten = await other.admit(who, 400), await other.admit(who, 300)
    await counters.command("HDEL", who.keys.state.holds, forgotten)
    monkeypatch.setattr(other.reporter, "_report", forget)
    monkeypatch.setattr(one.rebuilder, "_report_wait_s", 0.3)
    await delete_meta(counters, who, {})

    rebuilt = await one.rebuilder.rebuild(who.keys.shard, ShardLost("STALE", 0, 0))

    assert rebuilt.silent == (other.worker_id,)
    await assert_rebuilt(ledger, counters, [who], [known])
    assert isinstance(await other.settle(known, 70), Settled)
    assert isinstance(await other.settle(forgotten, 90), HoldGone)
    await other.flush()
    await other.settle_late(forgotten, 90)
    assert await one.late.apply(forget) == 1
    await assert_rebuilt(ledger, counters, [who], [], counts=False)
    assert (await ledger.grants(who.account_id))[0].settled_microcredits == 160
    await assert_books_agree(ledger)


async def test_what_is_told_late_is_folded_in_before_opening(
    ledger: Ledger, counters: Counters, workers: list[Hand], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = workers
    who = await planned(ledger, counters, 100_000, name="alice")
    call_id = await other.admit(who, 400, session="s.1")
    told = other.of_shard(who.keys.shard)
    other.calls.clear()
    seed: Callable[[Any], Awaitable[None]] = one.rebuilder._seed_sessions

    async def and_tell(work: Any) -> None:
        await seed(work)
        if not await counters.live_holds(work.shard):
            await other.counters.restore(work.shard, work.epoch, "9", 60_000, told)

    monkeypatch.setattr(one.rebuilder, "_seed_sessions", and_tell)
    await flush_all(counters, who, {})
    await rebuild(one, who)

    await assert_rebuilt(ledger, counters, [who], [call_id])


async def test_a_dead_worker_is_not_waited_for(
    ledger: Ledger, counters: Counters, workers: list[Hand], clean_redis_url: str, postgres_url: str
) -> None:
    one, _ = workers
    who = await planned(ledger, counters, 100_000, name="alice")
    async with hands(clean_redis_url, postgres_url, 1, shards=SHARDS) as (mortal,):
        call_id = await mortal.admit(who, 400)
        dead = mortal.worker_id

        async def gone() -> bool:
            return dead not in await ledger.attending()

    await eventually(gone)
    assert call_id

    await delete_meta(counters, who, {})
    await rebuild(one, who)  # its wait for reports is a minute

    await assert_rebuilt(ledger, counters, [who], [call_id])


async def test_workers_that_have_just_lost_postgres_are_asked_all_the_same(
    ledger: Ledger, counters: Counters, workers: list[Hand]
) -> None:
    """It was restarted: for a while neither who rebuilds nor the other is known to live."""
    one, other = workers
    who = await planned(ledger, counters, 100_000, name="alice")
    calls = [await worker.admit(who, 400) for worker in workers]
    await flush_all(counters, who, {})
    async with ledger.transaction_apart() as session:
        await session._runner.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_locks "
            "WHERE locktype = 'advisory' AND objid IN ($1, $2)",
            one.worker_id,
            other.worker_id,
        )

    async def gone() -> bool:
        return not {one.worker_id, other.worker_id} & await ledger.attending()

    await eventually(gone)
    await rebuild(one, who)

    await assert_rebuilt(ledger, counters, [who], calls)


async def test_a_report_that_failed_is_made_at_the_next_call(
    ledger: Ledger, counters: Counters, workers: list[Hand]
) -> None:
    one, other = workers
    who = await planned(ledger, counters, 100_000, name="alice")
    call_id = await other.admit(who, 400)
    failures = 2
    real = other.flush

    async def flush() -> None:
        nonlocal failures
        if failures:
            failures -= 1
            raise LedgerUnavailable("away")
        await real()

    other.reporter._flush = flush
    await flush_all(counters, who, {})
    await rebuild(one, who)

    assert failures == 0
    await assert_rebuilt(ledger, counters, [who], [call_id])


async def test_a_worker_that_missed_the_calls_reports_when_it_listens_again(
    ledger: Ledger, counters: Counters, workers: list[Hand]
) -> None:
    one, _ = workers
    who = await planned(ledger, counters, 100_000, name="alice")
    call_id = await one.admit(who, 400)
    epoch = await ledger.next_epoch(who.keys.shard)
    assert await counters.close_shard(who.keys.shard, epoch, epoch - 1)

    one.reporter.called("")

    async def reported() -> bool:
        return str(one.worker_id) in await counters.reported(who.keys.shard)

    await eventually(reported)
    assert list(await counters.live_holds(who.keys.shard)) == [call_id]


async def test_a_hold_that_nobody_tells_of_ends_by_its_stage(
    ledger: Ledger, counters: Counters, workers: list[Hand], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, _ = workers
    who = await planned(ledger, counters, 100_000, name="alice")
    sent_on, held = await one.admit(who, 400), await one.admit(who, 300, sent_on=False)
    one.calls.clear()
    monkeypatch.setattr(one.rebuilder, "_lease_ms", 1)
    await delete_meta(counters, who, {})
    await rebuild(one, who)
    reaper = Reaper(one.counters, one.shards)

    async def ended() -> bool:
        await reaper.reap()
        return not await counters.live_holds(who.keys.shard)

    await eventually(ended)
    await Carrier(counters, ledger).carry(who.keys.shard)
    await assert_rebuilt(ledger, counters, [who], [], counts=False)
    (row,) = await ledger.settlements(who.account_id, limit=10)
    assert (row.call_id, row.ending, row.charged_microcredits) == (sent_on, "unknown", 1)
    assert held


async def test_a_late_settlement_of_a_closed_shard_waits_for_its_opening(
    ledger: Ledger, counters: Counters, workers: list[Hand], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes after the rebuild has charged the late ones, and an applier is about."""
    one, other = workers
    who = await planned(ledger, counters, 100_000, name="alice")
    call_id = await other.admit(who, 400)
    lost: list[int] = []
    seed: Callable[[Any], Awaitable[None]] = one.rebuilder._seed_sessions

    async def and_settle_late(work: Any) -> None:
        await seed(work)
        await other.settle_late(call_id, 90)
        assert await other.late.apply(lambda shard, _: lost.append(shard)) == 0

    monkeypatch.setattr(one.rebuilder, "_seed_sessions", and_settle_late)
    await flush_all(counters, who, {})
    await rebuild(one, who)

    assert lost == [who.keys.shard]
    await assert_rebuilt(ledger, counters, [who], [call_id])
    assert await other.late.apply(forget) == 1
    await assert_rebuilt(ledger, counters, [who], [])
    await assert_books_agree(ledger)


async def test_a_call_waits_only_so_long_and_the_rebuild_goes_on(
    ledger: Ledger, counters: Counters, workers: list[Hand]
) -> None:
    one, other = workers
    who = await planned(ledger, counters, 100_000, name="alice")
    await other.admit(who, 400)
    go_on = asyncio.Event()
    other.reporter._flush = go_on.wait  # type: ignore[assignment]
    one.shards._wait_s = 0.05
    await flush_all(counters, who, {})
    lost = ShardLost("STALE", 0, 0)

    assert not await one.shards.ready(lost, who.keys.shard)
    assert not await one.shards.ready(ShardLost("CLOSED", 2, 0), who.keys.shard)

    go_on.set()
    one.shards._wait_s = 20.0
    assert await one.shards.ready(lost, who.keys.shard)
    assert await ledger.epoch_of(who.keys.shard) == 2


async def test_who_holds_a_shard_s_lock_keeps_others_out_only_so_long(
    ledger: Ledger, counters: Counters, workers: list[Hand], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, _ = workers
    monkeypatch.setattr(rebuild_module, "LOCK_WAIT_S", 0.05)
    async with ledger.shard_locked(0):
        with pytest.raises(LedgerUnavailable):
            await one.rebuilder.rebuild(0, ShardLost("STALE", 0, 0))
        assert await one.shards.ready(ShardLost("STALE", 0, 0), 1), "another shard is free"
    assert await one.shards.ready(ShardLost("STALE", 0, 0), 0)
