"""One node apart from its workers: the schema and catalog in place, control plane, jobs.

Its parts know each other only here, as the parts of a worker do in app.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from secrets import token_hex
from typing import TYPE_CHECKING, NoReturn, Protocol, TypeVar
from urllib.parse import urlsplit

from gateway.config import parse_listen
from gateway.control.api.services import open_services
from gateway.control.app import build_app, serving
from gateway.control.metrics import Metrics
from gateway.control.node import Figures, WorkerState
from gateway.counters import (
    CommandRefused,
    Counters,
    CountersMisconfigured,
    CountersUnavailable,
)
from gateway.jobs.alerts import Alerts
from gateway.jobs.answers import OldAnswers
from gateway.jobs.clawbacks import Clawbacks
from gateway.jobs.delegations import Delegations
from gateway.jobs.dunning import Dunning
from gateway.jobs.expiry import Expiry
from gateway.jobs.late import Endings
from gateway.jobs.old_logins import OldLogins
from gateway.jobs.overage import Overage
from gateway.jobs.parked import ParkedHoldCleaning
from gateway.jobs.partitions import Partitions
from gateway.jobs.reaper import Reaper
from gateway.jobs.reconcile import Reconciliation
from gateway.jobs.renewal import Renewal
from gateway.jobs.stripe_catalogue import StripeCatalogue
from gateway.jobs.stripe_events import (
    OldStripeEvents,
    StripeEvents,
    StripeQueueCare,
    StripeReconciliation,
)
from gateway.jobs.sweeper import Sweeper
from gateway.jobs.telling import Telling
from gateway.ledger import Ledger, LedgerUnavailable, MigrationError, migrate
from gateway.mistakes import StartError
from gateway.operations.catalog import apply_config
from gateway.operations.errors import OperationError
from gateway.operations.logins import end_old_admin_logins
from gateway.operations.lost_shards import seeing_to_shards
from gateway.operations.publish import publisher
from gateway.operations.reconcile import Reconciler
from gateway.proxy.dry_run import price_sample
from gateway.recovery import fitness
from gateway.recovery.carry import Carrier
from gateway.recovery.late import LateApplier
from gateway.recovery.watermarks import Watermarks
from gateway.stripe_sync.events import HANDLERS
from gateway.stripe_sync.processing import Processor
from gateway.upstream.networks import Networks

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Iterable, Iterator, Sequence
    from socket import socket

    from gateway.config import Config
    from gateway.control.api.services import Services
    from gateway.control.credentials import Credentials
    from gateway.recovery.shards import Shards
    from gateway.stripe_sync.sync import Billing
    from gateway.worker_pool import WorkerPool

POSTGRES_CONNECTIONS_MAX = 4
ANSWER_DEADLINE_S = 1.0
DEPLOYMENT_KEY = "tk:deployment"
COUNTERS_DEADLINE_MS = 2_000  # nobody's call waits here

log = logging.getLogger("tollkeeper.node")

T = TypeVar("T")


class RunningNode:
    """The node's servers and workers, as control plane and supervisor see them."""

    def __init__(
        self,
        config: Config,
        platform_id: int,
        pool: WorkerPool,
        ledger: Ledger,
        counters: Counters,
        *,
        billing: Billing,
    ) -> None:
        self.platform = config.platform.slug
        self.platform_id = platform_id
        self.ledger = ledger
        self.counters = counters
        self.billing = billing
        self._pool = pool

    def workers(self) -> Sequence[WorkerState]:
        """Every worker's place, in order."""
        return [
            WorkerState(worker.index, worker.pid, worker.ready, worker.restarts)
            for worker in self._pool.workers
        ]

    async def redis_answers(self) -> bool:
        """Whether Redis answered just now."""
        return await _answers(self.counters.command("PING"))

    async def postgres_answers(self) -> bool:
        """Whether Postgres answered just now."""
        return await _answers(self.ledger.find_platform(self.platform))

    async def figures(self) -> Figures:
        """What Redis and Postgres say of the deployment."""
        late, outbox, rebuilds, inbox = await asyncio.gather(
            _known(self.ledger.waiting_settlements()),
            _known(self._outbox_entries()),
            _known(self.ledger.rebuilds()),
            _known(self.ledger.inbox_figures()),
        )
        return Figures(late, outbox, rebuilds, *(inbox or (None, None)))

    async def _outbox_entries(self) -> int:
        shards = range(self.counters.shards)
        return sum(await asyncio.gather(*map(self.counters.outbox_length, shards)))


@contextlib.asynccontextmanager
async def running_node(
    config: Config, pool: WorkerPool, credentials: Credentials, control: socket
) -> AsyncIterator[RunningNode]:
    """Brings schema and catalog up to date, then runs control plane and jobs.

    `control`: bound to where the config says that the control plane listens.

    Raises: StartError when Redis or Postgres can't be reached, or are not fit for the purpose.
    """
    gateway = config.gateway
    host, _ = parse_listen(gateway.control_listen)
    async with contextlib.AsyncExitStack() as stack:
        with _told_as_mistakes(config):
            await migrate(gateway.postgres_url)
            ledger = await stack.enter_async_context(
                Ledger(gateway.postgres_url, connections_max=POSTGRES_CONNECTIONS_MAX)
            )
            counters = await stack.enter_async_context(
                Counters(
                    gateway.redis_url,
                    shards=gateway.shards,
                    deadline_ms=COUNTERS_DEADLINE_MS,
                    guards=True,
                )
            )
            await _check_redis(counters)
            await _check_shards(ledger, gateway.shards)
            deployment = await _check_deployment(ledger, counters)
            watermarks = Watermarks(counters, ledger)
            await watermarks.start()
            report = await apply_config(ledger, counters, config)
        metrics = Metrics()
        shards = await stack.enter_async_context(
            seeing_to_shards(ledger, counters, lease_s=gateway.lease_s)
        )
        try:
            services = await stack.enter_async_context(
                open_services(
                    ledger,
                    counters,
                    credentials,
                    postgres_url=gateway.postgres_url,
                    platform=config.platform.slug,
                    deployment=deployment,
                    networks=Networks.of(gateway.private_upstreams),
                    shards=shards,
                    price_sample=price_sample,
                    trusted_proxies=gateway.trusted_proxies,
                )
            )
            await end_old_admin_logins(ledger, services.keys, credentials.admin_token)
            node = RunningNode(
                config, report.platform_id, pool, ledger, counters, billing=services.billing
            )
            app = build_app(node, credentials.admin_token, metrics, services, host=host)
            await stack.enter_async_context(serving(app, control))
        except OSError as error:  # somebody took the port since it was found free
            raise StartError(f"can't listen on {gateway.control_listen}: {error}") from error
        jobs = [watermarks, *_jobs(ledger, counters, shards, metrics), *_stripe_jobs(services)]
        await stack.enter_async_context(_running(jobs))
        yield node


class Job(Protocol):
    """Something that happens by itself, again and again."""

    async def run(self) -> NoReturn:
        """Do it until cancelled. Rounds may fail; see `gateway.jobs.rounds`."""


def _jobs(ledger: Ledger, counters: Counters, shards: Shards, metrics: Metrics) -> list[Job]:
    """Everything that happens by itself on a node. A new job is one line here."""
    carrier = Carrier(counters, ledger)
    publish = publisher(ledger, counters)
    late = LateApplier(counters, ledger, carrier, publish)
    reaper = Reaper(counters, shards, count=metrics.expired_holds)
    tour = Reconciler(ledger, counters)
    return [
        Endings(late, reaper, shards),
        Sweeper(carrier, counters.shards),
        Expiry(counters, ledger, carrier, shards, publish),
        Renewal(ledger, publish),
        Telling(counters, ledger, publish),
        Alerts(ledger),
        OldAnswers(ledger),
        OldLogins(ledger),
        Reconciliation(tour, reconciled=metrics.reconciled, drift=metrics.drift),
        ParkedHoldCleaning(ledger),
        Delegations(counters, ledger, shards, publish),
        Partitions(ledger),
        Clawbacks(ledger, counters, shards.ready),
    ]


def _stripe_jobs(services: Services) -> list[Job]:
    """The same, of what has to do with Stripe; without a platform that has one, they rest."""
    billing, events = services.billing, services.events
    return [
        StripeEvents(events, Processor(billing).work),
        StripeQueueCare(events),
        OldStripeEvents(events, services.ledger),
        StripeReconciliation(billing, events, HANDLERS),
        Overage(billing),
        StripeCatalogue(billing),
        Dunning(billing),
    ]


@contextlib.asynccontextmanager
async def _running(jobs: Iterable[Job]) -> AsyncIterator[None]:
    """Jobs run beside the calls and are stopped between two steps, each of which is idempotent."""
    tasks = [asyncio.create_task(job.run()) for job in jobs]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def _check_redis(counters: Counters) -> None:
    facts = await counters.server_facts()
    if problem := fitness.refusal(facts):
        raise StartError(problem)
    for warning in fitness.warnings(facts, await _appendfsync(counters)):
        log.warning("%s", warning)


async def _appendfsync(counters: Counters) -> str | None:
    """When the append-only file is written to disk; None where a hosted Redis does not tell."""
    try:
        answer = await counters.command("CONFIG", "GET", "appendfsync")
    except CommandRefused:
        return None
    return answer[1].decode() if answer else None


async def _check_shards(ledger: Ledger, shards: int) -> None:
    fixed = await ledger.fix_setting("shards", str(shards))
    if fixed != str(shards):
        raise StartError(
            f"gateway.shards: this database was started with {fixed}, which can't change: "
            f"set it to {fixed}"
        )


async def _check_deployment(ledger: Ledger, counters: Counters) -> str:
    """The deployment's id. Redis and Postgres must belong together: each has its own account 1."""
    deployment = await ledger.fix_setting("deployment", token_hex(16))
    await counters.command("SET", DEPLOYMENT_KEY, deployment, "NX")
    found = await counters.command("GET", DEPLOYMENT_KEY)
    if found != deployment.encode():
        raise StartError(
            "this Redis database holds the balances of another Tollkeeper deployment: use the "
            "Postgres (or data folder) it belongs to, another database number, or empty it"
        )
    return deployment


async def _answers(question: Awaitable[object]) -> bool:
    async def asked() -> bool:
        await question
        return True

    return bool(await _known(asked()))


async def _known(question: Awaitable[T]) -> T | None:
    """An answer, if it comes in time."""
    try:
        async with asyncio.timeout(ANSWER_DEADLINE_S):
            return await question
    except (TimeoutError, CountersUnavailable, LedgerUnavailable):
        return None


@contextlib.contextmanager
def _told_as_mistakes(config: Config) -> Iterator[None]:
    """Names the server, but never its URL, which may hold a password."""
    try:
        yield
    except (CountersUnavailable, CountersMisconfigured) as error:
        raise StartError(f"Redis can't be used: {error}") from error
    except LedgerUnavailable as error:
        parts = urlsplit(config.gateway.postgres_url)
        where = f"{parts.hostname or parts.path}:{parts.port or 5432}"
        raise StartError(f"Postgres at {where} can't be used: {error}") from error
    except (MigrationError, OperationError) as error:
        raise StartError(str(error)) from error
