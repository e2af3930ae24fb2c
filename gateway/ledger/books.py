"""Reading what was settled: calls for people, and the books for the audit."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from gateway.ledger.database import Database, rows
from gateway.ledger.rows import (
    CallBooksRow,
    CallDrift,
    GrantBooksRow,
    GrantDrift,
    SettlementRow,
    UsageDrift,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

AUDIT_ROWS_MAX = 1_000


class BooksPicture(NamedTuple):
    """What Postgres has of some accounts and calls, all as of one instant."""

    grants: list[GrantBooksRow]
    calls: list[CallBooksRow]
    late: Mapping[int, int]


class Books(Database):
    """Settlements, and whether the books agree."""

    async def settlements(self, account_id: int, *, limit: int) -> list[SettlementRow]:
        """The account's last calls, newest first."""
        return rows(SettlementRow, await self._session.all("settlement_list", account_id, limit))

    async def audit_picture(
        self, account_ids: Sequence[int], call_ids: Sequence[str], since_ms: int
    ) -> BooksPicture:
        """The books to hold against a picture of Redis taken at `since_ms` (by Redis' clock).

        `grants`: every lot of the accounts. `calls`: what is known of the calls. `late`: per grant,
        what calls took that were settled after that moment and are not among the calls.
        """
        async with self.transaction(snapshot=True) as session:
            grants = rows(
                GrantBooksRow, await session.all("audit_account_grants", list(account_ids))
            )
            calls = rows(CallBooksRow, await session.all("audit_calls_found", list(call_ids)))
            grant_ids = [grant.grant_id for grant in grants]
            late = await session.all("audit_late", since_ms, grant_ids, list(call_ids))
        return BooksPicture(grants, calls, {row["grant_id"]: row["microcredits"] for row in late})

    async def audit_grants(self) -> list[GrantDrift]:
        """Lots that disagree with the ledger or paid more than they had; at most AUDIT_ROWS_MAX."""
        return rows(GrantDrift, await self._session.all("audit_grants", AUDIT_ROWS_MAX))

    async def audit_calls(self) -> list[CallDrift]:
        """Calls whose settlement and ledger entries disagree; at most AUDIT_ROWS_MAX."""
        return rows(CallDrift, await self._session.all("audit_calls", AUDIT_ROWS_MAX))

    async def audit_usage(self) -> list[UsageDrift]:
        """Roll-ups that are not the sums of their settlements; at most AUDIT_ROWS_MAX."""
        return rows(UsageDrift, await self._session.all("audit_usage", AUDIT_ROWS_MAX))
