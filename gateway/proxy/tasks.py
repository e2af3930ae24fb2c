"""Tasks of A2A agents: one hold for all calls of a task, settled by whichever call sees its end.

The states of a task's hold, and the write that leaves each:

    held ──park──► noted ──park──► parked ──end seen──► settle.lua ──► settled ──unpark──► forgotten
      │            (its call      (its call   │
      │             runs on)       is over)   └──lease over──► expire.lua: what was due by then
      └── no task, or over at once ──► settle.lua, as for any call

What is written, in this order, and what a death of the worker after it leaves:

    after                    Redis                           Postgres   what ends the hold then
    -----------------------  ------------------------------  ---------  ----------------------------
    admit, mark              hold, short lease               -          its lease, at what is due
    first sight of the task  + record, the task's lease      -          who hears of the task next,
    (of a stream, in it)                                                or the task's lease
    end of its call          + no longer counted as running  -          the same
    in the background        the same                        + row      the same; also without Redis
    end of the task          settled, in the outbox          row        the sweeper carries it; a
                                                                        job deletes the row
    unpark, delete           -                               -          nothing is left

From `admit` until the row is in Postgres the call stays among the live calls of its worker, whether
or not its client has its answer: a lost shard is told of it. From then on the row says that the
hold is to be there, so a shard is rebuilt with it. Only the loss of Redis together with that of the
worker, between the two, loses a hold.

A hold is settled by its own call id, so that it does no harm when several calls see the end of
their task at once, or one sees it that was over already: Redis charges the first, and answers it to
the others. A hold whose lease was over is corrected to what the task cost, as long as its record is
kept. While Redis is away, the end becomes a late settlement (late.py).

Which call pays: one that begins work without naming a task of the account whose hold is live. All
others are admitted at nothing, under the same limits as any call, and renew the task's lease.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import orjson

from gateway import errors
from gateway.counters import CountersUnavailable
from gateway.ledger.errors import LedgerRejected, LedgerUnavailable
from gateway.ledger.parked import ParkedHold
from gateway.proxy.hold import Receipt
from gateway.proxy.jsonrpc import mistake_in_head
from gateway.proxy.task_records import hold_of, reading_for, record_of, task_digest
from policies.catalog import ChargePer, Ending, Price
from policies.decision import HoldGone, Parked, ShardLost, TaskTaken
from policies.meters.reading import NOTHING_READ
from policies.tasks import NOTHING_TOLD, Asked, TaskAnswer, asked

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from gateway.counters import AccountKeys
    from gateway.errors import Refusal
    from gateway.proxy.admission import Quest
    from gateway.proxy.authenticate import Principal
    from gateway.proxy.exchange import Exchange
    from gateway.proxy.heads import RequestHead
    from gateway.proxy.hold import Hold
    from gateway.proxy.live import LiveCall
    from gateway.proxy.offers import AnswerKind, Offer
    from gateway.proxy.roles import Settling, Watcher
    from gateway.proxy.settle import Shards
    from policies.decision import Parking, Touched
    from policies.meters.facts import RequestFacts
    from policies.meters.reading import Reading
    from policies.tasks import Told

# Each attempt waits a while for a shard that is being rebuilt.
ATTEMPTS_MAX = 3
RETRY_MIN_S, RETRY_MAX_S = 0.2, 5.0
# Rows on their way to Postgres, and away from it. Beyond, a hold is in Redis only, and a row that
# is not needed any more is left to the job that cleans.
WAITING_MAX = 10_000
NO_BATCHES = errors.bad_request("A2A has no batches: send one request at a time.")
NOT_LOOKED_UP = errors.unavailable("Tasks can't be looked up at the moment.")

log = logging.getLogger("tollkeeper.proxy")


class TaskHolds(Protocol):
    """Where tasks have their holds: `Counters`."""

    def seen(self, shard: int) -> tuple[int, int]:
        """The newest epoch and seq that is known of a shard."""

    async def park(
        self,
        keys: AccountKeys,
        call_id: str,
        task: str,
        record: str,
        lease_ms: int,
        *,
        ended: bool,
    ) -> Parking:
        """Let a task have a call's hold."""

    async def touch(
        self, keys: AccountKeys, task: str, lease_ms: int
    ) -> Touched | ShardLost | None:
        """What is known of a task, whose lease is renewed with that."""

    async def unpark(self, keys: AccountKeys, task: str, call_id: str) -> None:
        """Forget a task whose hold is settled."""


class ParkedStore(Protocol):
    """Where parked holds outlive Redis: the ledger."""

    async def add_parked_hold(self, row: ParkedHold) -> None:
        """Keep one."""

    async def forget_parked_hold(self, call_id: str) -> None:
        """Its call is settled."""


@dataclass(slots=True)
class _Kept:
    """A hold whose row is not in Postgres yet; `text` is as Redis has it under `epoch`."""

    hold: Hold
    task: str
    record: str
    epoch: int = 0
    text: str = ""


class Tasks:
    """Finds, parks and settles the holds of tasks. `run` must be running."""

    def __init__(
        self,
        holds: TaskHolds,
        store: ParkedStore,
        settler: Settling,
        shards: Shards,
        calls: MutableMapping[str, LiveCall],
    ) -> None:
        """`calls` is the registry of live calls, which a call leaves when its hold is safe."""
        self._holds = holds
        self._store = store
        self.settler = settler
        self._shards = shards
        self._calls = calls
        self._kept: dict[str, _Kept] = {}
        self._over: dict[str, None] = {}  # calls whose rows are to go, in order
        self._some = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    async def begin(
        self, quest: Quest, head: RequestHead, facts: RequestFacts
    ) -> TaskCall | Refusal:
        """What a request is about, before it is admitted."""
        offer = quest.offer
        mistake = mistake_in_head(head) if facts.body != b"" else None
        if mistake is not None:
            return mistake
        request = asked(head.method, head.path, facts.body, facts.document())
        if request is None:
            return NO_BATCHES
        per_task = offer.route.task.per is ChargePer.TASK
        touched = None
        if per_task and request.task:
            try:
                found = await self.find(quest.principal, offer, task_digest(offer, request.task))
            except CountersUnavailable:
                return NOT_LOOKED_UP
            if isinstance(found, ShardLost):
                return NOT_LOOKED_UP
            touched = found
        return TaskCall(self, request, touched, per_task=per_task)

    async def find(
        self, principal: Principal, offer: Offer, task: str
    ) -> Touched | ShardLost | None:
        """What is known of a task, by its digest. Raises: CountersUnavailable."""
        keys = principal.keys
        for _ in range(ATTEMPTS_MAX):
            found = await self._holds.touch(keys, task, offer.route.task.lease_ms)
            if not isinstance(found, ShardLost) or not await self._shards.ready(found, keys.shard):
                break
        return found

    async def note(self, hold: Hold, name: str) -> None:
        """Let other calls find the hold of a task whose first call still runs. Never fails."""
        task = task_digest(hold.offer, name)
        try:
            await self._park(hold, task, record_of(hold), ended=False)
        except CountersUnavailable as error:
            log.warning("call %s: its task is noted at its end: %s", hold.call_id, error)
        except Exception:
            log.exception("call %s: its task could not be noted", hold.call_id)

    async def park(self, hold: Hold, name: str, status: int) -> Receipt:
        """Let a task keep the hold of a call that is over."""
        kept = _Kept(hold, task_digest(hold.offer, name), record_of(hold))
        remaining: int | None = hold.admitted.remaining
        try:
            outcome = await self._park_kept(kept)
        except CountersUnavailable as error:
            log.warning("call %s: its hold is parked later: %s", hold.call_id, error)
            remaining = None
        else:
            if isinstance(outcome, TaskTaken):
                return await self._settle_for_nothing(hold, status)
            if isinstance(outcome, HoldGone):
                log.warning("call %s: its hold ran out before it could be parked", hold.call_id)
                self._calls.pop(hold.call_id, None)
                return Receipt(0, None)
        self._keep(kept)
        return Receipt(0, remaining, hold.held)

    async def finish(  # noqa: PLR0917 - what a call has seen
        self,
        principal: Principal,
        offer: Offer,
        name: str,
        ending: Ending,
        status: int,
        reading: Reading,
        known: Touched | None,
    ) -> Receipt | None:
        """Settle the hold of a task that is over; None when it has none (any more).

        `known` is what was known of it before, for when Redis can't be asked now.
        """
        task = task_digest(offer, name)
        found: Touched | ShardLost | None
        try:
            found = await self.find(principal, offer, task)
        except CountersUnavailable:
            found = known
        if isinstance(found, ShardLost):
            found = known
        if found is None:
            return None
        try:
            hold = hold_of(found.record, principal, offer)
        except (ValueError, KeyError, TypeError):
            log.exception("a task of account %d has no readable record", principal.account_id)
            return None
        read = reading_for(hold.terms.price, offer, reading)
        receipt = await self.settler.settle(hold, ending, status, read)
        await self.forget(hold, name)
        return receipt

    async def forget(self, hold: Hold, name: str) -> None:
        """The hold of a task is settled. Never fails: a job finds what is left."""
        self._kept.pop(hold.call_id, None)
        if len(self._over) < WAITING_MAX:
            self._over[hold.call_id] = None
            self._wake()
        try:
            task = task_digest(hold.offer, name)
            await self._holds.unpark(hold.principal.keys, task, hold.call_id)
        except CountersUnavailable as error:
            log.warning("call %s: its task is forgotten later: %s", hold.call_id, error)

    async def drain(self, deadline_s: float) -> None:
        """Return when Postgres has all parked holds, or at the deadline: Redis has the others."""
        try:
            async with asyncio.timeout(deadline_s):
                await self._idle.wait()
        except TimeoutError:
            log.error("%d parked holds are in Redis only", len(self._kept))  # noqa: TRY400

    async def run(self) -> None:
        """Bring rows to Postgres, and away, until cancelled."""
        pause_s = RETRY_MIN_S
        while True:
            await self._some.wait()
            try:
                await self._write_next()
                pause_s = RETRY_MIN_S
                continue
            except (CountersUnavailable, LedgerUnavailable) as error:
                log.warning("%d parked holds wait for Postgres: %s", len(self._kept), error)
            except Exception:
                log.exception("%d parked holds wait for Postgres", len(self._kept))
                self._put_first_last()  # one bad row must not keep the others
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, RETRY_MAX_S)

    def _put_first_last(self) -> None:
        waiting: dict[str, Any] = self._kept or self._over
        if waiting:
            call_id = next(iter(waiting))
            waiting[call_id] = waiting.pop(call_id)

    async def _write_next(self) -> None:
        """One row. Raises: CountersUnavailable, LedgerUnavailable; it is tried again."""
        if self._kept:
            await self._save(next(iter(self._kept.values())))
        elif self._over:
            call_id = next(iter(self._over))
            await self._store.forget_parked_hold(call_id)
            del self._over[call_id]
        if not self._kept and not self._over:
            self._some.clear()
            self._idle.set()

    async def _save(self, kept: _Kept) -> None:
        hold = kept.hold
        call_id, principal = hold.call_id, hold.principal
        shard = principal.keys.shard
        if not kept.text or kept.epoch != self._holds.seen(shard)[0]:
            outcome = await self._park_kept(kept)
            if isinstance(outcome, TaskTaken):
                await self._settle_for_nothing(hold, 0)
            if not isinstance(outcome, Parked):
                self._let_go(call_id)
                return
        row = ParkedHold(
            call_id,
            shard,
            principal.platform_id,
            principal.account_id,
            kept.task,
            kept.text,
            kept.record,
            hold.offer.route.task.lease_ms,
        )
        try:
            await self._store.add_parked_hold(row)
        except LedgerRejected:
            log.exception("call %s: Postgres refuses its parked hold", call_id)
        # If its shard was rebuilt meanwhile, it was told of as a running call: once more.
        if kept.epoch == self._holds.seen(shard)[0]:
            self._let_go(call_id)

    async def _park_kept(self, kept: _Kept) -> Parking:
        epoch = self._holds.seen(kept.hold.principal.keys.shard)[0]
        outcome = await self._park(kept.hold, kept.task, kept.record, ended=True)
        if isinstance(outcome, Parked):
            kept.epoch, kept.text = epoch, outcome.text
        return outcome

    async def _park(self, hold: Hold, task: str, record: str, *, ended: bool) -> Parking:
        """Raises: CountersUnavailable, also when the shard is not there after all one can wait."""
        keys, lease_ms = hold.principal.keys, hold.offer.route.task.lease_ms
        for _ in range(ATTEMPTS_MAX):
            outcome = await self._holds.park(
                keys, hold.call_id, task, record, lease_ms, ended=ended
            )
            if not isinstance(outcome, ShardLost):
                return outcome
            if not await self._shards.ready(outcome, keys.shard):
                break
        raise CountersUnavailable("the shard is being rebuilt")

    async def _settle_for_nothing(self, hold: Hold, status: int) -> Receipt:
        """Give back the hold of a call whose task has one already."""
        free = hold._replace(terms=hold.terms._replace(price=None))
        return await self.settler.settle(free, Ending.COMPLETED, status, NOTHING_READ)

    def _keep(self, kept: _Kept) -> None:
        """See to its row, and to its parking if that has failed."""
        call_id = kept.hold.call_id
        if kept.text and len(self._kept) >= WAITING_MAX:
            log.error("call %s: its parked hold is in Redis only", call_id)
            self._calls.pop(call_id, None)
            return
        self._kept[call_id] = kept
        self._wake()

    def _let_go(self, call_id: str) -> None:
        """The hold is where it survives this worker, or it is over."""
        if self._kept.pop(call_id, None) is not None:
            self._calls.pop(call_id, None)

    def _wake(self) -> None:
        self._idle.clear()
        self._some.set()


class TaskCall:
    """One call of an A2A route: what it pays for, and what its answer tells of tasks.

    It is the call's settler, and sees its answer.
    """

    __slots__ = (
        "_answer",
        "_exchange",
        "_known",
        "_named",
        "_note",
        "_tasks",
        "_then",
        "pays",
        "per_task",
    )

    def __init__(
        self, tasks: Tasks, request: Asked, known: Touched | None, *, per_task: bool
    ) -> None:
        self._tasks = tasks
        self._named = request.task
        self._known = known
        # Whether it pays, and may begin a task.
        self.pays = request.sends and not (known is not None and known.live)
        self.per_task = per_task
        self._exchange: Exchange | None = None  # once it is admitted
        self._then: Watcher | None = None  # who else watches
        self._answer: TaskAnswer | None = None
        self._note: asyncio.Task[None] | None = None

    def watch(self, exchange: Exchange) -> None:
        """See the answer of an admitted call, and end its money."""
        self._exchange = exchange
        self._then, exchange.watcher = exchange.watcher, self
        tools = exchange.tools._replace(settler=self)
        # Who pays nothing has no hold that would have to cover what passes.
        exchange.tools = tools if self.pays else tools._replace(raises=None)

    def begin(
        self, status: int, reason: bytes, lines: bytes, framing: bytes, kind: AnswerKind
    ) -> None:
        """Take the answer's head."""
        self._answer = TaskAnswer(orjson.loads, kind.media_type.decode("latin-1"))
        if self._then is not None:
            self._then.begin(status, reason, lines, framing, kind)

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes of the answer. A task that it begins is noted while it passes."""
        answer = self._answer
        if answer is not None:
            answer.feed(chunk)
            if self._note is None and self.pays and self.per_task and answer.stream:
                self._note_first(answer.told(ended=False))
        if self._then is not None:
            self._then.feed(chunk)

    async def end(self, ending: Ending, receipt: Receipt, *, whole: bool) -> None:
        """Only who else watches has something to do then."""
        if self._then is None:
            return
        if receipt.reserved_microcredits is not None and not whole:
            # The task goes on: who calls again must not begin another.
            receipt = receipt._replace(charged_microcredits=receipt.reserved_microcredits)
        await self._then.end(ending, receipt, whole=whole)

    async def settle(self, hold: Hold, ending: Ending, status: int, reading: Reading) -> Receipt:
        """End the call's money: settle it, or let its task keep the hold."""
        if self._note is not None:
            await self._note
        told = self._answer.told() if self._answer is not None else NOTHING_TOLD
        if not self.pays:
            return await self._settle_follower(hold, told, ending, status, reading)
        settler = self._tasks.settler
        if not told.tasks:
            if told.error is not None and ending is Ending.COMPLETED:
                ending = told.error
            return await settler.settle(hold, ending, status, reading)
        name, over = told.tasks[0]
        if over is None and self.per_task and ending is not Ending.EXHAUSTED:
            return await self._tasks.park(hold, name, status)
        receipt = await settler.settle(hold, over or ending, status, reading)
        if self._note is not None:
            await self._tasks.forget(hold, name)
        return receipt

    async def void(self, hold: Hold) -> None:
        """Give everything back."""
        await self._tasks.settler.void(hold)

    async def _settle_follower(
        self, hold: Hold, told: Told, ending: Ending, status: int, reading: Reading
    ) -> Receipt:
        """Settle the tasks that are over by now; the call itself costs nothing."""
        paid = None
        if self.per_task:
            for name, over in told.tasks:
                if over is not None:
                    known = self._known if name == self._named else None
                    finished = await self._tasks.finish(
                        hold.principal, hold.offer, name, over, status, reading, known
                    )
                    paid = finished or paid
        price = hold.offer.route.price
        if price is not None:  # settled at nothing, under the version that its hold names
            hold = hold._replace(terms=hold.terms._replace(price=Price(version=price.version)))
        receipt = await self._tasks.settler.settle(hold, ending, status, NOTHING_READ)
        return paid or receipt

    def _note_first(self, told: Told) -> None:
        if self._exchange is not None and told.tasks and told.tasks[0][1] is None:
            name = told.tasks[0][0]
            self._note = asyncio.create_task(self._tasks.note(self._exchange.hold, name))
