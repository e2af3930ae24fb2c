"""What is on its way out of a shard: the outbox, and leases that are over."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from gateway.counters.base import Base
from gateway.counters.errors import CommandRefused
from gateway.counters.keys import AccountKeys
from gateway.counters.resp import bulks
from policies.settlement import LedgerChange

if TYPE_CHECKING:
    from collections.abc import Sequence

    from policies.settlement import Settlement

# Settlements acknowledged by one command: bounds how long Redis is busy with it.
ACKNOWLEDGE_BATCH = 500


class Overdue(NamedTuple):
    """A hold whose lease is over: whose call it is, and its session or ""."""

    call_id: str
    account_id: int
    session: str


class Outbox(Base):
    """For the writer, the sweeper and the reaper."""

    async def acknowledge(self, carried: Sequence[Settlement | LedgerChange]) -> None:
        """Forget what is in Postgres: outbox entries, and what a repeated script would reply."""
        by_shard: dict[int, list[tuple[str, str]]] = {}
        for one in carried:
            name = one.change_id if type(one) is LedgerChange else one[0]
            by_shard.setdefault(one.shard, []).append((name, one.outbox_id or ""))
        asked = []
        for number, of_shard in by_shard.items():
            state = self._shards[number]
            keys = bulks((state.holds, state.outbox))
            for start in range(0, len(of_shard), ACKNOWLEDGE_BATCH):
                names, entries = zip(*of_shard[start : start + ACKNOWLEDGE_BATCH], strict=True)
                asked.append(self._run(state, "acknowledge", keys, *names, *entries))
        await asyncio.gather(*asked)

    async def outbox_page(
        self, shard: int, older_than_ms: int, limit: int, after: str | None = None
    ) -> list[tuple[str, dict[bytes, bytes]]]:
        """Up to `limit` outbox entries (id, fields), oldest first, of `older_than_ms` and more.

        `after` is the last id of the page before. With 0 ms every entry counts, also one from a
        server whose clock was ahead.
        """
        state = self._shards[shard]
        newest = "+"
        if older_than_ms > 0:
            newest = str(max(await self._now_ms(state) - older_than_ms, 0))
        first = "-" if after is None else f"({after}"
        entries = await self._ask(state.link, "XRANGE", state.outbox, first, newest, "COUNT", limit)
        return [
            (entry_id.decode(), dict(zip(flat[::2], flat[1::2], strict=True)))
            for entry_id, flat in entries
        ]

    async def outbox_entry(self, shard: int, outbox_id: str) -> dict[bytes, bytes] | None:
        """One entry's fields; None when it is acknowledged."""
        state = self._shards[shard]
        entries = await self._ask(state.link, "XRANGE", state.outbox, outbox_id, outbox_id)
        return dict(zip(entries[0][1][::2], entries[0][1][1::2], strict=True)) if entries else None

    async def outbox_length(self, shard: int) -> int:
        """How many entries wait."""
        state = self._shards[shard]
        return int(await self._ask(state.link, "XLEN", state.outbox))

    async def overdue(self, shard: int, limit: int) -> list[Overdue]:
        """Up to `limit` holds whose lease is over by Redis' own clock."""
        state = self._shards[shard]
        # A lease is kept as 2 * deadline + stage, so this is every deadline up to now.
        latest = 2 * await self._now_ms(state) + 1
        calls = await self._ask(
            state.link, "ZRANGEBYSCORE", state.leases, "-inf", latest, "LIMIT", 0, limit
        )
        if not calls:
            return []
        texts = await self._ask(state.link, "HMGET", state.holds, *calls)
        live, orphans = [], []
        for call, text in zip(calls, texts, strict=True):
            if text is not None and text.startswith(b"h|"):
                account_id, context = text.split(b"|", 8)[1::7]
                session = context.rpartition(b",")[2].decode()
                live.append(Overdue(call.decode(), int(account_id), session))
            else:
                orphans.append(call)
        # Ended between the two reads, so the lease is gone or useless. Or it is not: the script
        # looks again, for by now a rebuild may have put back the hold, which keeps its lease.
        nobody = AccountKeys(0, state)
        for call in orphans:
            with suppress(CommandRefused):  # it is somebody's
                await self._run(state, "expire", nobody.five, call, 0, 0)
        return live
