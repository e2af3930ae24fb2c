"""Late settlements: how calls ended that Redis could not be told of, until it can.

A row is the durable intent; what is charged is decided in Redis, like every charge, by whoever
takes the row (gateway/recovery).
"""

from __future__ import annotations

import uuid
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from gateway.ledger.database import Database, Session, rows
from policies.settlement import LateSettlement

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

NO_CALL = uuid.UUID(int=0)


class TakenLate:
    """A late settlement that nobody else has while the transaction lasts."""

    def __init__(self, row: LateSettlement, session: Session) -> None:
        self.row = row
        self._session = session

    async def delete(self) -> None:
        """Redis has charged it: the row goes when the transaction ends."""
        await self._session.value("late_delete", self.row.call_id)


class LateSettlements(Database):
    """Late settlements."""

    async def add_late_settlement(self, row: LateSettlement) -> None:
        """Keep how a call ended. Idempotent.

        A row that was applied and deleted meanwhile comes back, and applying it then finds the call
        settled.

        Raises: LedgerRejected when Postgres refuses the row for good.
        """
        await self._session.value("late_insert", *row)

    async def late_settlements_of_shard(self, shard: int) -> list[LateSettlement]:
        """What the shard's Redis was not told of yet, oldest call first."""
        return rows(LateSettlement, await self._session.all("late_list", shard, None))

    async def late_settlements_of_accounts(
        self, account_ids: Sequence[int]
    ) -> list[LateSettlement]:
        """The same of some accounts."""
        return rows(LateSettlement, await self._session.all("late_list", None, list(account_ids)))

    @asynccontextmanager
    async def take_late_settlement(
        self, *, after: str = "", shard: int | None = None
    ) -> AsyncIterator[TakenLate | None]:
        """The oldest one that nobody has taken, later than call id `after`; None: there is none.

        It is kept from everybody else until this context ends, on a connection of its own, so that
        its holder may ask the ledger anything meanwhile. Unless `delete` was called, and the
        context left without an exception, the row stays.
        """
        async with self.transaction_apart() as session:
            record = await session.one("late_take", after or NO_CALL, shard)
            yield None if record is None else TakenLate(LateSettlement(**record), session)
