"""What people ask of single calls and grants, by their ids. A foreign id is as an unknown one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from gateway.ledger.database import Database, rows
from gateway.ledger.rows import AccountRow, SettlementRow

if TYPE_CHECKING:
    from collections.abc import Mapping


class ReceiptEntry(NamedTuple):
    """A ledger entry of a call and the kind of lot it is about, signed as the lot sees it."""

    kind: str  # settle | late | refund | grant
    grant_id: int
    source: str | None  # plan | pack | trial | ...; None: the lot is gone
    microcredits: int
    created_ms: int
    note: str


class ReceiptRow(NamedTuple):
    """A settled call with what its receipt names. None: the row of that number is gone."""

    settlement: SettlementRow
    account_name: str | None
    route_name: str | None
    key_name: str | None
    key_prefix: str | None
    key_last4: str | None
    price: Mapping[str, Any] | None  # the spec of the price version that it was sold at
    entries: list[ReceiptEntry]


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

    async def receipt(
        self, platform_id: int, call_id: str, *, account_id: int | None = None
    ) -> ReceiptRow | None:
        """A settled call of the platform, or of that account of it, and all that it moved."""
        async with self.transaction(snapshot=True) as session:
            record = await session.one("receipt_find", platform_id, call_id, account_id)
            if record is None:
                return None
            entries = await session.all("receipt_entries", call_id, record["settled_ms"])
        fields = dict(record)
        price = fields.pop("price")
        names = {name: fields.pop(name) for name in ReceiptRow._fields if name in fields}
        return ReceiptRow(
            settlement=SettlementRow(**fields),
            price=None if price is None else json.loads(price),
            entries=rows(ReceiptEntry, entries),
            **names,
        )
