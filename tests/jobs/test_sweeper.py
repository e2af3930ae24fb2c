"""What no worker carries any more reaches Postgres from the outbox, once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from gateway.counters import CountersUnavailable
from gateway.jobs.sweeper import Sweeper
from gateway.ledger import LedgerUnavailable, SettlementWriter
from gateway.recovery import carry
from gateway.recovery.carry import Carrier
from policies.decision import Withdrawn
from policies.settlement import parse_entry
from tests.support.calls import Caller, admitted, caller, settled
from tests.support.settlements import assert_books_agree, new_call_id

if TYPE_CHECKING:
    from gateway.counters import Counters
    from gateway.ledger import Ledger

SHARDS = 8


def a_sweeper(counters: Counters, ledger: Ledger, older_than_ms: int = 0) -> Sweeper:
    return Sweeper(Carrier(counters, ledger), SHARDS, older_than_ms=older_than_ms)


async def outbox(counters: Counters, shard: int) -> list[str]:
    return [entry_id for entry_id, _ in await counters.outbox_page(shard, 0, 1_000)]


async def holds(counters: Counters, who: Caller) -> int:
    return int(await counters.command("HLEN", who.keys.state.holds))


async def test_what_a_dead_worker_left_in_the_outbox_reaches_postgres_once(
    ledger: Ledger, counters: Counters, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(carry, "PAGE_ROWS_MAX", 3)
    people = [await caller(ledger, counters, 50, 500, name=f"user {n}") for n in range(5)]
    calls = {}
    for who in people:
        for due in (20, 40, 0, 5):
            call_id = await admitted(counters, who, 60)
            calls[call_id] = await settled(counters, who, call_id, due)

    assert await holds(counters, people[0]) > 0

    assert await a_sweeper(counters, ledger).sweep() == 20

    for who in people:
        rows = await ledger.settlements(who.account_id, limit=10)
        assert sorted(row.charged_microcredits for row in rows) == [0, 5, 20, 40]
        assert [grant.settled_microcredits for grant in await ledger.grants(who.account_id)] == [
            50,
            15,
        ]
        assert {row.flags for row in rows} == {"units_missing,late"}
        for row in rows:
            assert row.settled_ms == calls[row.call_id].settled_ms
            assert (row.key_id, row.route_id, row.price_version) == (who.key_id, 7, 9)
        assert await outbox(counters, who.keys.shard) == []
        assert await holds(counters, who) == 0
    assert await a_sweeper(counters, ledger).sweep() == 0
    await assert_books_agree(ledger)


async def test_other_changes_reach_postgres_once_too(ledger: Ledger, counters: Counters) -> None:
    who = await caller(ledger, counters, 50, 500)
    change_id = new_call_id()
    for _ in range(2):  # the second time it is the same change
        outcome = await counters.withdraw(
            who.keys, change_id, "revoke", who.grants[1], 70, platform_id=who.platform_id
        )
        assert isinstance(outcome, Withdrawn)
        assert outcome.taken == 70
    await settled(counters, who, await admitted(counters, who, 60), 20)

    assert await a_sweeper(counters, ledger).sweep() == 2
    assert await a_sweeper(counters, ledger).sweep() == 0

    lots = await ledger.grants(who.account_id)
    assert [lot.revoked_microcredits for lot in lots] == [0, 70]
    assert [lot.settled_microcredits for lot in lots] == [20, 0]
    assert await holds(counters, who) == 0
    await assert_books_agree(ledger)


async def test_what_a_living_worker_may_still_carry_is_left_to_it(
    ledger: Ledger, counters: Counters
) -> None:
    who = await caller(ledger, counters, 500)
    await settled(counters, who, await admitted(counters, who, 60), 20)

    assert await a_sweeper(counters, ledger, older_than_ms=3_600_000).sweep() == 0

    assert len(await outbox(counters, who.keys.shard)) == 1
    assert await ledger.settlements(who.account_id, limit=10) == []


async def test_sweepers_and_the_worker_at_the_same_time_count_each_call_once(
    ledger: Ledger, counters: Counters
) -> None:
    who = await caller(ledger, counters, 100_000)
    for _ in range(60):
        await settled(counters, who, await admitted(counters, who, 60), 20)

    await asyncio.gather(*(a_sweeper(counters, ledger).sweep() for _ in range(3)))

    assert [grant.settled_microcredits for grant in await ledger.grants(who.account_id)] == [1_200]
    assert len(await ledger.settlements(who.account_id, limit=100)) == 60
    assert await outbox(counters, who.keys.shard) == []
    await assert_books_agree(ledger)


async def test_a_worker_that_died_after_its_commit_leaves_nothing_to_count_again(
    ledger: Ledger, counters: Counters
) -> None:
    who = await caller(ledger, counters, 1_000)
    await settled(counters, who, await admitted(counters, who, 60), 20)
    written = asyncio.Event()

    async def die(_settled: object) -> None:
        written.set()
        await asyncio.Event().wait()

    ((entry_id, fields),) = await counters.outbox_page(who.keys.shard, 0, 10)
    writer = SettlementWriter(ledger, die, flush_interval_ms=1)
    worker = asyncio.create_task(writer.run())
    writer.add(parse_entry(who.keys.shard, entry_id, fields))
    await written.wait()
    worker.cancel()

    assert await a_sweeper(counters, ledger).sweep() == 1

    assert await outbox(counters, who.keys.shard) == []
    assert [grant.settled_microcredits for grant in await ledger.grants(who.account_id)] == [20]
    await assert_books_agree(ledger)


async def test_an_entry_that_can_t_be_carried_stays_and_blocks_nobody(
    ledger: Ledger,
    counters: Counters,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(carry, "PAGE_ROWS_MAX", 2)
    who = await caller(ledger, counters, 1_000)
    for _ in range(3):
        await counters.command("XADD", who.keys.state.outbox, "*", "i", "no call")
    refused = await admitted(counters, who, 60)
    await settled(counters, who, refused, 20, result=b"completed,99999,,")
    good = await admitted(counters, who, 60)
    await settled(counters, who, good, 20)
    sweeper = a_sweeper(counters, ledger)

    assert await sweeper.sweep() == 1
    complaints = len(caplog.messages)
    assert complaints == 4
    assert await sweeper.sweep() == 0

    assert len(caplog.messages) == complaints, "said once, not every round"
    assert len(await outbox(counters, who.keys.shard)) == 4
    assert [row.call_id for row in await ledger.settlements(who.account_id, limit=9)] == [good]
    await assert_books_agree(ledger)


async def test_a_shard_that_does_not_answer_keeps_no_other_from_being_swept(
    ledger: Ledger, counters: Counters, monkeypatch: pytest.MonkeyPatch
) -> None:
    who = await caller(ledger, counters, 1_000)
    await settled(counters, who, await admitted(counters, who, 60), 20)
    real = counters.outbox_page

    async def outbox_page(shard: int, *rest: object) -> object:
        if shard != who.keys.shard:
            raise CountersUnavailable(f"shard {shard}")
        return await real(shard, *rest)

    monkeypatch.setattr(counters, "outbox_page", outbox_page)
    with pytest.raises(CountersUnavailable):
        await a_sweeper(counters, ledger).sweep()
    assert len(await ledger.settlements(who.account_id, limit=9)) == 1


async def test_while_postgres_is_away_the_outbox_keeps_everything(
    ledger: Ledger, counters: Counters
) -> None:
    class Away:
        async def record_settlements(self, _settlements: object) -> object:
            raise LedgerUnavailable("away")

    who = await caller(ledger, counters, 1_000)
    await settled(counters, who, await admitted(counters, who, 60), 20)
    with pytest.raises(LedgerUnavailable):
        await Sweeper(Carrier(counters, Away()), SHARDS, older_than_ms=0).sweep()
    assert len(await outbox(counters, who.keys.shard)) == 1
