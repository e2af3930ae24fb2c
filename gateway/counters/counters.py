"""Redis as the rest of the gateway sees it: reserve, settle, void, expire, load, audit.

Whether a script ran is uncertain once its connection is cut or its deadline has passed. Every
script is idempotent by its call id (or grant id, or epoch), so after a cut it is sent once more,
while the deadline lasts; after NOSCRIPT it was not run and is sent again with its text. Nothing
else is ever sent twice. A call whose admission stays uncertain was told that it failed, so whatever
it may hold is voided as soon as Redis answers again; should this process die before that, the lease
ends the hold.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Self

import hiredis

from gateway.counters.connection import IN_FLIGHT_MAX, Link
from gateway.counters.doubts import Doubts
from gateway.counters.endpoint import parse_url
from gateway.counters.errors import (
    CommandRefused,
    CountersUnavailable,
    Unanswered,
)
from gateway.counters.keys import AccountKeys, Shard, shard_of
from gateway.counters.replies import (
    ServerFacts,
    Snapshot,
    denial,
    lost,
    server_facts,
    snapshot,
)
from gateway.counters.resp import Integers, Part, bulks, pack
from gateway.counters.retries import send_again
from gateway.counters.scripts import read_scripts
from policies.decision import (
    Admitted,
    AlreadySettled,
    HoldGone,
    LeaseRunning,
    Settled,
    Voided,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from policies.decision import Admission, Expiring, NotLoaded, Settling, Voiding
    from policies.settlement import Settlement

DEADLINE_MS = 250
# Settlements acknowledged by one command: bounds how long Redis is busy with it.
ACKNOWLEDGE_BATCH = 500

ADMIT_ARGUMENTS = 8
SETTLE_ARGUMENTS = 5


class Counters:
    """The shards of one deployment, on one multiplexed connection per server.

    An async context manager; belongs to the event loop that entered it. Every method raises
    CountersUnavailable when Redis gives no usable answer within `deadline_ms`.
    """

    def __init__(
        self,
        url: str,
        *,
        shards: int,
        deadline_ms: int = DEADLINE_MS,
        in_flight_max: int = IN_FLIGHT_MAX,
    ) -> None:
        """`url` as in `endpoint`. Raises: CountersMisconfigured when it is no such URL."""
        self._scripts = read_scripts()
        self._admit_head = self._scripts["admit"].head(ADMIT_ARGUMENTS)
        self._settle_head = self._scripts["settle"].head(SETTLE_ARGUMENTS)
        self._link = Link(
            parse_url(url),
            self._scripts.values(),
            deadline_s=deadline_ms / 1000,
            in_flight_max=in_flight_max,
        )
        self._shards = [Shard(number, self._link) for number in range(shards)]
        self._integers = Integers()
        self._doubts = Doubts(self.void)

    async def __aenter__(self) -> Self:
        """Connect.

        Raises: CountersMisconfigured, CountersUnavailable, each with a sentence for the operator.
        """
        await self._link.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._doubts.close()
        await self._link.close()

    def keys(self, account_id: int) -> AccountKeys:
        """The packed keys of an account; keep them as long as the account is cached."""
        return AccountKeys(account_id, self._shards[shard_of(account_id, len(self._shards))])

    # The hot path. Both calls build their command in one expression and decode in place.

    async def admit(  # noqa: PLR0917 -- keywords would cost the hot path, and callers are two
        self,
        keys: AccountKeys,
        call_id: str,
        key_id: bytes,
        amount: int,
        lease_ms: int,
        floor: int,
        context: bytes,
    ) -> Admission:
        """Decide whether a call may run, and hold `amount` microcredits for it.

        `floor` is what the call costs should its hold expire; `context` comes back in the outbox.
        """
        state = keys.state
        integers = self._integers
        head = self._admit_head
        call = call_id.encode()
        command = b"%b%b$%d\r\n%b\r\n%b$16\r\n%016d\r\n$%d\r\n%b\r\n%b%b%b$%d\r\n%b\r\n" % (
            head,
            keys.four,
            len(call),
            call,
            state.epoch_packed,
            state.seq,
            len(key_id),
            key_id,
            integers[amount],
            integers[lease_ms],
            integers[floor],
            len(context),
            context,
        )
        try:
            reply = await state.link.submit(command)
        except CountersUnavailable as failure:
            reply = failure
        except asyncio.CancelledError:
            self._doubts.add(keys, call_id)
            raise
        if type(reply) is not list:
            reply = await self._admit_again(keys, call_id, command[len(head) :], reply)
        if reply[0] == b"OK":
            _, epoch, seq, remaining, allocation, now_ms, rpm_limit, rpm_remaining = reply
            if epoch == state.epoch and seq > state.seq:
                state.seq = seq
            else:
                state.saw(epoch, seq)
            return Admitted(
                call_id,
                epoch,
                seq,
                remaining,
                allocation.decode(),
                now_ms,
                rpm_limit,
                rpm_remaining,
            )
        return denial(reply, state, amount)

    async def settle(self, keys: AccountKeys, call_id: str, owed: int, result: bytes) -> Settling:
        """End a call's hold with what it costs: `owed` microcredits.

        `result` goes into the outbox as it is.
        """
        state = keys.state
        head = self._settle_head
        call = call_id.encode()
        command = b"%b%b$%d\r\n%b\r\n%b$16\r\n%016d\r\n%b$%d\r\n%b\r\n" % (
            head,
            keys.five,
            len(call),
            call,
            state.epoch_packed,
            state.seq,
            self._integers[owed],
            len(result),
            result,
        )
        try:
            reply = await state.link.submit(command)
        except CountersUnavailable as failure:
            reply = failure
        if type(reply) is not list:
            tail = command[len(head) :]
            reply = await self._again(state, "settle", SETTLE_ARGUMENTS, tail, reply)
        if reply[0] == b"OK":
            return self._settled(state, reply)
        if reply[0] == b"GONE":
            state.saw(reply[1], reply[2])
            return HoldGone()
        return lost(reply)

    # The rest: one call of a script each.

    async def void(self, keys: AccountKeys, call_id: str) -> Voiding:
        """Undo the hold of a call that was never sent on."""
        reply = await self._run(keys.state, "void", keys.four, call_id, *self._known(keys.state))
        match reply[0]:
            case b"OK":
                return Voided(reply[3])
            case b"GONE":
                return HoldGone()
            case b"SETTLED":
                return AlreadySettled()
        return lost(reply)

    def void_later(self, keys: AccountKeys, call_id: str) -> None:
        """Undo a hold as soon as Redis answers again; its lease ends it should we die before."""
        self._doubts.add(keys, call_id)

    async def expire(self, keys: AccountKeys, call_id: str) -> Expiring:
        """End a hold whose lease is over, at its floor."""
        state = keys.state
        reply = await self._run(state, "expire", keys.five, call_id, *self._known(state))
        match reply[0]:
            case b"OK":
                return self._settled(state, reply)
            case b"GONE":
                return HoldGone()
            case b"EARLY":
                return LeaseRunning()
        return lost(reply)

    async def load(
        self,
        keys: AccountKeys,
        fields: Mapping[str, str | int],
        asked: NotLoaded | None = None,
        *,
        force: bool = False,
    ) -> bool:
        """Seed an account with the fields that Postgres has of it.

        `asked` is the answer that made the caller read Postgres: an account that was changed since
        is not seeded with what is outdated. Without it, the newest known of the shard stands in.
        False when it was not seeded: it is loaded already, was changed, has running calls
        (`force`), or its shard is lost; the next admit says what to do.
        """
        state = keys.state
        seen = self._known(state) if asked is None else (asked.epoch, asked.seq)
        pairs = (part for pair in fields.items() for part in pair)
        # A forced load would wipe what ran between its two runs, so an uncertain one is not sent
        # again.
        reply = await self._run(state, "load", keys.two, *seen, int(force), *pairs, again=not force)
        return bool(reply[0] == b"OK")

    async def amend(self, keys: AccountKeys, fields: Mapping[str, str | int]) -> bool:
        """Change status, limits or keys of an account.

        False: it is not loaded, so its next call reads Postgres.
        """
        pairs = (part for pair in fields.items() for part in pair)
        reply = await self._run(keys.state, "amend", keys.two, 0, 0, *pairs)
        return bool(reply[0] == b"OK")

    async def grant(
        self,
        keys: AccountKeys,
        grant_id: int,
        *,
        amount: int,
        expires_ms: int,
        effective_ms: int,
        lots: str,
    ) -> bool:
        """Add a lot once; `lots` are all grant ids of the account in burn-down order.

        False: the account has it already, or is not loaded.
        """
        reply = await self._run(
            keys.state,
            "grant",
            keys.two,
            *(0, 0, grant_id, amount, expires_ms, effective_ms, lots),
        )
        return bool(reply[0] == b"OK")

    async def open_shard(self, shard: int, epoch: int, lost: int = 0) -> tuple[int, int]:
        """Open a shard whose epoch `lost` was lost (0: that is empty), unless somebody has since.

        Answers the epoch and seq it has now, for us to go by.
        """
        state = self._shards[shard]
        keys = bulks((state.meta, state.holds, state.leases))
        _, epoch_now, seq_now = await self._run(state, "open", keys, epoch, lost)
        state.saw(epoch_now, seq_now)
        return epoch_now, seq_now

    def adopt(self, shard: int, epoch: int) -> None:
        """Go by a newer epoch that another process opened; older ones are ignored."""
        self._shards[shard].saw(epoch, 0)

    def knows(self, shard: int) -> bool:
        """Whether this process has seen the shard open."""
        return self._shards[shard].epoch > 0

    async def inspect(self, keys: AccountKeys) -> Snapshot:
        """One atomic look at an account. Reads all holds of its shard: for audits only."""
        state = keys.state
        names = bulks((keys.name, state.holds, state.meta))
        return snapshot(await self._run(state, "inspect", names))

    async def acknowledge(self, settled: Sequence[Settlement]) -> None:
        """Forget settlements that are in Postgres: outbox entries, and what a settle would repeat.

        Those without an outbox id were never settled in Redis; their holds stay for the reaper.
        Holds go before entries: if only half of it happens, the sweeper finds the entry and repeats
        it.
        """
        by_shard: dict[int, list[Settlement]] = {}
        for settlement in settled:
            if settlement.outbox_id is not None:
                by_shard.setdefault(settlement.shard, []).append(settlement)
        asked: list[asyncio.Future[Any]] = []
        for number, of_shard in by_shard.items():
            state = self._shards[number]
            for start in range(0, len(of_shard), ACKNOWLEDGE_BATCH):
                part = of_shard[start : start + ACKNOWLEDGE_BATCH]
                calls = (row.call_id for row in part)
                entries = (row.outbox_id or "" for row in part)
                asked.append(state.link.submit(pack("HDEL", state.holds, *calls)))
                asked.append(state.link.submit(pack("XDEL", state.outbox, *entries)))
        for reply in await asyncio.gather(*asked):
            _refuse_errors(reply)

    async def overdue(self, shard: int, limit: int) -> list[tuple[str, int]]:
        """Call id and account id of up to `limit` holds whose lease is over by Redis' own clock."""
        state = self._shards[shard]
        now_ms = await self._now_ms(state)
        calls = await self._ask(
            state.link, "ZRANGEBYSCORE", state.leases, "-inf", now_ms, "LIMIT", 0, limit
        )
        if not calls:
            return []
        texts = await self._ask(state.link, "HMGET", state.holds, *calls)
        live, orphans = [], []
        for call, text in zip(calls, texts, strict=True):
            if text is not None and text.startswith(b"h|"):
                live.append((call.decode(), int(text.split(b"|", 2)[1])))
            else:
                orphans.append(call)
        if orphans:  # ended between the two reads, so its lease is gone or useless
            await self._ask(state.link, "ZREM", state.leases, *orphans)
        return live

    async def outbox_page(
        self, shard: int, older_than_ms: int, limit: int, after: str | None = None
    ) -> list[tuple[str, dict[bytes, bytes]]]:
        """Up to `limit` outbox entries (id, fields), oldest first, of `older_than_ms` and more.

        `after` is the last id of the page before.
        """
        state = self._shards[shard]
        newest_ms = await self._now_ms(state) - older_than_ms
        first = "-" if after is None else f"({after}"
        entries = await self._ask(
            state.link, "XRANGE", state.outbox, first, max(newest_ms, 0), "COUNT", limit
        )
        return [
            (entry_id.decode(), dict(zip(flat[::2], flat[1::2], strict=True)))
            for entry_id, flat in entries
        ]

    async def server_facts(self) -> ServerFacts:
        """Version and durability settings of the server."""
        return server_facts(await self._ask(self._link, "INFO"))

    async def command(self, *parts: Part) -> Any:
        """Any other command, sent once. Raises: CommandRefused with Redis' own words."""
        return await self._ask(self._link, *parts)

    async def _now_ms(self, state: Shard) -> int:
        seconds, microseconds = await self._ask(state.link, "TIME")
        return int(seconds) * 1000 + int(microseconds) // 1000

    async def _ask(self, link: Link, *parts: Part) -> Any:
        return _refuse_errors(await link.submit(pack(*parts)))

    def _known(self, state: Shard) -> tuple[int, int]:
        return state.epoch, state.seq

    def _settled(self, state: Shard, reply: list[Any]) -> Settled:
        _, epoch, seq, charged, uncollected, remaining, postings, entry_id, now_ms, then_ms = reply
        state.saw(epoch, seq)
        return Settled(
            charged, uncollected, remaining, postings.decode(), entry_id.decode(), now_ms, then_ms
        )

    async def _run(
        self, state: Shard, name: str, keys: bytes, *arguments: Part, again: bool = True
    ) -> list[Any]:
        head = self._scripts[name].head(len(arguments))
        tail = keys + bulks(arguments)
        try:
            reply = await state.link.submit(head + tail)
        except CountersUnavailable as failure:
            if not again:
                raise
            reply = failure
        if type(reply) is not list:
            reply = await self._again(state, name, len(arguments), tail, reply)
        if name != "inspect" and reply[0] not in (b"STALE", b"REGRESSED"):
            state.saw(reply[1], reply[2])
        return reply

    async def _admit_again(self, keys: AccountKeys, call_id: str, tail: bytes, outcome: Any) -> Any:
        try:
            return await self._again(keys.state, "admit", ADMIT_ARGUMENTS, tail, outcome)
        except (Unanswered, asyncio.CancelledError):
            self._doubts.add(keys, call_id)
            raise

    async def _again(
        self, state: Shard, name: str, arguments: int, tail: bytes, outcome: object
    ) -> list[Any]:
        return await send_again(state.link, self._scripts[name], arguments, tail, outcome)


def _refuse_errors(reply: Any) -> Any:
    if isinstance(reply, hiredis.ReplyError):
        raise CommandRefused(str(reply))
    return reply
