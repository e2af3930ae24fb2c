"""A late settlement is charged once, whatever Redis and Postgres have of its call."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from gateway.counters import CommandRefused
from gateway.ledger import LedgerUnavailable
from gateway.recovery import late as late_module
from policies.decision import ExpiredFirst, Settled, ShardLost
from tests.support.calls import Caller, caller
from tests.support.settlements import assert_books_agree
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gateway.counters import Counters
    from gateway.ledger import Ledger
    from tests.support.hands import Hand

# What the expired hold of these calls costs (see `expired`).
DUE = 100


class Died(BaseException):
    """As a process dies: nothing catches it."""


@pytest.fixture
def one(workers: list[Hand]) -> Hand:
    return workers[0]


@pytest.fixture
def other(workers: list[Hand]) -> Hand:
    return workers[1]


def nobody(shard: int, lost: ShardLost) -> None:
    raise AssertionError(f"shard {shard} was found lost: {lost}")


async def expired(worker: Hand, who: Caller) -> str:
    """A call of the registry whose hold has run out; its settlement is in the outbox."""
    call_id = await worker.admit(who, 400)
    keys = worker.counters.keys(who.account_id)
    await worker.counters.extend(who.keys.shard, 60_000, [(call_id, 1, DUE, "token=3")])
    await worker.counters.command("ZADD", keys.state.leases, 1, call_id)

    async def ended() -> bool:
        return isinstance(await worker.counters.expire(keys, call_id), Settled)

    await eventually(ended)
    return call_id


async def assert_charged(ledger: Ledger, counters: Counters, who: Caller, charged: int) -> None:
    """Both places have taken so much of the account's one grant, and nothing waits."""
    (grant,) = await ledger.grants(who.account_id)
    seen = await counters.inspect(who.keys)
    lot = {kind: int(seen.fields[f"{kind}:{grant.grant_id}"]) for kind in "ahsw"}
    credited = grant.credited_microcredits
    assert grant.settled_microcredits - credited == charged
    assert lot["s"] == grant.settled_microcredits
    assert lot["a"] == grant.amount_microcredits - charged
    assert (lot["h"], lot["w"]) == (0, 0)
    assert seen.holds == {}
    assert await counters.outbox_length(who.keys.shard) == 0
    assert await counters.command("HLEN", who.keys.state.holds) == 0
    assert await ledger.late_settlements_of_shard(who.keys.shard) == []
    await assert_books_agree(ledger)


async def test_a_call_that_has_its_hold_is_settled(
    ledger: Ledger, counters: Counters, one: Hand
) -> None:
    who = await caller(ledger, counters, 10_000)
    await one.settle_late(await one.admit(who, 400, session="s.1"), 250)

    assert await one.late.apply(nobody) == 1
    assert await one.late.apply(nobody) == 0

    await assert_charged(ledger, counters, who, 250)
    (row,) = await ledger.settlements(who.account_id, limit=9)
    assert (row.held_microcredits, row.ending, row.flags) == (400, "completed", "")


@pytest.mark.parametrize("loaded", [True, False])
async def test_a_call_without_a_hold_is_charged_as_far_as_credits_go(
    loaded: bool, ledger: Ledger, counters: Counters, one: Hand
) -> None:
    who = await caller(ledger, counters, 500)
    for _ in range(2):
        call_id = await one.admit(who, 100)
        late = one.late_settlement(call_id, 300)
        await one.counters.void(one.counters.keys(who.account_id), call_id)
        await ledger.add_late_settlement(late)
    if not loaded:
        await counters.command("DEL", who.keys.name)

    assert await one.late.apply(nobody) == 2

    await assert_charged(ledger, counters, who, 500)
    rows = await ledger.settlements(who.account_id, limit=9)
    assert sorted(row.charged_microcredits for row in rows) == [200, 300]
    assert sum(row.uncollected_microcredits for row in rows) == 100


async def test_a_call_that_was_settled_after_all_is_not_charged_again(
    ledger: Ledger, counters: Counters, one: Hand
) -> None:
    """In the outbox still; carried and forgotten; and with another figure."""
    who = await caller(ledger, counters, 10_000)
    calls = [await one.admit(who, 400) for _ in range(2)]
    rows = [one.late_settlement(call_id, 250) for call_id in calls]
    await one.settle(calls[0], 200)
    await one.flush()
    await one.counters.settle(one.counters.keys(who.account_id), calls[1], 200, b"completed,200,,")
    for row in rows:
        await ledger.add_late_settlement(row)

    assert await one.late.apply(nobody) == 2

    await assert_charged(ledger, counters, who, 400)


@pytest.mark.parametrize("carried", [True, False])
@pytest.mark.parametrize("owed", [0, 40, DUE, 130, 400, 900])
async def test_a_hold_that_had_expired_is_corrected_to_what_the_call_owes(
    owed: int, carried: bool, ledger: Ledger, counters: Counters, one: Hand
) -> None:
    who = await caller(ledger, counters, 10_000)
    published: list[int] = []

    async def publish(account_id: int) -> None:
        published.append(account_id)
        (grant,) = await ledger.grants(account_id)
        await counters.credit(
            who.keys,
            grant.grant_id,
            total=grant.amount_microcredits + grant.credited_microcredits,
            settled=0,
            withdrawn=0,
            expires_ms=0,
            effective_ms=grant.effective_ms,
            lots=str(grant.grant_id),
        )

    one.late._publish = publish
    call_id = await expired(one, who)
    if carried:
        await one.carrier.carry(who.keys.shard)
    await one.settle_late(call_id, owed)

    assert await one.late.apply(nobody) == 1
    assert await one.late.apply(nobody) == 0

    assert published == ([who.account_id] if owed < DUE else [])
    await assert_charged(ledger, counters, who, owed)
    (row,) = await ledger.settlements(who.account_id, limit=9)
    assert (row.charged_microcredits, row.flags) == (DUE, "expired")


async def test_a_correction_takes_what_is_left_and_no_more(
    ledger: Ledger, counters: Counters, one: Hand
) -> None:
    who = await caller(ledger, counters, 450)
    await one.settle_late(await expired(one, who), 1_000)

    assert await one.late.apply(nobody) == 1

    await assert_charged(ledger, counters, who, 450)


# The writes of each way, in order: after any of them the process dies, and another goes on.
WAYS: dict[str, tuple[str, ...]] = {
    "settle": ("counters.settle", "carrier.carry_entry"),
    "late": ("counters.late", "carrier.carry_entry"),
    "withdraw": ("counters.withdraw", "carrier.carry_entry"),
    "credit": ("ledger.credit_call", "publish"),
}


@pytest.mark.parametrize("swept", [False, True])
@pytest.mark.parametrize(
    ("way", "write"), [(way, write) for way, writes in WAYS.items() for write in writes]
)
async def test_whoever_dies_between_two_writes_another_goes_on(
    way: str,
    write: str,
    swept: bool,
    ledger: Ledger,
    counters: Counters,
    one: Hand,
    other: Hand,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also when the sweeper has carried everything in between."""
    who = await caller(ledger, counters, 10_000)
    owed = {"settle": 250, "late": 250, "withdraw": 300, "credit": 30}[way]
    if way in ("withdraw", "credit"):
        call_id = await expired(one, who)
        await one.carrier.carry(who.keys.shard)
    else:
        call_id = await one.admit(who, 400)
    late = one.late_settlement(call_id, owed)
    if way == "late":
        await one.counters.void(one.counters.keys(who.account_id), call_id)
    await ledger.add_late_settlement(late)

    async def publish(account_id: int) -> None:
        (grant,) = await ledger.grants(account_id)
        total = grant.amount_microcredits + grant.credited_microcredits
        await counters.credit(
            who.keys,
            grant.grant_id,
            total=total,
            settled=0,
            withdrawn=0,
            expires_ms=0,
            effective_ms=grant.effective_ms,
            lots=str(grant.grant_id),
        )

    one.late._publish = other.late._publish = publish
    die_after(one, write, monkeypatch)
    with pytest.raises(Died):
        await one.late.apply(nobody)
    if swept:
        await other.carrier.carry(who.keys.shard)

    async def applied() -> bool:  # the dead one's lock goes with its connection
        return await other.late.apply(nobody) == 1

    await eventually(applied)
    await assert_charged(ledger, counters, who, owed)


def die_after(worker: Hand, write: str, monkeypatch: pytest.MonkeyPatch) -> None:
    part, _, name = write.rpartition(".")
    owner: Any = getattr(worker, part) if part and part != "ledger" else worker.late
    if part == "ledger":
        owner = worker.late._ledger
    name = name if part else "_publish"
    real: Callable[..., Awaitable[Any]] = getattr(owner, name)

    async def die(*arguments: Any, **options: Any) -> None:
        await real(*arguments, **options)
        raise Died

    monkeypatch.setattr(owner, name, die)


@pytest.mark.parametrize("way", ["late", "withdraw"])
async def test_who_was_stopped_until_another_applied_its_row_charges_nothing(
    way: str,
    ledger: Ledger,
    counters: Counters,
    one: Hand,
    other: Hand,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Between looking and charging; Postgres has ended its transaction, and with it its lock."""
    who = await caller(ledger, counters, 10_000)
    if way == "withdraw":
        call_id = await expired(one, who)
        await one.carrier.carry(who.keys.shard)
    else:
        call_id = await one.admit(who, 400)
        await one.counters.void(one.counters.keys(who.account_id), call_id)
    await one.settle_late(call_id, 250)
    look = one.ledger.settlement_of

    async def applied() -> bool:
        return await other.late.apply(nobody) == 1

    async def stopped(call_id: str) -> Any:
        seen = await look(call_id)
        async with ledger.transaction_apart() as session:
            await session._runner.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE state = 'idle in transaction' AND query LIKE '%late_settlements%'"
            )
        await eventually(applied)
        monkeypatch.setattr(late_module, "LOOK_S", 0.0)
        return seen

    monkeypatch.setattr(one.ledger, "settlement_of", stopped)
    with contextlib.suppress(LedgerUnavailable):
        assert await one.late.apply(nobody) == 0
    await other.carrier.carry(who.keys.shard)

    await assert_charged(ledger, counters, who, 250)


async def test_many_appliers_apply_each_row_once(
    ledger: Ledger, counters: Counters, workers: list[Hand]
) -> None:
    who = await caller(ledger, counters, 100_000)
    for number in range(20):
        worker = workers[number % 2]
        call_id = await worker.admit(who, 400)
        late = worker.late_settlement(call_id, 100)
        if number % 3 == 0:
            await worker.counters.void(worker.counters.keys(who.account_id), call_id)
        await ledger.add_late_settlement(late)

    applied = await asyncio.gather(*(worker.late.apply(nobody) for worker in workers * 2))

    assert sum(applied) == 20
    await assert_charged(ledger, counters, who, 2_000)


async def test_the_reaper_s_settlement_counts_when_it_is_faster(
    ledger: Ledger, counters: Counters, one: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    who = await caller(ledger, counters, 10_000)
    call_id = await one.admit(who, 400)
    await one.settle_late(call_id, 250)
    keys = one.counters.keys(who.account_id)
    real = one.counters.settle

    async def expire_first(*arguments: Any) -> Any:
        await one.counters.command("ZADD", keys.state.leases, 1, call_id)
        assert isinstance(await one.counters.expire(keys, call_id), Settled)
        outcome = await real(*arguments)
        assert isinstance(outcome, ExpiredFirst)
        return outcome

    monkeypatch.setattr(one.counters, "settle", expire_first)
    assert await one.late.apply(nobody) == 0
    assert await one.late.apply(nobody) == 1

    await assert_charged(ledger, counters, who, 250)


async def test_a_row_that_redis_refuses_blocks_nobody(
    ledger: Ledger, counters: Counters, one: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    who = await caller(ledger, counters, 10_000)
    bad, good = await one.admit(who, 400), await one.admit(who, 400)
    await one.settle_late(bad, 1)
    await one.settle_late(good, 250)
    real = one.counters.settle

    async def settle(keys: Any, call_id: str, *rest: Any) -> Any:
        if call_id == bad:
            raise CommandRefused("ERR a bug")
        return await real(keys, call_id, *rest)

    monkeypatch.setattr(one.counters, "settle", settle)
    assert await one.late.apply(nobody) == 1

    assert [row.call_id for row in await ledger.late_settlements_of_shard(who.keys.shard)] == [bad]


async def test_a_lost_shard_is_told_once_and_its_rows_stay(
    ledger: Ledger, counters: Counters, one: Hand
) -> None:
    who = await caller(ledger, counters, 10_000)
    for _ in range(3):
        await one.settle_late(await one.admit(who, 400), 250)
    await counters.command("DEL", who.keys.state.meta)
    lost: list[int] = []

    assert await one.late.apply(lambda shard, _: lost.append(shard)) == 0

    assert lost == [who.keys.shard]
    assert len(await ledger.late_settlements_of_shard(who.keys.shard)) == 3
