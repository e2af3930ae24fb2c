"""The audit sees every way in which the books can disagree."""

from __future__ import annotations

from typing import TYPE_CHECKING

import asyncpg
import pytest

from tests.support.settlements import account_with_grants, assert_books_agree, settlement

if TYPE_CHECKING:
    from gateway.ledger import Ledger


async def tampered(url: str, *statements: str) -> None:
    """Change what triggers protect, as only somebody with the owner's password can."""
    connection = await asyncpg.connect(url, server_settings={"session_replication_role": "replica"})
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


@pytest.mark.parametrize(
    ("change", "found_by"),
    [
        ("UPDATE grants SET settled_microcredits = settled_microcredits + 1", {"grants"}),
        ("UPDATE grants SET amount_microcredits = amount_microcredits - 1", {"grants"}),
        ("UPDATE grants SET expired_microcredits = 1", {"grants"}),
        ("DELETE FROM ledger_entries WHERE kind = 'grant'", {"grants"}),
        ("DELETE FROM ledger_entries WHERE kind = 'settle'", {"grants", "calls"}),
        ("UPDATE ledger_entries SET microcredits = -6 WHERE kind = 'settle'", {"grants", "calls"}),
        ("UPDATE ledger_entries SET account_id = 99 WHERE kind = 'settle'", {"calls"}),
        ("DELETE FROM settlements", {"calls", "usage"}),
        ("UPDATE settlements SET charged_microcredits = 6", {"calls", "usage"}),
        ("UPDATE usage_hourly SET calls = 2", {"usage", "rollups"}),
        ("UPDATE usage_hourly SET held_microcredits = 0", {"usage", "rollups"}),
        ("DELETE FROM usage_hourly", {"usage", "rollups"}),
        ("UPDATE usage_accounts_daily SET held_microcredits = 0", {"rollups"}),
        ("UPDATE usage_accounts_daily SET calls_completed = 0", {"rollups"}),
        ("DELETE FROM usage_accounts_daily", {"rollups"}),
        ("UPDATE usage_parts_daily SET charged_microcredits = 0 WHERE is_key", {"rollups"}),
        ("DELETE FROM usage_parts_daily WHERE NOT is_key", {"rollups"}),
        ("UPDATE usage_routes_hourly SET calls = 0", {"rollups"}),
        ("UPDATE usage_routes_daily SET uncollected_microcredits = 1", {"rollups"}),
    ],
)
async def test_the_audit_finds_books_that_disagree(
    ledger: Ledger, postgres_url: str, change: str, found_by: set[str]
) -> None:
    platform_id, account_id, (grant,) = await account_with_grants(ledger, 1_000)
    call = settlement(((grant, 5),), platform_id=platform_id, account_id=account_id)
    await ledger.record_settlements([call])
    await assert_books_agree(ledger)

    await tampered(postgres_url, change)

    findings = {
        "grants": await ledger.audit_grants(),
        "calls": await ledger.audit_calls(),
        "usage": await ledger.audit_usage(),
        "rollups": await ledger.audit_rollups(),
    }
    assert {name for name, rows in findings.items() if rows} == found_by
    assert {row.account_id for rows in findings.values() for row in rows} <= {account_id, 99, 0}
    assert all(row.call_id == call.call_id for row in findings["calls"])


async def test_the_audit_finds_a_grant_that_paid_more_than_it_had(ledger: Ledger) -> None:
    platform_id, account_id, (grant,) = await account_with_grants(ledger, 4)
    await ledger.record_settlements(
        [settlement(((grant, 5),), platform_id=platform_id, account_id=account_id)]
    )
    (drift,) = await ledger.audit_grants()
    assert (drift.grant_id, drift.settled_microcredits, drift.settled_by_ledger) == (grant, 5, 5)
