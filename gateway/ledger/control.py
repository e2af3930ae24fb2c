"""What only the API asks: single rows by their ids, and turns at changing one resource."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from gateway.ledger.database import Database
from gateway.ledger.rows import AccountRow

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

# Changes of resources at the same time, of one process; each has a connection outside the pool.
TURNS_MAX = 8


class Control(Database):
    """For the API."""

    def __init__(self, url: str, **options: Any) -> None:
        super().__init__(url, **options)
        self._turns = asyncio.Semaphore(TURNS_MAX)

    async def account(self, platform_id: int, account_id: int) -> AccountRow | None:
        """The platform's account of this id."""
        record = await self._session.one("account_get", platform_id, account_id)
        return AccountRow(**record) if record else None

    async def route_id(self, platform_id: int, name: str) -> int | None:
        """The id of the platform's route of this name, in service or not."""
        route_id = await self._session.value("route_id_find", platform_id, name)
        return None if route_id is None else int(route_id)

    @asynccontextmanager
    async def resource_locked(self, name: str) -> AsyncIterator[None]:
        """Keep other changes of the resource, by its path, waiting while it lasts."""
        async with self._turns, self.transaction_apart() as session:
            await session.value("resource_lock", name)
            yield

    async def request_changed(self, request_id: str) -> bool:
        """Whether a request to the API has changed anything that the audit log knows of."""
        return bool(await self._session.value("audit_log_has", request_id))
