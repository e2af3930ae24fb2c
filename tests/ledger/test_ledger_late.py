"""A late settlement is kept until Redis was told of it, by one at a time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import asyncpg
import pytest

from gateway.ledger import Ledger, LedgerRejected, LedgerUnavailable
from tests.support.postgres_gate import postgres_gate
from tests.support.settlements import late_settlement, new_call_id
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from policies.settlement import LateSettlement


async def kept(ledger: Ledger, count: int, **changes: int) -> list[LateSettlement]:
    rows = [late_settlement(call_id=new_call_id(1_000 + n), **changes) for n in range(count)]
    for row in rows:
        await ledger.add_late_settlement(row)
    return rows


async def test_a_late_settlement_comes_back_as_it_went_in_however_often_it_is_added(
    ledger: Ledger,
) -> None:
    row = late_settlement(account_id=7, shard=5)
    for _ in range(2):
        await ledger.add_late_settlement(row)
    await kept(ledger, 2, account_id=8, shard=6)

    assert await ledger.late_settlements_of_shard(5) == [row]
    assert await ledger.late_settlements_of_accounts([7, 404]) == [row]
    assert len(await ledger.late_settlements_of_accounts([7, 8])) == 3
    assert await ledger.late_settlements_of_shard(7) == []


async def test_a_row_that_makes_no_sense_is_refused(ledger: Ledger) -> None:
    with pytest.raises(LedgerRejected):
        await ledger.add_late_settlement(late_settlement(owed_microcredits=-1))


async def test_what_is_taken_is_seen_by_nobody_else_until_it_is_given_back(
    ledger: Ledger,
) -> None:
    first, second = await kept(ledger, 2)
    async with ledger.take_late_settlement() as mine, ledger.take_late_settlement() as other:
        assert mine is not None
        assert other is not None
        assert [mine.row, other.row] == [first, second]
        async with ledger.take_late_settlement() as nothing:
            assert nothing is None
        await other.delete()
    assert await ledger.late_settlements_of_shard(first.shard) == [first]


async def test_a_failure_while_it_is_applied_leaves_it_for_the_next(ledger: Ledger) -> None:
    (row,) = await kept(ledger, 1)

    async def apply() -> None:
        async with ledger.take_late_settlement() as taken:
            assert taken is not None
            await taken.delete()
            raise ConnectionError("Redis is away")

    with pytest.raises(ConnectionError):
        await apply()
    async with ledger.take_late_settlement() as again:
        assert again is not None
        assert again.row == row


async def test_one_that_can_t_be_applied_does_not_hold_up_those_behind_it(ledger: Ledger) -> None:
    rows = await kept(ledger, 3)
    other = late_settlement(shard=9)
    await ledger.add_late_settlement(other)
    seen, after = [], ""
    while True:
        async with ledger.take_late_settlement(after=after, shard=rows[0].shard) as taken:
            if taken is None:
                break
            seen.append(taken.row)
            after = taken.row.call_id
    assert seen == rows
    async with ledger.take_late_settlement(shard=9) as taken:
        assert taken is not None
        assert taken.row == other


async def test_whoever_has_rows_may_ask_the_ledger_anything_meanwhile(postgres_url: str) -> None:
    async with Ledger(postgres_url, connections_max=1) as ledger:
        await kept(ledger, 8)

        async def apply() -> None:
            async with ledger.take_late_settlement() as taken:
                assert taken is not None
                everybody_has_one.release()
                async with ledger.account_locked(1):
                    assert await ledger.settlement_of(taken.row.call_id) is None
                await taken.delete()

        everybody_has_one = asyncio.Semaphore(0)
        async with asyncio.timeout(20):
            await asyncio.gather(*(apply() for _ in range(8)))
        assert await ledger.late_settlements_of_shard(3) == []


async def test_eight_appliers_take_every_row_exactly_once(
    ledger: Ledger, postgres_url: str
) -> None:
    rows = await kept(ledger, 60)
    applied: list[str] = []

    async def apply() -> None:
        async with Ledger(postgres_url) as own:
            while True:
                async with own.take_late_settlement() as taken:
                    if taken is None:
                        return
                    applied.append(taken.row.call_id)
                    await taken.delete()

    await asyncio.gather(*(apply() for _ in range(8)))

    assert sorted(applied) == sorted(row.call_id for row in rows)


async def test_a_lost_connection_gives_the_row_back(ledger: Ledger, postgres_url: str) -> None:
    (row,) = await kept(ledger, 1)
    async with postgres_gate(postgres_url) as (gate, url), Ledger(url) as applier:

        async def apply() -> None:
            async with applier.take_late_settlement() as taken:
                assert taken is not None
                gate.shut()
                await taken.delete()

        async def is_free() -> bool:
            async with ledger.take_late_settlement() as again:
                return again is not None and again.row == row

        with pytest.raises(LedgerUnavailable):
            await apply()
        await eventually(is_free)


async def test_an_insert_whose_answer_was_cut_off_may_be_sent_again(
    ledger: Ledger, postgres_url: str
) -> None:
    row = late_settlement(session="s-cut-off")
    async with postgres_gate(postgres_url) as (gate, url), Ledger(url) as worker:
        gate.lose_next_answer(b"s-cut-off")
        with pytest.raises(LedgerUnavailable):
            await worker.add_late_settlement(row)
        assert gate.answers_lost == 1
        await worker.add_late_settlement(row)
    assert await ledger.late_settlements_of_shard(row.shard) == [row]


async def test_connections_outside_the_pool_are_used_again_and_end_with_the_ledger(
    postgres_url: str,
) -> None:
    async def connections() -> list[int]:
        connection = await asyncpg.connect(postgres_url)
        try:
            found = await connection.fetch(
                "SELECT pid FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            return [row["pid"] for row in found]
        finally:
            await connection.close()

    async with Ledger(postgres_url) as ledger:
        for _ in range(5):
            async with ledger.take_late_settlement():
                pass
        (one,) = await connections()

    async def ended() -> bool:
        return one not in await connections()

    await eventually(ended)
