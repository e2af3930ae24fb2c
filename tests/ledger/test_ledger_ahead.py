"""What a period gives is there ahead of it, once, and not when another plan begins meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING

import asyncpg

from gateway.ledger.periods import AccountChange
from policies.catalog import Plan, Platform

if TYPE_CHECKING:
    from gateway.ledger import Ledger

HOUR_MS = 3_600_000
PLANS = [
    Plan("pro", credits_microcredits=1_000, overage_cap_microcredits=500),
    Plan("team", credits_microcredits=9_000),
    Plan("bare", credits_microcredits=0, requests_per_month=10),
]


async def account_on(ledger: Ledger, plan: str) -> int:
    platform_id = (await ledger.apply_catalog(Platform("demo"), PLANS, ())).platform_id
    account_id = await ledger.create_account(platform_id, f"on {plan}", plan)
    assert account_id is not None
    return account_id


async def end_period_in(url: str, account_id: int, seconds: int) -> int:
    """Let the account's period, and the lots it gave, end so many seconds from now."""
    connection = await asyncpg.connect(url)
    try:
        end_ms = await connection.fetchval(
            "UPDATE accounts SET period_end_at = date_trunc('second', now()) + $2 * interval '1 s',"
            " period_start_at = now() - interval '30 days',"
            " period_anchor_at = now() - interval '30 days'"
            " WHERE id = $1 RETURNING to_ms(period_end_at)",
            account_id,
            seconds,
        )
        await connection.execute(
            "UPDATE grants SET effective_at = now() - interval '30 days', expires_at = from_ms($2)"
            " WHERE account_id = $1",
            account_id,
            end_ms,
        )
    finally:
        await connection.close()
    return int(end_ms)


async def test_only_a_period_that_ends_soon_is_prepared(ledger: Ledger, postgres_url: str) -> None:
    account_id = await account_on(ledger, "pro")
    assert await ledger.renewals_ahead(HOUR_MS) == []
    end_ms = await end_period_in(postgres_url, account_id, 1_800)
    (due,) = await ledger.renewals_ahead(HOUR_MS)
    assert (due.account_id, due.period_end_ms) == (account_id, end_ms)
    assert await ledger.due_renewals() == []


async def test_what_the_next_period_gives_is_given_once_and_begins_with_it(
    ledger: Ledger, postgres_url: str
) -> None:
    account_id = await account_on(ledger, "pro")
    end_ms = await end_period_in(postgres_url, account_id, 1_800)
    assert await ledger.prepare_period(account_id, end_ms)
    assert await ledger.renewals_ahead(HOUR_MS) == []
    assert await ledger.prepare_period(account_id, end_ms)
    grants = await ledger.grants(account_id)
    assert sorted((row.source, row.effective_ms == end_ms) for row in grants) == [
        ("overage", False),
        ("overage", True),
        ("plan", False),
        ("plan", True),
    ]


async def test_renewing_gives_nothing_again_that_was_given_ahead(
    ledger: Ledger, postgres_url: str
) -> None:
    account_id = await account_on(ledger, "pro")
    end_ms = await end_period_in(postgres_url, account_id, 1_800)
    await ledger.prepare_period(account_id, end_ms)
    assert await ledger.renew(account_id, end_ms)
    assert len(await ledger.grants(account_id)) == 4
    assert not await ledger.prepare_period(account_id, end_ms)


async def test_a_plan_that_gives_nothing_needs_no_preparing(
    ledger: Ledger, postgres_url: str
) -> None:
    account_id = await account_on(ledger, "bare")
    await end_period_in(postgres_url, account_id, 1_800)
    assert await ledger.renewals_ahead(HOUR_MS) == []


async def test_what_was_given_ahead_goes_when_another_plan_begins(
    ledger: Ledger, postgres_url: str
) -> None:
    account_id = await account_on(ledger, "pro")
    end_ms = await end_period_in(postgres_url, account_id, 1_800)
    await ledger.prepare_period(account_id, end_ms)
    assert await ledger.change_account(1, account_id, AccountChange(plan_slug="team"))
    revoked = await ledger.lots_to_withdraw(10)
    assert {(lot.source, lot.kind) for lot in revoked if lot.kind == "revoke"} == {
        ("plan", "revoke"),
        ("overage", "revoke"),
    }
    state = await ledger.account_state(account_id)
    assert state is not None
    ahead = {row.grant_id for row in await ledger.grants(account_id) if row.effective_ms == end_ms}
    assert ahead == set()
