"""A crossing is recorded exactly once, whoever looks how often."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import asyncpg

from gateway.ledger import EventRow, Ledger
from policies.catalog import Plan, Platform
from tests.support.settlements import settlement

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

PRO = Plan("pro", 1_000, low_credits_microcredits=300)


async def make(ledger: Ledger, plan: Plan = PRO, name: str = "alice") -> tuple[int, int]:
    platform_id = (await ledger.apply_catalog(Platform("demo"), (plan,), ())).platform_id
    account_id = await ledger.create_account(platform_id, name, plan.slug)
    assert account_id is not None
    (lot, *_) = await ledger.grants(account_id)
    return account_id, lot.grant_id


async def spend(ledger: Ledger, account_id: int, grant_id: int, amount: int) -> None:
    call = settlement(((grant_id, amount),), account_id=account_id)
    await ledger.record_settlements([call])


async def everywhere(
    url: str, look: Callable[[Ledger], Awaitable[list[EventRow]]]
) -> list[EventRow]:
    """What eight nodes that look at once find together."""
    async with contextlib.AsyncExitStack() as nodes:
        stores = [await nodes.enter_async_context(Ledger(url)) for _ in range(8)]
        found = await asyncio.gather(*map(look, stores))
    return [event for events in found for event in events]


async def test_each_threshold_is_crossed_once(ledger: Ledger, postgres_url: str) -> None:
    account_id, lot = await make(ledger)
    await spend(ledger, account_id, lot, 699)
    assert await ledger.detect_thresholds() == []

    await spend(ledger, account_id, lot, 1)
    (event,) = await everywhere(postgres_url, Ledger.detect_thresholds)
    (grant,) = await ledger.grants(account_id)
    assert event.detail == {
        "percent": 70,
        "settled_microcredits": "700",
        "amount_microcredits": "1000",
        "period_end_ms": grant.expires_ms,
    }
    assert (event.kind, event.account_id, event.delivered_ms) == ("threshold", account_id, 0)

    await spend(ledger, account_id, lot, 300)
    events = await everywhere(postgres_url, Ledger.detect_thresholds)
    assert sorted(event.detail["percent"] for event in events) == [90, 100]
    assert await ledger.detect_thresholds() == []
    told = await ledger.events(account_id)
    assert [event.detail["percent"] for event in told] == [70, 90, 100]


async def test_a_new_period_has_thresholds_of_its_own(ledger: Ledger, postgres_url: str) -> None:
    account_id, lot = await make(ledger)
    await spend(ledger, account_id, lot, 750)
    assert len(await ledger.detect_thresholds()) == 1
    (grant,) = await ledger.grants(account_id)
    assert await ledger.renew(account_id, grant.expires_ms)
    assert await ledger.detect_thresholds() == []
    (new,) = [row for row in await ledger.grants(account_id) if row.grant_id != lot]
    await spend(ledger, account_id, new.grant_id, 700)
    assert [event.detail["percent"] for event in await ledger.detect_thresholds()] == [70]


async def test_accounts_without_a_period_or_a_mark_are_told_nothing(ledger: Ledger) -> None:
    account_id, lot = await make(ledger, Plan("free", 100))
    other = await ledger.create_account(1, "bob")
    assert other is not None
    grant = await ledger.add_grant(other, 10, priority=0)
    assert grant is not None
    await spend(ledger, other, grant, 10)
    assert await ledger.detect_thresholds() == []
    await spend(ledger, account_id, lot, 60)
    assert await ledger.detect_low_credits() == []
    assert await ledger.events(other) == []


async def test_low_credits_are_told_once_per_fall(ledger: Ledger, postgres_url: str) -> None:
    account_id, lot = await make(ledger)
    await spend(ledger, account_id, lot, 700)
    assert await ledger.detect_low_credits() == [], "300 is not below 300"

    await spend(ledger, account_id, lot, 1)
    (event,) = await everywhere(postgres_url, Ledger.detect_low_credits)
    assert (event.kind, event.account_id) == ("low_credits", account_id)
    assert event.detail == {"available_microcredits": "299", "mark_microcredits": "300"}
    assert await ledger.detect_low_credits() == []

    bought = await ledger.add_grant(account_id, 500, priority=5)
    assert bought is not None
    assert await everywhere(postgres_url, Ledger.detect_low_credits) == []
    await spend(ledger, account_id, bought, 500)
    (again,) = await everywhere(postgres_url, Ledger.detect_low_credits)
    assert await ledger.events(account_id) == [event, again]


async def test_overage_is_nothing_left_and_an_ended_lot_neither(
    ledger: Ledger, postgres_url: str
) -> None:
    plan = Plan("pro", 1_000, low_credits_microcredits=300, overage_cap_microcredits=9_000)
    _, lot = await make(ledger, plan)
    assert await ledger.detect_low_credits() == []
    await ledger.revoke_grant(lot)
    (event,) = await ledger.detect_low_credits()
    assert event.detail["available_microcredits"] == "0"


async def test_a_mark_that_is_taken_away_ends_the_low_state_silently(
    ledger: Ledger, postgres_url: str
) -> None:
    account_id, lot = await make(ledger)
    await spend(ledger, account_id, lot, 900)
    assert len(await ledger.detect_low_credits()) == 1
    await ledger.apply_catalog(Platform("demo"), (Plan("pro", 1_000),), ())
    assert await ledger.detect_low_credits() == []
    connection = await asyncpg.connect(postgres_url)
    assert not await connection.fetchval("SELECT low_credits FROM accounts")
    await connection.close()
    await ledger.apply_catalog(Platform("demo"), (PRO,), ())
    assert len(await ledger.detect_low_credits()) == 1
