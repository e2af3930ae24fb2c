"""What is known of a call's end counts before what its hold says, and leases end in any case."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from gateway.jobs.late import Endings
from gateway.jobs.reaper import Reaper
from gateway.ledger import LedgerUnavailable
from tests.support.calls import caller
from tests.support.hands import hands
from tests.support.settlements import assert_books_agree

if TYPE_CHECKING:
    from gateway.counters import Counters
    from gateway.ledger import Ledger
    from policies.decision import ShardLost

SHARDS = 8


class LostShards:
    def __init__(self) -> None:
        self.told: list[int] = []

    def begin(self, lost: ShardLost, shard: int) -> None:
        self.told.append(shard)


async def test_a_late_settlement_is_applied_before_its_lease_is_over(
    ledger: Ledger, counters: Counters, clean_redis_url: str, postgres_url: str
) -> None:
    async with hands(clean_redis_url, postgres_url, 1, shards=SHARDS) as (worker,):
        who = await caller(ledger, counters, 10_000)
        known, unknown = await worker.admit(who, 400), await worker.admit(who, 300)
        await worker.settle_late(known, 250)
        for call_id in (known, unknown):
            await counters.command("ZADD", who.keys.state.leases, 3, call_id)
        lost_shards = LostShards()

        outcome = await Endings(worker.late, Reaper(counters, lost_shards), lost_shards).end()

        assert outcome == (1, 1)
        await worker.carrier.carry(who.keys.shard)
        rows = await ledger.settlements(who.account_id, limit=9)
        assert {row.call_id: row.charged_microcredits for row in rows} == {known: 250, unknown: 1}
        assert lost_shards.told == []
        await assert_books_agree(ledger)


async def test_leases_end_while_postgres_is_away(ledger: Ledger, counters: Counters) -> None:
    class Away:
        async def apply(self, _lost: object) -> int:
            raise LedgerUnavailable("away")

    class Reaping:
        rounds = 0

        async def reap(self) -> int:
            self.rounds += 1
            return 0

    reaping = Reaping()
    with pytest.raises(LedgerUnavailable):
        await Endings(Away(), reaping, LostShards()).end()  # type: ignore[arg-type]
    assert reaping.rounds == 1


async def test_a_lost_shard_is_had_rebuilt_without_waiting_for_it(
    ledger: Ledger, counters: Counters, clean_redis_url: str, postgres_url: str
) -> None:
    async with hands(clean_redis_url, postgres_url, 1, shards=SHARDS) as (worker,):
        who = await caller(ledger, counters, 10_000)
        await worker.settle_late(await worker.admit(who, 400), 250)
        await counters.command("DEL", who.keys.state.meta)
        job = Endings(worker.late, Reaper(worker.counters, worker.shards), worker.shards)

        async with asyncio.timeout(20):
            while await ledger.late_settlements_of_shard(who.keys.shard):
                await job.end()

        assert (await ledger.grants(who.account_id))[0].settled_microcredits == 250
        await assert_books_agree(ledger)
