"""A deployment whose platform `demo` sells at a fake Stripe: what tests of selling begin with."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from gateway.stripe_sync.client import StripeApi, stripe_session
from gateway.stripe_sync.events import HANDLERS, Hint
from gateway.stripe_sync.settings import StripeSettings
from gateway.stripe_sync.sync import Sync
from policies.billing_options import BillingOptions
from tests.support.deployment import running_deployment
from tests.support.fake_stripe.face import FakeStripe
from tests.support.stripe_shop import Shop, client_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.deployment import Deployment
    from tests.support.fake_stripe.store import Object


class Sales(NamedTuple):
    """The deployment, its shop at the fake, and what its handlers work with."""

    deployment: Deployment
    shop: Shop
    sync: Sync


@asynccontextmanager
async def opened_sales(
    redis_url: str,
    postgres_url: str,
    *,
    live: bool = False,
    now_s: int | None = None,
    **options: Any,
) -> AsyncIterator[Sales]:
    """An empty deployment, and a fake whose time begins at `now_s`.

    `options` are those of the platform's billing.
    """
    async with AsyncExitStack() as stack:
        deployment = await stack.enter_async_context(running_deployment(redis_url, postgres_url))
        fake = await stack.enter_async_context(FakeStripe.running(now_s=now_s))
        key = fake.live_api_key if live else fake.api_key
        client = await stack.enter_async_context(client_of(fake, key))
        settings = StripeSettings(
            deployment.platform_id,
            "demo",
            livemode=live,
            secret_key=key,
            options=BillingOptions(api_base=fake.url, **options),
        )
        api = StripeApi(settings, await stack.enter_async_context(stripe_session()))
        sync = Sync(settings, api, deployment.ledger, deployment.counters)
        yield Sales(deployment, Shop(fake, client), sync)


async def handle_event(sync: Sync, event: Object, *, thin: bool = False) -> bool:
    """Do what is done for an event; whether there is something. A thin one brings no object."""
    handler = HANDLERS.get(event["type"])
    if handler is None:
        return False
    document = event["data"]["object"]
    created_ms = event["created"] * 1_000
    await handler(sync, Hint(event["type"], document["id"], created_ms, {} if thin else document))
    return True
