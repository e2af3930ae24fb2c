"""Makes accounts owe credits, as a refund of what was spent does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import asyncpg

if TYPE_CHECKING:
    from gateway.ledger import AccountRow


async def owe(postgres_url: str, account: AccountRow, microcredits: int) -> None:
    """The account owes so much more."""
    connection = await asyncpg.connect(postgres_url)
    try:
        await connection.execute(
            "WITH entered AS ("
            " INSERT INTO debt_entries (platform_id, account_id, kind, microcredits)"
            " VALUES ($2, $1, 'owed', $3))"
            " INSERT INTO account_debts (account_id, platform_id, owed_microcredits)"
            " VALUES ($1, $2, $3) ON CONFLICT (account_id) DO UPDATE"
            " SET owed_microcredits = account_debts.owed_microcredits + excluded.owed_microcredits",
            account.account_id,
            account.platform_id,
            microcredits,
        )
    finally:
        await connection.close()
