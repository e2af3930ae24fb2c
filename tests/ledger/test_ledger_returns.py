"""What went back of payments before each move was written is there as one, and where it was."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import asyncpg

from gateway.ledger import Ledger, migrate
from gateway.ledger.migrate import migrations
from gateway.operations.revenue import revenue_query
from tests.support.billing_rows import ms

if TYPE_CHECKING:
    import pytest

BEFORE = 16


async def test_books_without_moves_have_one_for_each_payment_of_which_something_went_back(
    blank_postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = {number: one for number, one in migrations().items() if number <= BEFORE}
    monkeypatch.setattr(sys.modules[migrate.__module__], "migrations", lambda: first)
    await migrate(blank_postgres_url)
    monkeypatch.undo()
    connection = await asyncpg.connect(blank_postgres_url)
    await connection.execute(
        "INSERT INTO platforms (slug, name) VALUES ('demo', 'Demo');"
        "INSERT INTO accounts (platform_id, name) VALUES (1, 'alice');"
        "INSERT INTO billing_transactions (platform_id, account_id, livemode, business_key, kind,"
        " status, currency, amount_minor, tax_minor, refunded_minor, disputed_minor, created_at,"
        " paid_at) SELECT 1, 1, true, name, 'renewal', 'succeeded', 'eur', 1190, 190, refunded,"
        " disputed, '2026-10-31Z', paid_at FROM (VALUES"
        " ('both', 100, 200, '2026-11-02Z'::timestamptz), ('whole', 1190, 1190, '2026-12-24Z'),"
        " ('nothing', 0, 0, '2026-12-24Z'), ('unpaid', 1, 0, NULL)"
        ") AS made (name, refunded, disputed, paid_at)"
    )

    assert await migrate(blank_postgres_url) == [
        name for number, (name, _) in migrations().items() if number > BEFORE
    ]

    moved = await connection.fetch(
        "SELECT business_key, stripe_id, billing_returns.account_id, made_at::date::text,"
        " billing_returns.amount_minor FROM billing_returns"
        " JOIN billing_transactions ON id = transaction_id ORDER BY id"
    )
    await connection.close()
    assert [tuple(row) for row in moved] == [
        ("both", "", 1, "2026-11-02", 300),
        ("whole", "", 1, "2026-12-24", 2_380),
        ("unpaid", "", 1, "2026-10-31", 1),
    ]
    query = revenue_query("month", ms("2026-10-01"), ms("2026-12-30"), now_ms=0, livemode=True)
    async with Ledger(blank_postgres_url) as ledger:
        page = await ledger.revenue_series(1, query, unit="month", limit=10)
    assert [tuple(point) for point in page.rows] == [
        (ms("2026-11-01"), "eur", 1, 1_190, 300, 190 - 47, 1_190 - 300 - 143),
        (ms("2026-12-01"), "eur", 2, 2_380, 1_190, 190, 1_000),
    ]
