"""Parked holds: what tasks hold that outlive their calls, so that it outlives Redis, too.

A row says that its hold is to be in Redis until its call is settled; a lost shard is rebuilt with
it (gateway/recovery). Redis decides every charge, so a row whose call turns out to be settled is
only late to go.
"""

from __future__ import annotations

from typing import NamedTuple

from gateway.ledger.database import Database, rows

CLEAN_ROWS_MAX = 500


class ParkedHold(NamedTuple):
    """A hold that lives with a task: its text, and what finds it by the task's digest."""

    call_id: str
    shard: int
    platform_id: int
    account_id: int
    task: str
    hold: str
    record: str
    lease_ms: int


class ParkedHolds(Database):
    """Parked holds."""

    async def add_parked_hold(self, row: ParkedHold) -> None:
        """Keep one. Idempotent; a newer text of the same hold replaces the one before."""
        await self._session.value("parked_insert", *row)

    async def forget_parked_hold(self, call_id: str) -> None:
        """The call is settled."""
        await self._session.value("parked_delete", call_id)

    async def parked_holds(self, shard: int) -> list[ParkedHold]:
        """What a shard is to have; calls that are settled meanwhile may still be among it."""
        return rows(ParkedHold, await self._session.all("parked_list", shard))

    async def clean_parked_holds(self) -> int:
        """Forget up to `CLEAN_ROWS_MAX` of those whose calls are settled; answers how many."""
        return int(await self._session.value("parked_clean", CLEAN_ROWS_MAX))
