"""Accounts: what people change.

Postgres is told first, Redis afterwards; that second half is in gateway/operations.
"""

from __future__ import annotations

from gateway.ledger.database import Database, rows
from gateway.ledger.rows import AccountRow


class Accounts(Database):
    """Customers of platforms."""

    async def accounts(self, platform_id: int) -> list[AccountRow]:
        """Every account of a platform by name."""
        return rows(AccountRow, await self._session.all("account_list", platform_id, None))

    async def find_account(self, platform_id: int, name: str) -> AccountRow | None:
        """The platform's account of this name."""
        record = await self._session.one("account_list", platform_id, name)
        return AccountRow(**record) if record else None

    async def account_ids_of_plan(self, platform_id: int, plan_slug: str) -> list[int]:
        """Whose limits change when this plan changes."""
        records = await self._session.all("account_ids_of_plan", platform_id, plan_slug)
        return [row["account_id"] for row in records]
