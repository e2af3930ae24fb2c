"""What people ask of single calls and grants, by their ids. A foreign id is as an unknown one."""

from __future__ import annotations

from typing import NamedTuple

from gateway.ledger.database import Database, rows
from gateway.ledger.rows import AccountRow


class CallEntry(NamedTuple):
    """A ledger entry of a call, signed as the grant sees it: what it paid is negative."""

    kind: str  # settle | late | refund | grant
    grant_id: int
    microcredits: int
    created_ms: int
    note: str


class Inquiries(Database):
    """Single calls and grants."""

    async def account_of_grant(self, platform_id: int, grant_id: int) -> AccountRow | None:
        """Whose a grant of the platform is."""
        record = await self._session.one("account_of_grant", platform_id, grant_id)
        return AccountRow(**record) if record else None

    async def account_of_call(self, platform_id: int, call_id: str) -> AccountRow | None:
        """Whose a settled call of the platform is."""
        record = await self._session.one("account_of_call", platform_id, call_id)
        return AccountRow(**record) if record else None

    async def call_entries(self, call_id: str) -> list[CallEntry]:
        """What the call moved in which lots: settled, corrected, refunded; in that order."""
        return rows(CallEntry, await self._session.all("call_entries", call_id))
