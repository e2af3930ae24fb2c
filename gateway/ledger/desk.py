"""What only operators' commands ask: locks, balances, reports (gateway/operations)."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple

from gateway.ledger.database import Database, rows
from gateway.ledger.migrate import migrations

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

REPORT_ROWS_MAX = 10_000


class BalanceRow(NamedTuple):
    """The sums over an account's lots; `left` only over lots that can pay now."""

    account_id: int
    granted_microcredits: int
    settled_microcredits: int
    left_microcredits: int


class UsageReportRow(NamedTuple):
    """One line of a usage report. None: not told apart, or the row of that name is gone."""

    since_ms: int | None
    account_name: str | None
    route_name: str | None
    key_id: int | None
    calls: int
    calls_completed: int
    charged_microcredits: int
    uncollected_microcredits: int


class AuditAccountRow(NamedTuple):
    """An account of any platform."""

    account_id: int
    name: str
    platform_slug: str


class Desk(Database):
    """For commands."""

    def __init__(
        self,
        url: str,
        *,
        connections_max: int,
        command_timeout_s: float,
        settings: Mapping[str, str],
    ) -> None:
        super().__init__(
            url,
            connections_max=connections_max,
            command_timeout_s=command_timeout_s,
            settings=settings,
        )
        self._locking = asyncio.Lock()

    async def missing_migrations(self) -> list[str]:
        """Names of this version's migrations that the database has not."""
        done = set()
        if await self._session.value("migration_table"):
            done = {row["version"] for row in await self._session.all("migration_list")}
        return [name for version, (name, _) in migrations().items() if version not in done]

    @asynccontextmanager
    async def account_locked(self, account_id: int) -> AsyncIterator[None]:
        """Keep other commands from telling Redis about this account, while it lasts."""
        # One at a time in this process: it needs a connection outside the pool for each.
        async with self._locking, self.transaction_apart() as session:
            await session.value("account_lock", account_id)
            yield

    @asynccontextmanager
    async def accounts_locked(self, account_ids: Sequence[int]) -> AsyncIterator[None]:
        """The same of many accounts."""
        async with self._locking, self.transaction_apart() as session:
            await session.all("account_lock_many", list(account_ids))
            yield

    async def balances(self, platform_id: int) -> dict[int, BalanceRow]:
        """Every account's sums by its id."""
        found = rows(BalanceRow, await self._session.all("account_balances", platform_id))
        return {row.account_id: row for row in found}

    async def usage_report(
        self,
        platform_id: int,
        since_ms: int,
        until_ms: int,
        *,
        account_id: int | None = None,
        by_account: bool = False,
        by_route: bool = False,
        by_key: bool = False,
        unit: str = "",
    ) -> list[UsageReportRow]:
        """Usage in [since, until), told apart as asked; `unit` is "hour", "day", "month" or "".

        At most REPORT_ROWS_MAX rows.
        """
        records = await self._session.all(
            "usage_report",
            platform_id,
            account_id,
            since_ms,
            until_ms,
            by_account,
            by_route,
            by_key,
            unit,
            REPORT_ROWS_MAX,
        )
        return rows(UsageReportRow, records)

    async def audit_accounts(self) -> list[AuditAccountRow]:
        """Every account of the deployment by id."""
        return rows(AuditAccountRow, await self._session.all("audit_accounts"))
