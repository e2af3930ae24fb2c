"""Reading what was settled: calls for people, and whether the books agree with themselves."""

from __future__ import annotations

from gateway.ledger.database import Database, rows
from gateway.ledger.rows import (
    CallDrift,
    ChangeDrift,
    GrantDrift,
    RollupDrift,
    SettlementRow,
    UsageDrift,
)

AUDIT_ROWS_MAX = 1_000


class Books(Database):
    """Settlements, and whether the books agree."""

    async def settlements(self, account_id: int, *, limit: int) -> list[SettlementRow]:
        """The account's last calls, newest first."""
        records = await self._session.all("settlement_list", account_id, limit)
        return rows(SettlementRow, records)

    async def audit_grants(self) -> list[GrantDrift]:
        """Lots that disagree with the ledger or paid more than they had; at most AUDIT_ROWS_MAX."""
        return rows(GrantDrift, await self._session.all("audit_grants", AUDIT_ROWS_MAX))

    async def audit_changes(self) -> list[ChangeDrift]:
        """Changes that disagree with the ledger, and calls that got too much back.

        At most AUDIT_ROWS_MAX.
        """
        return rows(ChangeDrift, await self._session.all("audit_changes", AUDIT_ROWS_MAX))

    async def audit_calls(self) -> list[CallDrift]:
        """Calls whose settlement and ledger entries disagree; at most AUDIT_ROWS_MAX."""
        return rows(CallDrift, await self._session.all("audit_calls", AUDIT_ROWS_MAX))

    async def audit_usage(self) -> list[UsageDrift]:
        """Roll-ups that are not the sums of their settlements; at most AUDIT_ROWS_MAX."""
        return rows(UsageDrift, await self._session.all("audit_usage", AUDIT_ROWS_MAX))

    async def audit_rollups(self) -> list[RollupDrift]:
        """Coarser roll-ups that are not the sums of the hourly one; at most AUDIT_ROWS_MAX."""
        return rows(RollupDrift, await self._session.all("audit_rollups", AUDIT_ROWS_MAX))
