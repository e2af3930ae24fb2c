"""Which accounts have changed since Redis was told of them: noted by triggers (migrations/0010)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.ledger.database import Database

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gateway.ledger.database import Session


class Untold(Database):
    """What Redis may not know."""

    async def untold_changes(self, account_ids: Sequence[int]) -> dict[int, int]:
        """The last change of those of these accounts that Redis was not told of."""
        records = await self._session.all("untold_find", list(account_ids))
        return {row["account_id"]: row["change"] for row in records}

    async def mark_told(self, changes: Mapping[int, int]) -> None:
        """Redis was told of these changes, by account; of a later one it was not."""
        if changes:
            await self._session.value("untold_delete", list(changes), list(changes.values()))

    async def untold_accounts(self, *, older_than_ms: int, limit: int) -> list[int]:
        """Accounts whose last change is so old and was not told, the oldest first."""
        records = await self._session.all("untold_list", older_than_ms, limit)
        return [row["account_id"] for row in records]


async def note_untold(session: Session, account_id: int) -> None:
    """Within a change: Redis is to be told of an account, whoever dies before it is."""
    await session.value("untold_note", account_id)
