"""Carries what is in a shard's outbox to Postgres, once, and then out of the outbox.

An entry is in the outbox from the moment it happened until it is known to be in Postgres. Writing
it is idempotent (a call and a change are counted once), so it does no harm that a living worker, a
sweeper and a rebuild carry the same entry at the same time, or that one of them dies between the
commit and the acknowledgement: the next one writes it again, in vain, and acknowledges.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Protocol

from policies.settlement import LedgerChange, Settlement, parse_entry

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from gateway.ledger import Recorded
    from gateway.ledger.changes import RecordedChanges

PAGE_ROWS_MAX = 1_000
PUT_ASIDE_MAX = 10_000

log = logging.getLogger("tollkeeper.recovery")


class Outbox(Protocol):
    """The shards' outbox streams: `Counters`."""

    async def outbox_page(
        self, shard: int, older_than_ms: int, limit: int, after: str | None = None
    ) -> list[tuple[str, dict[bytes, bytes]]]:
        """Entries of at least this age, oldest first, behind the id `after`."""

    async def outbox_entry(self, shard: int, outbox_id: str) -> dict[bytes, bytes] | None:
        """One entry; None when it is acknowledged."""

    async def acknowledge(self, carried: Sequence[Settlement | LedgerChange]) -> None:
        """Forget what is in Postgres."""


class Books(Protocol):
    """Where entries go: `Ledger`."""

    async def record_settlements(self, settlements: Sequence[Settlement]) -> Recorded:
        """Write a batch, exactly once per call."""

    async def record_changes(self, changes: Sequence[LedgerChange]) -> RecordedChanges:
        """Write a batch, exactly once per change."""


class Carrier:
    """Carries entries, whoever left them.

    One that can't be read, or that Postgres refuses, stays in the outbox for people to look at. It
    is put aside here, so that it neither fills the log nor blocks others; a restart tries again.
    """

    def __init__(self, outbox: Outbox, books: Books) -> None:
        self._outbox = outbox
        self._books = books
        self._put_aside: set[tuple[int, str]] = set()

    async def carry(self, shard: int, *, older_than_ms: int = 0) -> int:
        """Carry every entry of this age and older; answers how many.

        Raises: LedgerUnavailable, CountersUnavailable; what was not carried is where it was.
        """
        carried = 0
        after: str | None = None
        while True:
            page = await self._outbox.outbox_page(shard, older_than_ms, PAGE_ROWS_MAX, after)
            carried += await self._carry(shard, page)
            if len(page) < PAGE_ROWS_MAX:
                return carried
            after = page[-1][0]

    async def carry_entry(self, shard: int, outbox_id: str) -> Settlement | LedgerChange | None:
        """Carry one entry now; answers what it said.

        None when it can't be carried, or is not there any more: then Postgres has it. Raises: as
        `carry`.
        """
        fields = await self._outbox.outbox_entry(shard, outbox_id)
        entries = self._read(shard, [(outbox_id, fields)] if fields else [])
        carried = await self._record(entries)
        await self._outbox.acknowledge(carried)
        return carried[0] if carried else None

    async def _carry(self, shard: int, page: Iterable[tuple[str, Mapping[bytes, bytes]]]) -> int:
        carried = await self._record(self._read(shard, page))
        if carried:
            await self._outbox.acknowledge(carried)
        return len(carried)

    async def _record(
        self, entries: Sequence[Settlement | LedgerChange]
    ) -> list[Settlement | LedgerChange]:
        """Write entries; those that Postgres has now. A refused one is put aside."""
        settlements = [entry for entry in entries if isinstance(entry, Settlement)]
        changes = [entry for entry in entries if isinstance(entry, LedgerChange)]
        carried: list[Settlement | LedgerChange] = []
        if settlements:
            carried += (await self._books.record_settlements(settlements)).durable
        if changes:
            carried += (await self._books.record_changes(changes)).durable
        if len(carried) < len(entries):
            durable = {entry.outbox_id for entry in carried}
            for entry in entries:
                if entry.outbox_id not in durable:
                    self._put(entry.shard, entry.outbox_id or "")
        return carried

    def _read(
        self, shard: int, page: Iterable[tuple[str, Mapping[bytes, bytes]]]
    ) -> list[Settlement | LedgerChange]:
        entries = []
        for outbox_id, fields in page:
            if (shard, outbox_id) in self._put_aside:
                continue
            try:
                entries.append(parse_entry(shard, outbox_id, fields))
            except ValueError as error:
                log.error("shard %d: %s", shard, error)  # noqa: TRY400 -- the text says it all
                self._put(shard, outbox_id)
        return entries

    def _put(self, shard: int, outbox_id: str) -> None:
        if len(self._put_aside) < PUT_ASIDE_MAX:
            self._put_aside.add((shard, outbox_id))
