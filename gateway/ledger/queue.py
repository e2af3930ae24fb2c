"""The queue between keeping an event and working on it: pgqueuer, on connections of its own.

A job carries the key of an event (inbox.py) and nothing else. There is at most one for each event,
written in the transaction that keeps it. The queue may lose a job or give one out twice; the
event's row says whether there is still something to do.

    death, or trouble                     what becomes of the job
    ------------------------------------  -------------------------------------------------------
    before the event is committed         there is none; Stripe sends the event again
    while it is worked on                 its heartbeat stops, and HEARTBEAT_S later another node
                                          takes it
    after the event was marked            the same; whoever takes it finds nothing to do
    the process is stopped in order       work under way is finished first
    work was cut off while it stopped     it is free for the next who asks
    the outcome can't be written          pgqueuer holds the job as failed; `sweep` makes a new one
    somebody deletes or cancels it        `sweep` makes a new one
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from copy import copy
from datetime import timedelta
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import asyncpg
from pgqueuer.adapters.persistence.qb import (
    QueryBuilderEnvironment,
    QueryQueueBuilder,
    QuerySchedulerBuilder,
)
from pgqueuer.db import AsyncpgDriver
from pgqueuer.domain.settings import DBSettings, Durability
from pgqueuer.domain.types import Channel
from pgqueuer.errors import RetryRequested
from pgqueuer.qm import QueueManager
from pgqueuer.queries import Queries

from gateway.ledger.database import (
    COMMAND_TIMEOUT_S,
    CONNECT_TIMEOUT_S,
    SESSION_SETTINGS,
    Database,
    Session,
)
from gateway.ledger.errors import LedgerRejected, LedgerUnavailable, translated
from gateway.ledger.inbox import EventKey, NewEvent, insert_events

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence

    from asyncpg import Record
    from pgqueuer.models import Job

    # A job's text, and how often it was tried before; answers in how many milliseconds it is to be
    # tried again, None when it is over.
    Work = Callable[[str, int], Coroutine[Any, Any, int | None]]

ENTRYPOINT = "stripe_event"
CONNECTIONS_MAX = 4
# So many jobs at a time on a node, each of which asks Stripe some questions.
JOBS_MAX = 8
# pgqueuer takes at most half of them at once.
BATCH = JOBS_MAX // 2
# Of a node that is not heard of for so long, others take the jobs.
HEARTBEAT_S = 30.0
# How often to look at the queue unasked: for jobs whose next try is due, and of dead nodes.
POLL_S = 5.0
SWEPT_MAX = 1_000
# Events that are committed together.
TOGETHER_MAX = 64
# Events that wait for their commit: some seconds of more than Stripe ever sends.
GATHERED_MAX = 1_000
AT_ONCE_MS = 0
# Each so many events of a platform that wait put the next one a class behind; so many are counted.
BACKLOG_STEP = 10
BACKLOG_COUNTED_MAX = 1_000
# A job of an event that is replayed has a name of its own: one that has just ended may still be
# there, and is about to be deleted. stripe_event_lost.sql knows it.
AGAIN = ":again"
# The names in migrations/0012. pgqueuer would take others from the environment, from variables as
# common as FUNCTION and CHANNEL.
NAMES = DBSettings.model_construct(
    prefix="",
    db_schema=None,
    channel=Channel("ch_pgqueuer"),
    function="fn_pgqueuer_changed",
    statistics_table="pgqueuer_statistics",
    queue_status_type="pgqueuer_status",
    queue_table="pgqueuer",
    queue_table_log="pgqueuer_log",
    trigger="tg_pgqueuer_changed",
    schedules_table="pgqueuer_schedules",
    durability=Durability.durable,
    widen_id=False,
)


class _Gathered(NamedTuple):
    """An event that waits to be kept, and who waits for that."""

    mode: tuple[int, bool]
    event: NewEvent
    outcome: asyncio.Future[bool]

    def tell(self, *, is_new: bool) -> None:
        """It is kept. Who has gone is not told."""
        if not self.outcome.done():
            self.outcome.set_result(is_new)

    def fail(self, error: Exception) -> None:
        """It is not kept, or nobody knows."""
        if not self.outcome.done():
            # Each who waits raises one of its own: tracebacks grow where exceptions are raised.
            self.outcome.set_exception(copy(error))


class EventQueue(Database):
    """Keeps events, and works on them. An async context manager.

    Its connections are its own, so that an event is kept at once whatever else is asked of
    Postgres. Raises, from any method: LedgerUnavailable, LedgerRejected.
    """

    def __init__(
        self,
        url: str,
        *,
        connections_max: int = CONNECTIONS_MAX,
        settings: Mapping[str, str] = SESSION_SETTINGS,
    ) -> None:
        super().__init__(url, connections_max=connections_max, settings=settings)
        self._gathered: list[_Gathered] = []
        self._keeping: asyncio.Task[None] | None = None

    async def receive(
        self, platform_id: int, livemode: bool, events: Sequence[NewEvent]
    ) -> list[EventKey]:
        """Keep events and have them worked on, all or none; answers those that were new."""
        return await self._keep({(platform_id, livemode): events})

    async def receive_one(self, platform_id: int, livemode: bool, event: NewEvent) -> bool:
        """Keep one, together with those that come at the same time; whether it was new.

        While one commit is under way others gather for the next, so that a burst of events takes
        few commits, and a single one does not wait.
        """
        if len(self._gathered) >= GATHERED_MAX:
            raise LedgerUnavailable("Postgres does not keep up with the events that come")
        outcome: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._gathered.append(_Gathered((platform_id, livemode), event, outcome))
        if self._keeping is None:
            self._keeping = asyncio.create_task(self._keep_gathered())
        return await outcome

    async def _keep_gathered(self) -> None:
        try:
            while self._gathered:
                batch = self._gathered[:TOGETHER_MAX]
                del self._gathered[:TOGETHER_MAX]
                await self._keep_batch(batch)
        finally:
            self._keeping = None

    async def _keep_batch(self, batch: Sequence[_Gathered]) -> None:
        """One commit; where Postgres refuses a value, one for each event, to find which."""
        by_key = {EventKey(*one.mode, one.event.event_id): one for one in reversed(batch)}
        groups = groupby(sorted(by_key.items()), key=lambda item: item[0][:2])
        try:
            new = set(
                await self._keep({mode: [one.event for _, one in each] for mode, each in groups})
            )
        except LedgerRejected as error:
            if len(batch) > 1:
                for one in batch:
                    await self._keep_batch([one])
            else:
                batch[0].fail(error)
        except Exception as error:  # noqa: BLE001 - it is told to those who wait
            for one in batch:
                one.fail(error)
        else:
            for one in batch:
                key = EventKey(*one.mode, one.event.event_id)
                one.tell(is_new=key in new and by_key[key] is one)

    async def _keep(self, by_mode: Mapping[tuple[int, bool], Sequence[NewEvent]]) -> list[EventKey]:
        async with self._both() as (session, queries):
            new = []
            for mode, events in by_mode.items():
                new += await insert_events(session, *mode, events)
            await _enqueue_in_turn(session, queries, new)
            return new

    async def replay(self, key: EventKey) -> bool:
        """Have an event worked on once more, now; False: there is no such event."""
        async with self._both() as (session, queries):
            if await session.value("stripe_event_replay", *key) is None:
                return False
            if await session.value("queue_forward", key.text, key.text + AGAIN) is None:
                await _enqueue(queries, [key], [0], AGAIN)
            return True

    async def sweep(self) -> int:
        """Make jobs for events that wait and have none; answers how many."""
        async with self._both() as (session, queries):
            await session.value("queue_held_delete")
            lost = [EventKey(*row) for row in await session.all("stripe_event_lost", SWEPT_MAX)]
            await _enqueue_in_turn(session, queries, lost)
            return len(lost)

    async def trim_log(self, older_than_ms: int, limit: int) -> int:
        """Delete some of what the queue noted so long ago; answers how many rows."""
        return int(await self._session.value("queue_log_trim", older_than_ms, limit))

    async def run(
        self,
        work: Work,
        stop: asyncio.Event,
        *,
        heartbeat_s: float = HEARTBEAT_S,
        poll_s: float = POLL_S,
    ) -> None:
        """Work on jobs until `stop` is set, and finish those under way.

        Cancelling cuts these off. Raises: LedgerUnavailable when the connection is lost; jobs under
        way are finished first.
        """
        with translated():
            connection = await asyncpg.connect(
                self._url,
                timeout=CONNECT_TIMEOUT_S,
                command_timeout=COMMAND_TIMEOUT_S,
                server_settings=self._settings,
            )
        manager = QueueManager(_queries(connection), channel=NAMES.channel)
        manager.shutdown = stop
        under_way: set[asyncio.Task[int | None]] = set()

        async def job(one: Job) -> None:
            task = asyncio.create_task(work((one.payload or b"").decode(), one.attempts))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
            # A job that ends as cancelled is dropped by pgqueuer, one that is to be retried is not.
            await asyncio.wait({task})
            delay_ms = AT_ONCE_MS if task.cancelled() else task.result()
            if delay_ms is not None:
                raise RetryRequested(timedelta(milliseconds=delay_ms))

        manager.entrypoint(ENTRYPOINT, accepts_context=False, on_failure="hold")(job)
        running = asyncio.create_task(_run(manager, heartbeat_s, poll_s))
        try:
            with translated():
                await asyncio.shield(running)
        except asyncio.CancelledError:
            stop.set()
            for task in under_way:
                task.cancel()
            await asyncio.wait({running})
            raise
        finally:
            connection.terminate()

    @asynccontextmanager
    async def _both(self) -> AsyncIterator[tuple[Session, Queries]]:
        """Our tables and the queue, in one transaction."""
        with translated():
            async with self._pool.acquire() as proxy, proxy.transaction():
                connection = cast("asyncpg.Connection[Record]", proxy)
                yield Session(connection, self._queries), _queries(connection)


async def _run(manager: QueueManager, heartbeat_s: float, poll_s: float) -> None:
    await manager.run(
        dequeue_timeout=timedelta(seconds=poll_s),
        batch_size=BATCH,
        max_concurrent_tasks=JOBS_MAX,
        heartbeat_timeout=timedelta(seconds=heartbeat_s),
        # Nobody reads pgqueuer's statistics: /metrics has figures of our own.
        log_aggregation_interval=timedelta(0),
    )


async def _enqueue_in_turn(session: Session, queries: Queries, keys: Sequence[EventKey]) -> None:
    """Jobs that come the later the more events of their platform wait.

    So the many events of one platform, in trouble or on purpose, do not keep those of others. They
    all come in the end: who waits long has its turn as soon as others have few.
    """
    if not keys:
        return
    platforms = sorted({key.platform_id for key in keys})
    found = await session.all("stripe_event_backlog", platforms, BACKLOG_COUNTED_MAX)
    waiting = {row["platform_id"]: row["waiting"] for row in found}
    priorities = [-(waiting[key.platform_id] // BACKLOG_STEP) for key in keys]
    await _enqueue(queries, keys, priorities)


async def _enqueue(
    queries: Queries, keys: Sequence[EventKey], priorities: Sequence[int], again: str = ""
) -> None:
    """A job for each key that has none, or none like it. The higher priority is taken first."""
    texts = [key.text for key in keys]
    await queries.enqueue(
        [ENTRYPOINT] * len(texts),
        [text.encode() for text in texts],
        list(priorities),
        dedupe_key=[text + again for text in texts],
        on_conflict="skip",
    )


def _queries(connection: asyncpg.Connection[Record]) -> Queries:
    return Queries(
        AsyncpgDriver(connection),
        qbe=QueryBuilderEnvironment(NAMES),
        qbq=QueryQueueBuilder(NAMES),
        qbs=QuerySchedulerBuilder(NAMES),
    )
