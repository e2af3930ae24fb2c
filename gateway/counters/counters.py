"""Redis as the rest of the gateway sees it: reserve, settle, void, expire, load, audit.

The verbs of a call and of an account are here; base.py asks, outbox.py and rebuilding.py are for
jobs. A call whose admission stays uncertain was told that it failed, so whatever it may hold is
voided as soon as Redis answers again; should this process die before that, the lease ends the hold.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from gateway.counters.base import DEADLINE_MS
from gateway.counters.connection import IN_FLIGHT_MAX
from gateway.counters.doubts import Doubts
from gateway.counters.errors import CountersUnavailable, Unanswered
from gateway.counters.outbox import Outbox
from gateway.counters.rebuilding import Rebuilding
from gateway.counters.replies import Snapshot, denial, lost, not_loaded, snapshot
from gateway.counters.resp import Integers, bulk, bulks
from policies.catalog import Ending
from policies.decision import (
    Admitted,
    AlreadySettled,
    ExpiredFirst,
    HoldGone,
    LeaseRunning,
    Settled,
    Voided,
    Withdrawn,
)
from policies.settlement import result_blob

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping, Sequence
    from types import TracebackType

    from gateway.counters.keys import AccountKeys, Shard
    from gateway.counters.scripts import Script
    from policies.decision import (
        Admission,
        Expiring,
        LateSettling,
        NotLoaded,
        Settling,
        ShardLost,
        Voiding,
        Withdrawing,
    )
    from policies.settlement import LateSettlement

ADMIT_ARGUMENTS = 8
SETTLE_ARGUMENTS = 5
# Leases renewed by one command: bounds how long Redis is busy with it.
EXTEND_BATCH = 250

# What a running call would cost by now: id, stage (0 held, 1 dispatched), microcredits (None: as
# it was), and the units seen.
Checkpoint = tuple[str, int, int | None, str]


class Counters(Outbox, Rebuilding):
    """The shards of one deployment.

    Every method raises CountersUnavailable when Redis gives no usable answer within `deadline_ms`.
    """

    def __init__(
        self,
        url: str,
        *,
        shards: int,
        deadline_ms: int = DEADLINE_MS,
        in_flight_max: int = IN_FLIGHT_MAX,
        scripts: Mapping[str, Script] | None = None,
        guards: bool = False,
    ) -> None:
        super().__init__(
            url,
            shards=shards,
            deadline_ms=deadline_ms,
            in_flight_max=in_flight_max,
            scripts=scripts,
            guards=guards,
        )
        self._admit_head = self._scripts["admit"].head(ADMIT_ARGUMENTS)
        self._settle_head = self._scripts["settle"].head(SETTLE_ARGUMENTS)
        self._integers = Integers()
        self._doubts = Doubts(self.void)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._doubts.close()
        await super().__aexit__(kind, error, trace)

    # The hot path. These build their command in one expression and decode in place.

    async def admit(  # noqa: PLR0917 -- keywords would cost the hot path, and callers are two
        self,
        keys: AccountKeys,
        call_id: str,
        key_id: bytes,
        amount: int,
        lease_ms: int,
        due: int,
        context: bytes,
        rules: bytes = b"",
        session: bytes = b"",
    ) -> Admission:
        """Decide whether a call may run, and hold `amount` microcredits for it.

        `due` is what the call costs should its hold expire once it is sent on; `context` comes back
        in the outbox; `rules` are those of the route for one account, with their scope before them;
        `session` is what the client named its session.
        """
        state = keys.state
        integers = self._integers
        call = call_id.encode()
        tail = b"%b%b$%d\r\n%b\r\n%b$16\r\n%016d\r\n$%d\r\n%b\r\n%b%b%b$%d\r\n%b\r\n" % (
            keys.four,
            b"" if not session else bulk(keys.session(session.decode())),
            len(call),
            call,
            state.epoch_packed,
            state.seq,
            len(key_id),
            key_id,
            integers[amount],
            integers[lease_ms],
            integers[due],
            len(context),
            context,
        )
        head = self._admit_head
        if rules or session:
            head = self._scripts["admit"].head(ADMIT_ARGUMENTS + 2, 1 if session else 0)
            tail += bulks((rules, session))
        try:
            reply = await state.link.submit(head + tail)
        except CountersUnavailable as failure:
            reply = failure
        except asyncio.CancelledError:
            self._doubts.add(keys, call_id, session.decode())
            raise
        if type(reply) is not list:
            reply = await self._admit_again(keys, call_id, session, head, tail, reply)
        if reply[0] == b"OK":
            _, epoch, seq, remaining, allocation, now_ms, rpm_limit, rpm_remaining, *more = reply
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
                more[0].decode() if more else "",
            )
        return denial(reply, state, amount)

    def dispatched(self, keys: AccountKeys, call_id: str, deadline_ms: int) -> Awaitable[None]:
        """Note that a call is sent on now; its lease ends at `deadline_ms` by Redis' clock.

        Await the answer before the first byte goes out: by then the note is on the wire before it.
        Whether Redis took it is not waited for.

        Raises: CountersUnavailable, also when awaited, if it can't be written; then nothing may be
        sent on.
        """
        call = call_id.encode()
        return keys.state.link.post(
            b"*6\r\n$4\r\nZADD\r\n%b$2\r\nXX\r\n$2\r\nGT\r\n$13\r\n%d\r\n$%d\r\n%b\r\n"
            % (keys.leases, 2 * deadline_ms + 1, len(call), call)
        )

    async def settle(
        self, keys: AccountKeys, call_id: str, owed: int, result: bytes, session: str = ""
    ) -> Settling:
        """End a call's hold with what it costs: `owed` microcredits.

        `result` goes into the outbox as it is.
        """
        state = keys.state
        call = call_id.encode()
        head = self._settle_head
        tail = b"%b%b$%d\r\n%b\r\n%b$16\r\n%016d\r\n%b$%d\r\n%b\r\n" % (
            keys.five,
            b"" if not session else bulk(keys.session(session)),
            len(call),
            call,
            state.epoch_packed,
            state.seq,
            self._integers[owed],
            len(result),
            result,
        )
        if session:
            head = self._scripts["settle"].head(SETTLE_ARGUMENTS, 1)
        try:
            reply = await state.link.submit(head + tail)
        except CountersUnavailable as failure:
            reply = failure
        if type(reply) is not list:
            reply = await self._again(state, "settle", head, tail, reply)
        match reply[0]:
            case b"OK":
                return self._settled(state, reply)
            case b"EXPIRED":
                return ExpiredFirst(self._settled(state, reply))
            case b"GONE":
                state.saw(reply[1], reply[2])
                return HoldGone()
        return lost(reply)

    # The rest: one call of a script each.

    async def void(self, keys: AccountKeys, call_id: str, session: str = "") -> Voiding:
        """Undo the hold of a call that was never sent on."""
        state = keys.state
        more = (keys.session(session),) if session else ()
        reply = await self._run(
            state, "void", keys.four, call_id, *self._known(state), more_keys=more
        )
        match reply[0]:
            case b"OK":
                return Voided(reply[3])
            case b"GONE":
                return HoldGone()
            case b"SETTLED":
                return AlreadySettled()
        return lost(reply)

    def void_later(self, keys: AccountKeys, call_id: str, session: str = "") -> None:
        """Undo a hold as soon as Redis answers again; its lease ends it should we die before."""
        self._doubts.add(keys, call_id, session)

    async def expire(self, keys: AccountKeys, call_id: str, session: str = "") -> Expiring:
        """End a hold whose lease is over, as its stage says: undone, or at what is due."""
        state = keys.state
        more = (keys.session(session),) if session else ()
        reply = await self._run(
            state, "expire", keys.five, call_id, *self._known(state), more_keys=more
        )
        match reply[0]:
            case b"OK":
                return self._settled(state, reply)
            case b"VOIDED":
                return Voided(reply[3])
            case b"GONE":
                return HoldGone()
            case b"EARLY":
                return LeaseRunning()
        return lost(reply)

    async def extend(
        self, shard: int, lease_ms: int, calls: Sequence[Checkpoint]
    ) -> list[str] | ShardLost:
        """Renew the leases of running calls; answers the ids of those that have no hold."""
        state = self._shards[shard]
        keys = bulks((state.meta, state.holds, state.leases))
        missing: list[str] = []
        for start in range(0, len(calls), EXTEND_BATCH):
            told = (
                part
                for call_id, stage, due, units in calls[start : start + EXTEND_BATCH]
                for part in (call_id, stage, "" if due is None else due, units)
            )
            reply = await self._run(state, "extend", keys, *self._known(state), lease_ms, *told)
            if reply[0] != b"OK":
                return lost(reply)
            missing += [call_id.decode() for call_id in reply[3:]]
        return missing

    async def late(self, keys: AccountKeys, row: LateSettlement) -> LateSettling | HoldGone:
        """Charge a call that ended while Redis could not be asked, whether or not it has a hold.

        Only for who has made sure, and sees to it, that its settlement is not in Postgres.
        HoldGone: it is settled, and being acknowledged at this moment.
        """
        state = keys.state
        result = result_blob(Ending(row.ending), row.status, row.units, row.flags)
        reply = await self._run(
            state,
            "late",
            keys.five,
            row.call_id,
            *self._known(state),
            row.owed_microcredits,
            result,
            row.context(),
            row.held_microcredits,
            row.admitted_ms,
            more_keys=(keys.session(row.session),) if row.session else (),
        )
        match reply[0]:
            case b"OK":
                return self._settled(state, reply)
            case b"EXPIRED":
                return ExpiredFirst(self._settled(state, reply))
            case b"GONE":
                return HoldGone()
            case b"LOAD":
                return not_loaded(reply)
        return lost(reply)

    async def withdraw(
        self,
        keys: AccountKeys,
        change_id: str,
        kind: str,
        grant_id: int | None,
        amount: int | None,
        *,
        platform_id: int,
        call_id: str = "",
    ) -> Withdrawing:
        """Take what is available, at most `amount` (None: all), from a lot or from all in order.

        `kind`: expire, revoke, adjust or late. Once per change id.
        """
        state = keys.state
        names = bulks((state.meta, keys.name, state.holds, state.outbox))
        reply = await self._run(
            state,
            "withdraw",
            names,
            *self._known(state),
            change_id,
            kind,
            "" if grant_id is None else grant_id,
            "all" if amount is None else amount,
            call_id,
            f"{platform_id},{keys.account_id}",
        )
        match reply[0]:
            case b"OK":
                return Withdrawn(reply[3], reply[4], reply[5].decode(), reply[6].decode())
            case b"LOAD":
                return not_loaded(reply)
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

    async def amend(
        self, keys: AccountKeys, fields: Mapping[str, str | int], *, epoch: int = 0
    ) -> bool:
        """Change status, limits, rules or keys of an account; counters only where it has none.

        With an `epoch` nothing is changed under another one. False: that, or the account is not
        loaded, so its next call reads Postgres; or its shard is lost.
        """
        pairs = (part for pair in fields.items() for part in pair)
        reply = await self._run(keys.state, "amend", keys.two, epoch, 0, *pairs)
        return bool(reply[0] == b"OK")

    async def credit(
        self,
        keys: AccountKeys,
        grant_id: int,
        *,
        total: int,
        settled: int,
        withdrawn: int,
        expires_ms: int,
        effective_ms: int,
        lots: str,
        epoch: int = 0,
    ) -> bool:
        """Tell what a lot was given in total, and its times; `lots` is the burn-down order.

        `settled` and `withdrawn` count only for a lot that Redis does not have. They must have been
        read under the `epoch` named: one that was loaded since may lack the lot because it is used
        up. False: the account knows all that, or is not loaded, or under another epoch.
        """
        told = (grant_id, total, settled, withdrawn, expires_ms, effective_ms, lots)
        reply = await self._run(keys.state, "credit", keys.two, epoch, 0, *told)
        return bool(reply[0] == b"OK")

    async def inspect(self, keys: AccountKeys) -> Snapshot:
        """One atomic look at an account. Reads all holds of its shard: for audits only."""
        state = keys.state
        names = bulks((keys.name, state.holds, state.meta))
        return snapshot(await self._run(state, "inspect", names))

    def _settled(self, state: Shard, reply: list[Any]) -> Settled:
        _, epoch, seq, charged, uncollected, remaining, postings, entry_id, now_ms, then_ms = reply
        state.saw(epoch, seq)
        return Settled(
            charged, uncollected, remaining, postings.decode(), entry_id.decode(), now_ms, then_ms
        )

    async def _admit_again(  # noqa: PLR0917 -- as admit
        self,
        keys: AccountKeys,
        call_id: str,
        session: bytes,
        head: bytes,
        tail: bytes,
        outcome: Any,
    ) -> Any:
        try:
            return await self._again(keys.state, "admit", head, tail, outcome)
        except (Unanswered, asyncio.CancelledError):
            self._doubts.add(keys, call_id, session.decode())
            raise
