"""What accounts are to be told: found in the books, recorded once, delivered later."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from gateway.ledger.database import Database

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from asyncpg import Record


class EventRow(NamedTuple):
    """Something that happened to an account; `delivered_ms` 0: nobody was told yet.

    `detail` of a "threshold": percent, settled_microcredits, amount_microcredits, period_end_ms; of
    "low_credits": available_microcredits, mark_microcredits. Amounts are decimal strings.
    """

    event_id: int
    platform_id: int
    account_id: int
    kind: str
    detail: Mapping[str, Any]
    created_ms: int
    delivered_ms: int


class Events(Database):
    """Events of accounts."""

    async def detect_thresholds(self) -> list[EventRow]:
        """Record who has used 70, 90 or 100 % of the plan's credits of this period; the new events.

        Each mark once per account and period, however many look at the same time.
        """
        return _events(await self._session.all("event_thresholds"))

    async def detect_low_credits(self) -> list[EventRow]:
        """Record whose credits have fallen below their plan's mark; the new events.

        Once per fall: an account that has risen above its mark may fall again.
        """
        return _events(await self._session.all("event_low_credits"))

    async def events(self, account_id: int) -> list[EventRow]:
        """Every event of an account, oldest first."""
        return _events(await self._session.all("event_list", account_id))


def _events(records: Iterable[Record]) -> list[EventRow]:
    return [EventRow(**{**record, "detail": json.loads(record["detail"])}) for record in records]
