"""Lots are given once per business key, end, and are found until all of them is accounted for."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import asyncpg
import pytest

from gateway.ledger import Ledger, LedgerUnavailable
from policies.settlement import Posting
from tests.support.postgres_gate import postgres_gate
from tests.support.settlements import (
    account_with_grants,
    assert_books_agree,
    ledger_change,
    settlement,
)
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from gateway.ledger import EndedLot, GrantRow

HOUR_MS = 3_600_000


def now_ms() -> int:
    return time.time_ns() // 1_000_000


async def only(ledger: Ledger, account_id: int) -> GrantRow:
    (row,) = await ledger.grants(account_id)
    return row


async def ended_lot(ledger: Ledger, account_id: int, amount: int) -> int:
    hour_ago = now_ms() - HOUR_MS
    grant_id = await ledger.add_grant(
        account_id, amount, priority=0, effective_ms=hour_ago - 1, expires_ms=hour_ago
    )
    assert grant_id is not None
    return grant_id


async def facts(ledger: Ledger, **options: int) -> list[tuple[int, str, int]]:
    rows: list[EndedLot] = await ledger.lots_to_withdraw(options.pop("limit", 100), **options)
    return [(row.grant_id, row.kind, row.left_microcredits) for row in rows]


async def test_a_business_key_gives_one_lot_however_many_give_it(
    ledger: Ledger, postgres_url: str
) -> None:
    _, account_id, _ = await account_with_grants(ledger)
    async with Ledger(postgres_url) as other:
        given = await asyncio.gather(
            *(
                store.add_grant(account_id, 500, priority=0, business_key="pack:1")
                for store in (ledger, other) * 8
            )
        )
    assert set(given) == {(await only(ledger, account_id)).grant_id}
    assert await ledger.add_grant(404, 500, priority=0, business_key="pack:2") is None
    await assert_books_agree(ledger)


async def test_a_grant_whose_answer_was_cut_off_is_given_once_under_its_business_key(
    ledger: Ledger, postgres_url: str
) -> None:
    _, account_id, _ = await account_with_grants(ledger)
    async with postgres_gate(postgres_url) as (gate, url), Ledger(url) as node:
        gate.lose_next_answer(b"pack:cut-off")
        with pytest.raises(LedgerUnavailable):
            await node.add_grant(account_id, 500, priority=0, business_key="pack:cut-off")
        assert gate.answers_lost == 1
        again = await node.add_grant(account_id, 500, priority=0, business_key="pack:cut-off")
    assert (await only(ledger, account_id)).grant_id == again


async def test_a_revoked_lot_ends_now_also_one_that_was_to_begin_later(ledger: Ledger) -> None:
    _, account_id, (grant,) = await account_with_grants(ledger, 100)
    later = await ledger.add_grant(
        account_id, 70, priority=0, effective_ms=now_ms() + HOUR_MS, expires_ms=None
    )
    assert later is not None

    assert await ledger.revoke_grant(grant) == account_id
    first = {row.grant_id: row for row in await ledger.grants(account_id)}[grant]
    assert await ledger.revoke_grant(grant) == account_id
    assert await ledger.revoke_grant(later) == account_id
    assert await ledger.revoke_grant(404) is None

    rows = {row.grant_id: row for row in await ledger.grants(account_id)}
    assert rows[grant] == first
    for row in rows.values():
        assert row.effective_ms < row.expires_ms <= row.revoked_ms
    assert await facts(ledger) == [(grant, "revoke", 100), (later, "revoke", 70)]


async def test_an_ended_lot_is_found_until_all_of_it_is_accounted_for(ledger: Ledger) -> None:
    platform_id, account_id, _ = await account_with_grants(ledger, 1_000)
    mine = {"platform_id": platform_id, "account_id": account_id}
    lot = await ended_lot(ledger, account_id, 100)
    assert await facts(ledger) == [(lot, "expire", 100)]

    await ledger.record_changes([ledger_change("expire", (lot, 60), **mine)])
    assert await facts(ledger) == [(lot, "expire", 40)]
    await ledger.record_settlements([settlement(((lot, 40),), **mine)])
    assert await facts(ledger) == []
    assert await closed(ledger) == {lot}
    assert await facts(ledger) == []


async def test_a_closed_lot_that_gets_credits_back_is_found_again(ledger: Ledger) -> None:
    platform_id, account_id, _ = await account_with_grants(ledger)
    lot = await ended_lot(ledger, account_id, 100)
    call = settlement(((lot, 100),), platform_id=platform_id, account_id=account_id)
    await ledger.record_settlements([call])
    assert await facts(ledger) == []

    assert await ledger.credit_call(call.call_id, "late", [Posting(lot, 30)])

    assert await facts(ledger) == [(lot, "expire", 30)]
    await assert_books_agree(ledger)


async def test_a_round_passes_lots_whose_rest_is_held(ledger: Ledger) -> None:
    _, account_id, _ = await account_with_grants(ledger, 1_000)
    lots = [await ended_lot(ledger, account_id, 10) for _ in range(5)]
    first = await facts(ledger, limit=2)
    second = await facts(ledger, limit=2, after=first[-1][0])
    third = await facts(ledger, limit=2, after=second[-1][0])
    assert [row[0] for row in (*first, *second, *third)] == lots
    assert await facts(ledger, after=lots[-1]) == []


async def test_a_lot_that_is_being_settled_keeps_nobody_waiting(
    ledger: Ledger, postgres_url: str
) -> None:
    _, account_id, _ = await account_with_grants(ledger)
    lots = [await ended_lot(ledger, account_id, amount) for amount in (0, 10)]
    connection = await asyncpg.connect(postgres_url)
    closed = "SELECT array_agg(id) FROM grants WHERE closed"
    try:
        async with connection.transaction():
            await connection.execute("SELECT FROM grants ORDER BY id FOR UPDATE")
            assert [row[0] for row in await facts(ledger)] == lots[1:]
        assert await connection.fetchval(closed) is None
        assert [row[0] for row in await facts(ledger)] == lots[1:]
        assert await connection.fetchval(closed) == lots[:1]
    finally:
        await connection.close()


async def test_overage_comes_last_stays_loaded_and_counts_as_owed(ledger: Ledger) -> None:
    platform_id, account_id, (bought,) = await account_with_grants(ledger, 100)
    overage = await ledger.add_grant(
        account_id, 50, source="overage", priority=0, expires_ms=now_ms() + HOUR_MS
    )
    call = settlement(
        ((bought, 100), (overage or 0, 50)), platform_id=platform_id, account_id=account_id
    )
    await ledger.record_settlements([call])

    state = await ledger.account_state(account_id)

    assert state is not None
    assert (state["lots"], state[f"a:{overage}"], state[f"s:{overage}"]) == (f"{overage}o", 0, 50)
    assert [row.source for row in await ledger.grants(account_id)] == ["manual", "overage"]


async def closed(ledger: Ledger) -> set[int]:
    async with ledger.transaction() as session:
        return {
            row["id"] for row in await session._runner.fetch("SELECT id FROM grants WHERE closed")
        }


async def test_settling_calls_leaves_the_indexes_of_lots_alone(
    ledger: Ledger, postgres_url: str
) -> None:
    platform_id, account_id, (grant,) = await account_with_grants(ledger, 10_000)
    async with Ledger(postgres_url) as writer:
        for _ in range(20):
            call = settlement(((grant, 7),), platform_id=platform_id, account_id=account_id)
            await writer.record_settlements([call])

    async def updates() -> tuple[int, int]:
        connection = await asyncpg.connect(postgres_url)
        try:
            row = await connection.fetchrow(
                "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'grants'"
            )
            assert row is not None
            return row["n_tup_upd"], row["n_tup_hot_upd"]
        finally:
            await connection.close()

    async def counted() -> bool:  # the server counts when the writer's session has ended
        return (await updates())[0] == 20

    await eventually(counted)
    assert await updates() == (20, 20)
