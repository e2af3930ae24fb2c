"""A shard that lost its data is equal to Postgres plus the live holds before a call is served."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from gateway.ledger.periods import AccountChange
from policies.catalog import Caps, Plan, Platform
from policies.decision import Admitted, HoldGone, Settled, ShardLost
from tests.support.calls import Caller, caller
from tests.support.rebuilt import assert_rebuilt
from tests.support.settlements import assert_books_agree

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gateway.counters import Counters
    from gateway.ledger import Ledger
    from tests.support.hands import Hand

Photograph = dict[bytes, bytes]
PLAN = Plan(
    "free",
    credits_microcredits=0,
    requests_per_month=1_000,
    concurrency=50,
    caps=Caps(day=900_000, total=9_000_000, session=100_000),
)


async def photograph(counters: Counters) -> Photograph:
    """Everything that Redis has, as an append-only file would."""
    return {key: await counters.command("DUMP", key) for key in await counters.command("KEYS", "*")}


async def flush_all(counters: Counters, _who: Caller, _older: Photograph) -> None:
    await counters.command("FLUSHALL")


async def delete_meta(counters: Counters, who: Caller, _older: Photograph) -> None:
    await counters.command("DEL", who.keys.state.meta)


async def set_back_seq(counters: Counters, who: Caller, _older: Photograph) -> None:
    await counters.command("HINCRBY", who.keys.state.meta, "seq", -1)


async def put_back_older(counters: Counters, _who: Caller, older: Photograph) -> None:
    await counters.command("FLUSHALL")
    for key, value in older.items():
        await counters.command("RESTORE", key, 0, value)


Loss = Any  # one of the four above
LOSSES = pytest.mark.parametrize("lose", [flush_all, delete_meta, set_back_seq, put_back_older])


async def planned(ledger: Ledger, counters: Counters, *amounts: int, name: str) -> Caller:
    """An account whose plan has caps and a quota, loaded with them."""
    who = await caller(ledger, counters, *amounts, name=name)
    await ledger.apply_catalog(Platform("demo"), [PLAN], ())
    assert await ledger.change_account(1, who.account_id, AccountChange(plan_slug=PLAN.slug))
    state = await ledger.account_state(who.account_id)
    assert state is not None
    assert await counters.load(who.keys, state, force=True)
    return who


async def see_all(worker: Hand, who: Caller) -> None:
    """Every worker knows how far the shard was seen, as those who use it do."""
    worker.counters.adopt(who.keys.shard, *await worker.counters.meta(who.keys.shard))


async def rebuild(worker: Hand, who: Caller) -> None:
    """As the next call does that finds the shard lost."""
    decision = await worker.ask(who, 1)
    assert isinstance(decision, ShardLost), decision
    assert await worker.shards.ready(decision, who.keys.shard)


async def end_all(workers: list[Hand]) -> None:
    for worker in workers:
        for call_id in list(worker.calls):
            assert isinstance(await worker.settle(call_id, 70), Settled)
        await worker.flush()


@LOSSES
async def test_a_lost_shard_equals_postgres_plus_the_live_holds(
    lose: Loss, ledger: Ledger, counters: Counters, workers: list[Hand]
) -> None:
    one, other = workers
    alice = await planned(ledger, counters, 500, 100_000, name="alice")
    bob = await planned(ledger, counters, 100_000, name="bob")
    ended = {}
    for who in (alice, bob):
        ended[who.account_id] = [await one.admit(who, 400, session="s.1") for _ in range(3)]
        await one.settle(ended[who.account_id][0], 333)
    await one.flush()
    older = await photograph(counters)
    for who in (alice, bob):
        await one.settle(ended[who.account_id][1], 222)  # in the outbox and the worker's memory
        await other.settle_late(await other.admit(who, 400), 111)  # in Postgres alone
        await one.admit(who, 300, session="s.2", sent_on=False)
        await other.admit(who, 200)
    for worker in workers:
        await see_all(worker, alice)
        await see_all(worker, bob)

    for who in (alice, bob):
        await lose(counters, who, older)
    for who in {alice.keys.shard: alice, bob.keys.shard: bob}.values():
        await rebuild(one, who)

    await assert_rebuilt(ledger, counters, [alice, bob], [*one.calls, *other.calls])
    for who in (alice, bob):
        rows = await ledger.settlements(who.account_id, limit=10)
        assert sorted(row.charged_microcredits for row in rows) == [111, 222, 333]
        session = await counters.command("HGETALL", who.keys.session("s.1"))
        spent = dict(zip(session[::2], map(int, session[1::2]), strict=True))
        assert spent[b"A"] == 333 + 222 + 400
    assert await ledger.late_settlements_of_shard(alice.keys.shard) == []
    await end_all(workers)
    await assert_rebuilt(ledger, counters, [alice, bob], [])
    await assert_books_agree(ledger)


async def test_an_older_redis_brings_no_hold_and_no_credit_back(
    ledger: Ledger, counters: Counters, workers: list[Hand]
) -> None:
    """Calls that were settled, voided or expired since it was put aside stay so."""
    one, _ = workers
    who = await planned(ledger, counters, 10_000, name="alice")
    settled, voided = await one.admit(who, 1_000), await one.admit(who, 500, sent_on=False)
    older = await photograph(counters)
    await one.settle(settled, 900)
    await one.flush()
    await one.counters.void(one.counters.keys(who.account_id), voided)
    del one.calls[voided]

    await put_back_older(counters, who, older)
    await rebuild(one, who)

    seen = await counters.inspect(who.keys)
    assert seen.fields[f"s:{who.grants[0]}"] == "900"
    # Nobody can know that it was voided; its lease ends it, and nothing is charged.
    assert list(seen.holds) == [voided]
    assert (await counters.live_holds(who.keys.shard))[voided][1] == 0


async def test_a_hold_that_nobody_tells_of_is_kept_with_its_stage(
    ledger: Ledger, counters: Counters, workers: list[Hand]
) -> None:
    one, other = workers
    who = await planned(ledger, counters, 10_000, name="alice")
    sent_on, held = await other.admit(who, 700), await other.admit(who, 300, sent_on=False)
    other.calls.clear()
    await see_all(one, who)

    await set_back_seq(counters, who, {})
    await rebuild(one, who)

    await assert_rebuilt(ledger, counters, [who], [sent_on, held])
    live = await counters.live_holds(who.keys.shard)
    assert (live[sent_on][1], live[held][1]) == (1, 0)


async def test_calls_that_wait_for_a_rebuild_settle_exactly(
    ledger: Ledger, counters: Counters, workers: list[Hand]
) -> None:
    one, other = workers
    who = await planned(ledger, counters, 1_000_000, name="alice")
    calls = {worker: [await worker.admit(who, 400) for _ in range(20)] for worker in workers}

    await flush_all(counters, who, {})
    outcomes = await asyncio.gather(
        *(worker.settle(call_id, 70) for worker in workers for call_id in calls[worker])
    )

    assert all(isinstance(outcome, Settled) for outcome in outcomes)
    assert all(outcome.charged == 70 for outcome in outcomes if isinstance(outcome, Settled))
    await one.flush()
    await other.flush()
    await assert_rebuilt(ledger, counters, [who], [])
    assert (await ledger.grants(who.account_id))[0].settled_microcredits == 40 * 70
    await assert_books_agree(ledger)


async def test_a_closed_shard_serves_nobody_and_others_go_on(
    ledger: Ledger, counters: Counters, workers: list[Hand]
) -> None:
    one, other = workers
    people = [await planned(ledger, counters, 10_000, name=f"user {n}") for n in range(8)]
    who = people[0]
    elsewhere = next(each for each in people if each.keys.shard != who.keys.shard)
    running = await other.admit(who, 400)
    flushing, go_on = asyncio.Event(), asyncio.Event()

    async def slow_flush() -> None:
        flushing.set()
        await go_on.wait()

    other.reporter._flush = slow_flush
    await delete_meta(counters, who, {})
    decision = await one.ask(who, 1)
    assert isinstance(decision, ShardLost)
    rebuilding = asyncio.create_task(one.shards.ready(decision, who.keys.shard))
    await flushing.wait()

    for worker in workers:
        refused = await worker.ask(who, 1)
        assert isinstance(refused, ShardLost)
        assert refused.kind == "CLOSED"
    keys = other.counters.keys(who.account_id)
    late = await other.counters.settle(keys, running, 1, b"completed,200,,")
    assert isinstance(late, ShardLost)
    assert await one.admit(elsewhere, 400)
    assert not rebuilding.done()

    go_on.set()
    assert await rebuilding
    assert isinstance(await one.ask(who, 1), Admitted)


async def test_an_answer_that_was_lost_with_the_shard_is_not_charged_twice(
    ledger: Ledger, counters: Counters, workers: list[Hand]
) -> None:
    """Its worker does not know that it settled, tells its hold, and settles again."""
    one, other = workers
    who = await planned(ledger, counters, 10_000, name="alice")
    call_id = await other.admit(who, 400)
    keys = other.counters.keys(who.account_id)
    await other.counters.settle(keys, call_id, 333, b"completed,200,,")  # nobody hears the answer
    await see_all(one, who)

    await set_back_seq(counters, who, {})
    await rebuild(one, who)

    assert await counters.live_holds(who.keys.shard) == {}
    assert not await counters.command("EXISTS", f"tk:{{s{who.keys.shard:03d}}}:leases")
    assert isinstance(await other.settle(call_id, 333), HoldGone)
    await other.settle_late(call_id, 333)
    assert await one.late.apply(lambda *_: None) == 1
    await one.admit(who, 100)
    await assert_rebuilt(ledger, counters, [who], one.calls)
    (row,) = await ledger.settlements(who.account_id, limit=9)
    assert row.charged_microcredits == 333
    await assert_books_agree(ledger)


async def test_a_change_that_people_make_meanwhile_is_told_after_opening(
    ledger: Ledger, counters: Counters, workers: list[Hand], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, _ = workers
    who = await planned(ledger, counters, 10_000, name="alice")
    await one.admit(who, 400)
    told: list[int] = []

    async def publish(account_id: int) -> None:
        told.append(account_id)

    async def and_grant(work: Any) -> None:
        await seed(work)
        await ledger.add_grant(who.account_id, 5_000, priority=1)

    seed: Callable[[Any], Awaitable[None]] = one.rebuilder._seed_sessions
    monkeypatch.setattr(one.rebuilder, "_seed_sessions", and_grant)
    one.rebuilder._publish = publish
    await flush_all(counters, who, {})
    await rebuild(one, who)

    assert told == [who.account_id]
