"""What only the commands of operators ask: migrations, locks, every account."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple

from gateway.ledger.database import Database, rows
from gateway.ledger.migrate import migrations

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence


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

    async def audit_accounts(self) -> list[AuditAccountRow]:
        """Every account of the deployment by id."""
        return rows(AuditAccountRow, await self._session.all("audit_accounts"))
