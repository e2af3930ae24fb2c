"""Long tables are read along their indexes, also by a role that row-level security binds."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import asyncpg
import pytest
import pytest_asyncio

from gateway.ledger import Scope, Tenancy
from gateway.ledger.queries import load_queries
from tests.support import servers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

# Enough for the planner to mind: two platforms, many accounts, a hundred of which call.
FILL = """
INSERT INTO platforms (slug, name) VALUES ('one', 'One'), ('two', 'Two');

INSERT INTO accounts (platform_id, name)
SELECT 1 + n % 2, 'account ' || n FROM generate_series(1, 5000) n;

INSERT INTO api_keys (platform_id, account_id, name, prefix, last4, pepper_version, digest)
SELECT platform_id, id, 'k', 'tk', '0000', 1, sha256(id::text::bytea) FROM accounts;

INSERT INTO grants (platform_id, account_id, source, amount_microcredits, effective_at, priority)
SELECT platform_id, id, 'manual', 5, now(), 1 FROM accounts, generate_series(1, 5);

INSERT INTO settlements
SELECT
    (lpad(to_hex(to_ms(at)), 12, '0') || '7' || lpad(to_hex(n), 19, '8'))::uuid,
    1 + n % 2, 1 + n % 100, 1 + n % 100, 1 + n % 7, 1, at, at,
    'completed', 200, 'token=1', '', 5, 5, 0, ''
FROM generate_series(1, 40000) n, LATERAL (SELECT now() - n * interval '1 minute' AS at) moment;

INSERT INTO ledger_entries
    (platform_id, account_id, grant_id, call_id, kind, microcredits, created_at)
SELECT platform_id, account_id, 1, call_id, 'settle', -5, settled_at
FROM settlements ORDER BY settled_at;

INSERT INTO usage_hourly
SELECT platform_id, account_id, date_trunc('hour', settled_at), route_id, key_id,
    count(*), 0, 0, 0, 0
FROM settlements GROUP BY 1, 2, 3, 4, 5;

INSERT INTO usage_accounts_daily
SELECT platform_id, date_trunc('day', hour), account_id, sum(calls), 0, 0, 0, 0
FROM usage_hourly GROUP BY 1, 2, 3;

INSERT INTO usage_parts_daily
SELECT platform_id, account_id, date_trunc('day', hour), false, route_id, sum(calls), 0, 0, 0, 0
FROM usage_hourly GROUP BY 1, 2, 3, 5;

INSERT INTO usage_routes_hourly
SELECT platform_id, hour, route_id, sum(calls), 0, 0, 0, 0 FROM usage_hourly GROUP BY 1, 2, 3;

INSERT INTO audit_log (
    platform_id, account_id, at, actor, address, request_id, action, resource, resource_id,
    before, after
)
SELECT platform_id, account_id, now() - id * interval '1 minute', 'a', '', '', 'create', 'key', id,
    '{}', '{}'
FROM api_keys;

SELECT brin_summarize_new_values('ledger_entries_created');
ANALYZE;
"""
FIRST, LAST = f"'{'0' * 32}'", f"'{'f' * 32}'"


@pytest_asyncio.fixture(scope="module")
async def filled_url(postgres_server_url: str, _migrated_template: str) -> AsyncIterator[str]:
    url = await servers.create_database(postgres_server_url, _migrated_template)
    connection = await asyncpg.connect(url)
    await connection.execute(FILL)
    await connection.close()
    yield url
    await servers.drop_database(url, postgres_server_url)


async def plan_of(url: str, name: str, arguments: list[str], tenant: tuple[str, str] | None) -> str:
    """The plan for any arguments, which is what connections keep after a few times."""
    text = load_queries()[name]
    count = max(int(number) for number in re.findall(r"\$(\d+)", text))
    arguments = arguments + ["NULL"] * (count - len(arguments))
    settings = {"plan_cache_mode": "force_generic_plan", "jit": "off"}
    connection = await asyncpg.connect(url, server_settings=settings)
    try:
        if tenant is not None:
            await connection.execute(
                "SET ROLE tollkeeper_api;"
                f"SET tollkeeper.platform = '{tenant[0]}'; SET tollkeeper.account = '{tenant[1]}'"
            )
        await connection.execute(f"PREPARE asked AS {text}")
        rows = await connection.fetch(f"EXPLAIN (COSTS OFF) EXECUTE asked ({', '.join(arguments)})")
    finally:
        await connection.close()
    return "\n".join(row[0] for row in rows)


OF_A_CALL = ["1", "'01a1fa40661a78a78681314a33db4851'"]


@pytest.mark.parametrize(
    "tenant", [None, ("1", ""), ("1", "1")], ids=["owner", "platform", "account"]
)
@pytest.mark.parametrize(
    ("query", "arguments", "indexes"),
    [
        ("settlement_search", ["1", FIRST, LAST], ["platform_id_call_id_idx"]),
        ("settlement_search_account", ["1", FIRST, LAST], ["account_id_call_id_idx"]),
        ("settlement_search_session", ["1", FIRST, LAST], ["account_id_session_call_id_idx"]),
        ("settlement_tail", [], ["platform_id_settled_at_account_id_idx"]),
        ("settlement_tail_account", [], ["platform_id_settled_at_account_id_idx"]),
        ("receipt_find", OF_A_CALL, ["settlements_20", "on accounts", "on api_keys"]),
        ("usage_account", [], ["usage_hourly_pkey"]),
        ("usage_account_parts", [], ["usage_parts_daily_pkey"]),
        ("usage_account_days", [], ["usage_accounts_daily_pkey"]),
        ("usage_total_account", [], ["usage_hourly_pkey", "usage_accounts_daily_pkey"]),
        ("account_page", [], ["accounts_p"]),
        ("account_grants", [], ["grants_account"]),
        ("audit_log_page", [], ["audit_log_platform"]),
        ("audit_log_page_account", [], ["audit_log_account"]),
        ("audit_log_page_resource", [], ["audit_log_resource"]),
    ],
)
async def test_a_page_is_read_along_its_index(
    filled_url: str,
    query: str,
    arguments: list[str],
    indexes: list[str],
    tenant: tuple[str, str] | None,
) -> None:
    plan = await plan_of(filled_url, query, arguments, tenant)
    assert all(index in plan for index in indexes), plan
    scanned = re.findall(
        r"Seq Scan on (settlements_\w+|accounts|api_keys|audit_log|grants|usage_\w+)", plan
    )
    assert scanned == [], plan


async def test_a_small_platform_is_not_looked_for_among_the_calls_of_a_large_one(
    postgres_url: str,
) -> None:
    fill = FILL.replace("1 + n % 2, 1 + n % 100", "1, 1 + n % 100")
    connection = await asyncpg.connect(postgres_url)
    await connection.execute(fill)
    await connection.close()
    async with Tenancy(postgres_url) as tenancy:
        plans = []
        for platform_id in [1] * 8 + [2]:
            ledger = tenancy.ledger(Scope(platform_id, None, "token:1"))
            async with ledger.transaction() as session:
                await session.all(
                    "settlement_search", platform_id, "0" * 32, "f" * 32, 10, 10, *[None] * 5
                )
                plans = await session._runner.fetch(
                    "EXPLAIN (COSTS OFF) " + load_queries()["settlement_search"],
                    platform_id,
                    "0" * 32,
                    "f" * 32,
                    10,
                    10,
                    *[None] * 5,
                )
                plans_for_all = await session._runner.fetchval(
                    "SELECT sum(generic_plans) FROM pg_prepared_statements"
                    " WHERE statement LIKE '-- %'"
                )
                assert plans_for_all == 0
    plan = "\n".join(row[0] for row in plans)
    assert "platform_id_call_id_idx" in plan, plan


@pytest.mark.parametrize(
    "query",
    [name for name in load_queries() if name.startswith("usage_")],
)
def test_usage_never_reads_a_settlement(query: str) -> None:
    statement = re.sub(r"--.*", "", load_queries()[query])
    assert "settlements" not in statement
    assert "ledger_entries" not in statement


async def test_a_time_reads_its_months_only(filled_url: str) -> None:
    connection = await asyncpg.connect(filled_url)
    try:
        rows = await connection.fetch(
            "EXPLAIN (COSTS OFF) " + load_queries()["settlement_search"],
            1,
            "0" * 32,
            "0" * 31 + "1",
            10,
            10,
            *[None] * 5,
        )
    finally:
        await connection.close()
    assert not re.search(r"settlements_20\d\d", "\n".join(row[0] for row in rows))
