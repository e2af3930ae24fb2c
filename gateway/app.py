"""The composition root of a worker: the only place that builds its object graph.

Order of life: Redis and Postgres are connected first and closed last. The writer, the renewal of
leases and the reports to rebuilt shards outlive the proxy, so that what the last calls settled is
written before Postgres is let go.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from gateway.clock import CallIds
from gateway.counters import Counters
from gateway.identity.jwks import IssuerKeys
from gateway.identity.seal import Sealer
from gateway.identity.tokens import Verifier
from gateway.ledger import (
    CATALOG_CHANNEL,
    CATALOG_SEEN_CHANNEL,
    Ledger,
    LedgerUnavailable,
    SettlementWriter,
)
from gateway.ledger.answer_writer import AnswerWriter
from gateway.operations.publish import publisher
from gateway.proxy.admission import Admission
from gateway.proxy.authenticate import Authenticator
from gateway.proxy.guards import Guards
from gateway.proxy.handler import Proxy
from gateway.proxy.idempotency import Idempotency
from gateway.proxy.key_fetch import KeyFetch
from gateway.proxy.keyed import Recording
from gateway.proxy.late import LateSettler
from gateway.proxy.live import LiveCalls
from gateway.proxy.offers import build_offers
from gateway.proxy.server import ProxyServer
from gateway.proxy.settle import Settler
from gateway.proxy.tasks import Tasks
from gateway.proxy.tokens import Tokens
from gateway.proxy.traffic import Traffic
from gateway.proxy.trust import Trust
from gateway.recovery.carry import Carrier
from gateway.recovery.late import LateApplier
from gateway.recovery.rebuild import Rebuilder
from gateway.recovery.reports import Reporter
from gateway.recovery.shards import Shards
from gateway.recovery.watermarks import Watermarks
from gateway.upstream import Networks, UpstreamClient
from gateway.worker_pool import CUT_CALLS_S, FLUSH_DEADLINE_S

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine

    from gateway.config import GatewayConfig

POSTGRES_CONNECTIONS_MAX = 4
WORKER_IDS = 2**31
# After Postgres could not be asked what has changed.
CATALOG_RETRY_S = 1.0

log = logging.getLogger("tollkeeper.worker")


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """What a worker is started with: resolved URLs and secrets, never references."""

    gateway: GatewayConfig
    pepper: bytes = field(repr=False)
    master_key: str | None = field(default=None, repr=False)


class Worker:
    """A running data plane: a server to listen with, and its orderly end."""

    def __init__(
        self,
        settings: WorkerSettings,
        proxy: Proxy,
        ledger: Ledger,
        *,
        tokens: Tokens,
        traffic: Traffic,
        worker_id: int,
    ) -> None:
        config = settings.gateway
        self._tokens = tokens
        self._traffic = traffic
        self._worker_id = worker_id
        self._networks = Networks.of(config.private_upstreams)
        self._sealer = Sealer.of(settings.master_key)
        self.deadline_s = config.shutdown_deadline_s
        self._proxy = proxy
        self._ledger = ledger
        self._changed = asyncio.Event()
        self.server = ProxyServer(
            proxy.handle,
            head_timeout_s=config.header_timeout_s,
            keepalive_timeout_s=config.keepalive_timeout_s,
            body_timeout_s=config.body_timeout_s,
            connections_max=config.connections_max,
            header_bytes_max=config.header_bytes_max,
        )

    async def load_catalogue(self) -> None:
        """Offer what the database offers now. On a mistake in it, what was offered before stays."""
        snapshot = await self._ledger.snapshot_catalogue()
        # Behind the snapshot: what is newer than its version does no harm.
        self._tokens.replace_identity(
            await self._ledger.signing_keys(), await self._ledger.issuers()
        )
        try:
            self._proxy.offers = build_offers(
                snapshot.platforms, self._traffic.of, self._networks, self._sealer
            )
        except Exception:
            await self._tell_seen(f"{snapshot.version}!")
            raise
        await self._tell_seen(str(snapshot.version))

    async def _tell_seen(self, version: str) -> None:
        """Who changed the catalogue may be waiting to hear it (gateway/operations/spread.py)."""
        with contextlib.suppress(LedgerUnavailable):  # asked for again
            await self._ledger.notify(CATALOG_SEEN_CHANNEL, f"{self._worker_id}:{version}")

    def catalogue_changed(self, _payload: str) -> None:
        """Tell `follow_catalogue` that there is something to read; also after a lost connection."""
        self._changed.set()

    async def follow_catalogue(self) -> None:
        """Offer what changes, until cancelled. A change that can't be offered leaves the old."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                await self.load_catalogue()
            except LedgerUnavailable as error:
                log.warning("the changed catalogue can't be read yet: %s", error)
                self._changed.set()
                await asyncio.sleep(CATALOG_RETRY_S)
            except Exception:
                log.exception("the changed catalogue can't be offered; the one before stays")

    async def finish_calls(self) -> None:
        """Let running calls end, up to the deadline; then cut them.

        Idle connections close at once.
        """
        await self.server.finish(self.deadline_s, settle_s=CUT_CALLS_S)


@asynccontextmanager
async def run_worker(settings: WorkerSettings) -> AsyncIterator[Worker]:
    """A worker that is ready to accept connections; leaving the context ends it with nothing lost.

    Raises: what keeps it from starting, such as CountersMisconfigured or a mistake in the
    catalogue.
    """
    config = settings.gateway
    loop = asyncio.get_running_loop()
    async with AsyncExitStack() as stack:
        ledger = await stack.enter_async_context(
            Ledger(config.postgres_url, connections_max=POSTGRES_CONNECTIONS_MAX)
        )
        counters = await stack.enter_async_context(
            Counters(
                config.redis_url,
                shards=config.shards,
                deadline_ms=config.redis_deadline_ms,
                guards=True,
            )
        )
        settling = await _start_settling(stack, config, ledger, counters)
        client = UpstreamClient()
        stack.push_async_callback(client.close)

        def unready() -> str | None:
            if worker.server.stopping:
                return "This worker is shutting down."
            if settling.writer.full:
                return "Too many settlements wait for the database."
            return None

        networks = Networks.of(config.private_upstreams)
        issuers = IssuerKeys(KeyFetch(client, networks))
        stack.push_async_callback(issuers.close)
        verifier = Verifier(await ledger.fix_setting("deployment", secrets.token_hex(16)))
        tokens = Tokens(ledger, settings.pepper, counters.keys, verifier, issuers)
        proxy = Proxy(
            authenticator=Authenticator(ledger, settings.pepper, counters.keys, loop.time, tokens),
            admission=settling.admission,
            settler=settling.settler,
            raises=counters,
            live=settling.live,
            trust=settling.trust,
            tasks=settling.tasks,
            idempotency=settling.idempotency,
            client=client,
            call_ids=CallIds(),
            body_timeout_s=config.body_timeout_s,
            unready=unready,
        )
        traffic = Traffic(counters, settling.worker_id)
        worker = Worker(
            settings, proxy, ledger, tokens=tokens, traffic=traffic, worker_id=settling.worker_id
        )
        await worker.load_catalogue()
        await ledger.listen(CATALOG_CHANNEL, worker.catalogue_changed)
        await stack.enter_async_context(_background(worker.follow_catalogue()))
        await stack.enter_async_context(_background(traffic.run()))
        await stack.enter_async_context(_background(worker.server.sweep_late_heads()))
        # In reverse order, and each even if the one before failed.
        stack.push_async_callback(settling.writer.drain, FLUSH_DEADLINE_S)
        stack.push_async_callback(settling.answers.drain, FLUSH_DEADLINE_S)
        stack.push_async_callback(settling.late.drain, FLUSH_DEADLINE_S)
        stack.push_async_callback(settling.tasks.drain, FLUSH_DEADLINE_S)
        stack.push_async_callback(worker.finish_calls)
        yield worker


class _Settling(NamedTuple):
    """What keeps and ends holds."""

    settler: Settler
    late: LateSettler
    writer: SettlementWriter
    live: LiveCalls
    trust: Trust
    tasks: Tasks
    admission: Admission
    idempotency: Idempotency
    answers: AnswerWriter
    worker_id: int


async def _start_settling(
    stack: AsyncExitStack, config: GatewayConfig, ledger: Ledger, counters: Counters
) -> _Settling:
    """Build it and start its background work, which `stack` stops."""
    lease_ms = _lease_ms(config)
    watermarks = Watermarks(counters, ledger)
    await watermarks.start()
    carrier = Carrier(counters, ledger)
    applier = LateApplier(counters, ledger, carrier)
    publish = publisher(ledger, counters)
    rebuilder = Rebuilder(counters, ledger, carrier, applier, lease_ms=lease_ms, publish=publish)
    shards = Shards(rebuilder, counters)
    stack.push_async_callback(shards.close)
    writer = SettlementWriter(
        ledger,
        counters.acknowledge,
        backlog_rows_max=config.backlog_rows_max,
        backlog_minutes_max=config.backlog_minutes_max,
    )
    live = LiveCalls(counters, lease_ms, shards.begin)
    late = LateSettler(ledger, counters, writer, live.calls)
    trust = Trust(late, partial(counters.command, "PING"))
    answers = AnswerWriter(ledger)
    for part in (writer, late, live, trust, watermarks, answers):
        await stack.enter_async_context(_background(part.run()))

    guards = Guards(ledger, config.trusted_proxies)
    admission = Admission(counters, ledger, shards, guards, lease_ms)
    idempotency = Idempotency(counters, ledger, answers, admission, Recording())

    async def flush() -> None:
        await idempotency.tell_again()
        await late.flush(FLUSH_DEADLINE_S)
        await writer.flush(FLUSH_DEADLINE_S)  # what was late may have come to it
        await answers.flush(FLUSH_DEADLINE_S)

    worker_id = secrets.randbelow(WORKER_IDS)
    reporter = Reporter(worker_id, counters, ledger, live.of_shard, flush, lease_ms=lease_ms)
    await reporter.start()
    rebuilder.own = reporter
    stack.push_async_callback(reporter.close)
    settler = Settler(counters, writer, late, shards, live.calls)
    tasks = Tasks(counters, ledger, settler, shards, live.calls)
    await stack.enter_async_context(_background(tasks.run()))
    return _Settling(
        settler,
        late,
        writer,
        live,
        trust,
        tasks,
        admission,
        idempotency,
        answers,
        worker_id,
    )


def _lease_ms(config: GatewayConfig) -> int:
    return config.lease_s * 1000


@asynccontextmanager
async def _background(work: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Run something beside the context's body; cancelled at its end, its failure logged at once."""
    task = asyncio.create_task(work)
    task.add_done_callback(_log_failure)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def _log_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        log.critical("a background task of the worker failed", exc_info=task.exception())
