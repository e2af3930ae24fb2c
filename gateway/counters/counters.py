"""Redis as the rest of the gateway sees it: reserve, raise, settle, void, expire.

The verbs of a call are here; accounts.py has those of an account, base.py asks, outbox.py and
rebuilding.py are for jobs. A call whose admission stays uncertain was told that it failed, so
whatever it may hold is voided as soon as Redis answers again; should this process die before that,
the lease ends the hold.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from gateway.counters.accounts import Accounts
from gateway.counters.base import DEADLINE_MS
from gateway.counters.claims import Claims
from gateway.counters.connection import IN_FLIGHT_MAX
from gateway.counters.delegation import Delegation
from gateway.counters.doubts import Doubts
from gateway.counters.errors import CountersUnavailable, Unanswered
from gateway.counters.outbox import Outbox
from gateway.counters.rebuilding import Rebuilding
from gateway.counters.replies import admitted, denial, lost, not_loaded, raising
from gateway.counters.resp import Integers, bulk, bulks
from gateway.counters.tasks import Tasks
from gateway.counters.traffic import TrafficSums
from policies.catalog import Ending
from policies.decision import (
    AlreadySettled,
    ExpiredFirst,
    HoldGone,
    LeaseRunning,
    Moved,
    Settled,
    Voided,
)
from policies.settlement import result_blob

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping, Sequence
    from types import TracebackType

    from gateway.counters.keys import AccountKeys, Shard
    from gateway.counters.resp import Part
    from gateway.counters.scripts import Script
    from policies.decision import (
        Admission,
        Expiring,
        LateSettling,
        Raising,
        Settling,
        ShardLost,
        Voiding,
    )
    from policies.settlement import LateSettlement

ADMIT_ARGUMENTS = 8
SETTLE_ARGUMENTS = 5
# What tells admit that nothing is to be held.
DRY_RUN_LEASE_MS = 0
# Leases renewed by one command: bounds how long Redis is busy with it.
EXTEND_BATCH = 250

# What a running call would cost by now: id, stage (0 held, 1 dispatched), microcredits (None: as
# it was), and the units seen.
Checkpoint = tuple[str, int, int | None, str]


class Counters(Accounts, Claims, Delegation, Outbox, Rebuilding, Tasks, TrafficSums):
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
        discount: int = 0,
        guard: int = 0,
    ) -> Admission:
        """Decide whether a call may run, and hold `amount` microcredits for it.

        `due` is what the call costs should its hold expire once it is sent on; `context` comes back
        in the outbox; `rules` are those of the route for one account, with their scope before them;
        `session` is what the client named its session; `discount` is the account's, in
        ten-thousandths, that the amounts were computed with; `guard` is the version of the key's
        routes and addresses that the call was checked against.
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
        if rules or session or discount or guard:
            more: tuple[Part, ...] = (rules, session)
            if discount or guard:
                more = (*more, discount, guard) if guard else (*more, discount)
            head = self._scripts["admit"].head(ADMIT_ARGUMENTS + len(more), 1 if session else 0)
            tail += bulks(more)
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
            epoch, seq = reply[1], reply[2]
            if epoch == state.epoch and seq > state.seq:
                state.seq = seq
            else:
                state.saw(epoch, seq)
            return admitted(call_id, reply)
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

    async def settle(  # noqa: PLR0917 -- as admit
        self,
        keys: AccountKeys,
        call_id: str,
        owed: int,
        result: bytes,
        session: str = "",
        steps: bytes = b"",
    ) -> Settling | Moved:
        """End a call's hold with what it costs: `owed` microcredits.

        `result` goes into the outbox as it is. `steps` are written as in `settle.lua`; only with
        them the answer can be Moved.
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
        if session or steps:
            head = self._scripts["settle"].head(
                SETTLE_ARGUMENTS + (1 if steps else 0), 1 if session else 0
            )
            tail += bulk(steps) if steps else b""
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
            case b"MOVED":
                state.saw(reply[1], reply[2])
                return Moved(tuple(reply[3:]))
        return lost(reply)

    # The rest: one call of a script each.

    async def ask(  # noqa: PLR0917 -- as admit
        self,
        keys: AccountKeys,
        call_id: str,
        key_id: bytes,
        amount: int,
        rules: bytes = b"",
        session: bytes = b"",
        discount: int = 0,
        guard: int = 0,
    ) -> Admission:
        """What `admit` would decide now. Nothing is held or counted, whatever the answer is."""
        reply = await self._run(
            keys.state,
            "admit",
            keys.four,
            call_id,
            *self._known(keys.state),
            key_id,
            amount,
            DRY_RUN_LEASE_MS,
            0,
            b"",
            rules,
            session,
            discount,
            *((guard,) if guard else ()),
            more_keys=(keys.session(session.decode()),) if session else (),
        )
        if reply[0] == b"OK":
            return admitted(call_id, reply)
        return denial(reply, keys.state, amount)

    async def raise_hold(  # noqa: PLR0917 -- as admit
        self,
        keys: AccountKeys,
        call_id: str,
        key_id: bytes,
        least: int,
        target: int,
        session: str = "",
        rules: bytes = b"",
    ) -> Raising:
        """Let a running call hold `target` microcredits in all, or as much as there is for it.

        Denied if that is less than `least`. A hold is never lowered: with 0 and 0 this looks
        whether the key and the account may still make calls. `rules` as `admit`: without them the
        route's caps count what is raised, but don't bound it.
        """
        reply = await self._run(
            keys.state,
            "raise",
            keys.four,
            call_id,
            *self._known(keys.state),
            key_id,
            least,
            target,
            rules,
            more_keys=(keys.session(session),) if session else (),
        )
        return raising(reply)

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
