"""Settlements that Redis could not make when the call ended: on their way to where they survive.

A late settlement says what a call owes. In Postgres it is as good as settled: a job applies it to
Redis, exactly once, as soon as Redis answers (gateway/recovery). Until it is there, this memory is
the only place that knows how the call ended, so both ways are tried, each at its own pace:

    kept here ──insert──► late_settlements in Postgres     the usual way: Redis is away
        └─────settle────► outbox, then the writer          Redis is back before Postgres

Both may happen: the job finds a call that is settled already, and deletes the row. If this process
dies meanwhile, the hold's lease ends the call at what was known of it (ending `unknown`).
"""

from __future__ import annotations

import asyncio
import logging
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple, Protocol

from gateway.counters import CountersUnavailable
from gateway.ledger.errors import LedgerRejected, LedgerUnavailable
from gateway.proxy.hold import (
    End,
    Hold,
    Receipt,
    late_settlement_of,
    settlement_of,
    steps_text,
)
from policies.decision import Settled, ShardLost
from policies.settlement import result_blob

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    from gateway.counters import AccountKeys
    from gateway.proxy.live import LiveCall
    from policies.decision import Moved, Settling
    from policies.settlement import LateSettlement, Settlement

# How long a client waits for the end of its answer while Postgres does not say that it has it.
POSTGRES_WAIT_S = 2.0
BATCH = 64
RETRY_MIN_S, RETRY_MAX_S = 0.2, 5.0

log = logging.getLogger("tollkeeper.proxy")


class LateStore(Protocol):
    """Where late settlements wait for Redis: the ledger."""

    async def add_late_settlement(self, row: LateSettlement) -> None:
        """Keep one; a call has at most one."""


class SettleScript(Protocol):
    """What is asked of `Counters`."""

    async def settle(  # noqa: PLR0917 - as it is
        self,
        keys: AccountKeys,
        call_id: str,
        owed: int,
        result: bytes,
        session: str = "",
        steps: bytes = b"",
    ) -> Settling | Moved:
        """End a call's hold."""


class Writer(Protocol):
    """The batched way to Postgres of what Redis has settled."""

    def add(self, settlement: Settlement) -> None:
        """Take a settlement that is in the outbox; never blocks."""


class _Kept(NamedTuple):
    hold: Hold
    end: End
    redis: bool  # whether Redis may still have its hold
    done: asyncio.Future[None]


class LateSettler:
    """Keeps what a call owes until Postgres or Redis has it. `run` must be running."""

    def __init__(
        self,
        store: LateStore,
        counters: SettleScript,
        writer: Writer,
        calls: MutableMapping[str, LiveCall],
    ) -> None:
        """`calls` is the registry of live calls, which a call leaves when it is safe."""
        self._store = store
        self._counters = counters
        self._writer = writer
        self._calls = calls
        self._kept: dict[str, _Kept] = {}
        self._some = asyncio.Event()

    def __len__(self) -> int:
        return len(self._kept)

    async def settle(self, hold: Hold, end: End, *, redis: bool) -> Receipt:
        """Keep what a call owes, and wait a while until Postgres or Redis has it.

        `redis` says whether Redis may still have a hold of it.
        """
        kept = self._kept.get(hold.call_id)
        if kept is None:
            done = asyncio.get_running_loop().create_future()
            kept = self._kept[hold.call_id] = _Kept(hold, end, redis, done)
            hold.offer.traffic.count(end.owed)
            self._some.set()
        try:
            async with asyncio.timeout(POSTGRES_WAIT_S):
                await asyncio.shield(kept.done)
        except TimeoutError:
            log.warning("call %s: neither Redis nor Postgres has its settlement", hold.call_id)
        return Receipt(end.owed, None)

    async def flush(self, deadline_s: float) -> None:
        """Return when all that was taken until now is safe.

        Raises: LedgerUnavailable at the deadline.
        """
        waiting = [kept.done for kept in self._kept.values()]
        if not waiting:
            return
        _, left = await asyncio.wait(waiting, timeout=deadline_s)
        if left:
            raise LedgerUnavailable(f"{len(left)} late settlements wait for Postgres")

    async def drain(self, deadline_s: float) -> None:
        """The same at the end of the process: what is left then ends with its lease."""
        try:
            await self.flush(deadline_s)
        except LedgerUnavailable as error:
            log.error("%s; their leases end these calls", error)  # noqa: TRY400 -- the text says it all

    async def run(self) -> None:
        """Try both ways until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._repeat(self._to_postgres, 0.0))
            # Redis has just failed each of them.
            group.create_task(self._repeat(self._to_redis, RETRY_MIN_S))

    async def _repeat(self, step: Callable[[], Awaitable[bool]], first_s: float) -> None:
        """Do a step while there is something to do, more and more rarely while it is in vain."""
        while True:
            await self._some.wait()
            pause_s = first_s
            while self._kept:
                await asyncio.sleep(pause_s)
                try:
                    done = await step()
                except Exception:
                    log.exception("%d late settlements wait", len(self._kept))
                    done = False
                pause_s = first_s if done else min(max(pause_s * 2, RETRY_MIN_S), RETRY_MAX_S)

    async def _to_postgres(self) -> bool:
        batch = list(islice(self._kept.values(), BATCH))
        outcomes = await asyncio.gather(*map(self._insert, batch), return_exceptions=True)
        for kept, outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, LedgerRejected):
                # Its hold is left to the lease: a row that no ledger takes can't be kept for ever.
                call_id = kept.hold.call_id
                log.error("call %s: Postgres refuses its settlement: %s", call_id, outcome)
                self._forget(kept)
        failed = [
            one for one in outcomes if one is not None and not isinstance(one, LedgerRejected)
        ]
        if failed:
            log.warning("%d late settlements wait for Postgres: %r", len(self._kept), failed[0])
        return not failed

    async def _insert(self, kept: _Kept) -> None:
        await self._store.add_late_settlement(late_settlement_of(kept.hold, kept.end))
        self._forget(kept)

    async def _to_redis(self) -> bool:
        settled = False
        for kept in [kept for kept in self._kept.values() if kept.redis]:
            hold, end = kept.hold, kept.end
            result = result_blob(end.ending, end.status, end.units, end.flags)
            try:
                steps = steps_text(hold.offer.route.id, end.steps, exact=False)
                outcome = await self._counters.settle(
                    hold.principal.keys,
                    hold.call_id,
                    end.owed,
                    result.encode(),
                    hold.session,
                    steps,
                )
            except CountersUnavailable:
                return False
            if isinstance(outcome, Settled):
                settled = True
                if hold.call_id in self._kept:
                    self._writer.add(
                        settlement_of(hold, end.ending, end.status, end.units, end.flags, outcome)
                    )
                    self._forget(kept)
            elif not isinstance(outcome, ShardLost) and hold.call_id in self._kept:
                self._kept[hold.call_id] = kept._replace(redis=False)
        return settled

    def _forget(self, kept: _Kept) -> None:
        """It is where it survives."""
        call_id = kept.hold.call_id
        if self._kept.pop(call_id, None) is not None:
            self._calls.pop(call_id, None)
        if not self._kept:
            self._some.clear()
        if not kept.done.done():
            kept.done.set_result(None)
