"""The intake of events, whole: the endpoint, the queue and its work, at a fake Stripe.

What is done with an event is the test's affair: `intake.handlers` is the table.
"""

from __future__ import annotations

import json
import time
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

import aiohttp
from aiohttp import web

from gateway.control.app import serving
from gateway.control.metrics import Metrics
from gateway.control.stripe_webhooks import add_stripe_webhooks
from gateway.ledger import Ledger
from gateway.ledger.queue import EventQueue
from gateway.ports import held_port, hold
from gateway.stripe_sync.processing import Patience, Processor
from gateway.stripe_sync.settings import StripeSettings
from gateway.stripe_sync.sync import Billing
from gateway.stripe_sync.webhooks import Reception
from policies.billing_options import BillingOptions
from policies.catalog import Platform
from tests.support.fake_stripe.deliveries import signature
from tests.support.fake_stripe.face import FakeStripe
from tests.support.inbox import working
from tests.support.stripe_shop import Shop, client_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.stripe_sync.events import Handler, Hint
    from gateway.stripe_sync.sync import Sync

SECRET = "whsec_of_the_tests"
QUICK = Patience(tries=3, first_ms=1, longest_ms=1)


@dataclass
class Answer:
    status: int
    body: dict[str, Any]


@dataclass
class Source:
    """The platforms' settings, as the test wants them at the moment."""

    by_platform: dict[int, StripeSettings] = field(default_factory=dict)
    failure: Exception | None = None

    async def settings(self, platform_id: int) -> StripeSettings | None:
        if self.failure is not None:
            raise self.failure
        return self.by_platform.get(platform_id)

    def change(self, platform_id: int, **changes: Any) -> None:
        self.by_platform[platform_id] = replace(self.by_platform[platform_id], **changes)


class Intake:
    """An endpoint that takes events of the platform `demo`, and a node that works on them."""

    def __init__(
        self,
        postgres_url: str,
        ledger: Ledger,
        queue: EventQueue,
        fake: FakeStripe,
        shop: Shop,
        billing: Billing,
        session: aiohttp.ClientSession,
    ) -> None:
        self.postgres_url = postgres_url
        self.ledger = ledger
        self.queue = queue
        self.fake = fake
        self.shop = shop
        self.billing = billing
        self.source = cast("Source", billing.source)
        self.handlers: dict[str, Handler] = {}
        self.seen: list[Hint] = []
        self.metrics = Metrics()
        self.platform_id = 0
        self.url = ""
        self._session = session

    async def record(self, _sync: Sync, hint: Hint) -> None:
        """A handler that notes what it is told."""
        self.seen.append(hint)

    async def post(
        self,
        document: object,
        *,
        secrets: tuple[str, ...] = (SECRET,),
        slug: str = "demo",
        at_s: float | None = None,
        header: str | None = None,
    ) -> Answer:
        """An event, signed as Stripe does; bytes are sent as they are."""
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        signed = signature(body, secrets, int(time.time() if at_s is None else at_s))
        async with self._session.post(
            f"{self.url}/webhooks/stripe/{slug}",
            data=body,
            headers={"Stripe-Signature": signed if header is None else header},
        ) as answer:
            return Answer(answer.status, await answer.json(content_type=None))

    def count(self, name: str, **labels: str) -> float:
        """A counter of `/metrics`."""
        return (
            self.metrics.registry.get_sample_value(f"tollkeeper_stripe_{name}_total", labels) or 0
        )

    def processor(self, **options: Any) -> Processor:
        """A worker of the table, impatient unless told otherwise."""
        options = {"refusal": QUICK, "trouble": QUICK, "without_key": QUICK, **options}
        return Processor(self.billing, handlers=self.handlers, **options)

    @asynccontextmanager
    async def working(self, **options: Any) -> AsyncIterator[None]:
        """Works on events until the block ends."""
        async with working(self.queue, self.processor(**options).work):
            yield


def snapshot_event(event_id: str = "evt_1", kind: str = "invoice.paid", **fields: Any) -> Any:
    """A snapshot event as Stripe sends it."""
    return {
        "id": event_id,
        "object": "event",
        "api_version": "2026-10-28.endive",
        "created": 1_700_000_000,
        "data": {"object": {"id": "in_1", "object": "invoice", "status": "paid"}},
        "livemode": False,
        "pending_webhooks": 1,
        "type": kind,
        **fields,
    }


def thin_event(event_id: str = "evt_thin", kind: str = "v1.invoice.paid", **fields: Any) -> Any:
    """A thin one."""
    return {
        "id": event_id,
        "object": "v2.core.event",
        "type": kind,
        "livemode": False,
        "created": "2023-11-14T22:13:20.000Z",
        "context": None,
        "related_object": {"id": "in_1", "type": "invoice", "url": "/v1/invoices/in_1"},
        **fields,
    }


@asynccontextmanager
async def running_intake(
    postgres_url: str, queue_url: str | None = None, **fake_options: Any
) -> AsyncIterator[Intake]:
    """An intake without work; `queue_url` is the queue's own way to Postgres."""
    async with AsyncExitStack() as stack:
        ledger = await stack.enter_async_context(Ledger(postgres_url))
        queue = await stack.enter_async_context(EventQueue(queue_url or postgres_url))
        fake = await stack.enter_async_context(
            FakeStripe.running(webhook_secret=SECRET, **fake_options)
        )
        shop = Shop(fake, await stack.enter_async_context(client_of(fake)))
        source = Source()
        no_counters: Any = None  # nothing is told to Redis here
        billing = await stack.enter_async_context(Billing(ledger, no_counters, source))
        session = await stack.enter_async_context(aiohttp.ClientSession())
        intake = Intake(postgres_url, ledger, queue, fake, shop, billing, session)
        intake.platform_id = (await ledger.apply_catalog(Platform("demo"), (), ())).platform_id
        source.by_platform[intake.platform_id] = StripeSettings(
            intake.platform_id,
            "demo",
            livemode=False,
            secret_key=fake.api_key,
            webhook_secrets=(SECRET,),
            options=BillingOptions(api_base=fake.url),
        )
        app = web.Application()
        reception = Reception(ledger, source, queue, handled=intake.handlers)
        add_stripe_webhooks(app, reception, intake.metrics)
        bound = stack.enter_context(hold("127.0.0.1"))
        await stack.enter_async_context(serving(app, bound))
        intake.url = f"http://127.0.0.1:{held_port(bound)}"
        yield intake
