"""A platform whose catalogue is at the fake Stripe: what a test tags, and what is made of it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from gateway.stripe_sync.events import Hint
from policies.catalog import Platform
from tests.support.stripe_sales import opened_sales

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.ledger.stripe_products import StripeProduct
    from gateway.stripe_sync.sync import Sync
    from policies.catalog import Pack, Plan
    from tests.support.api import Api
    from tests.support.deployment import Deployment
    from tests.support.fake_stripe.face import FakeStripe
    from tests.support.stripe_shop import Shop

PRO = {"plan": "pro", "credits": "1000", "requests_per_minute": "60"}
BIG = {"pack": "big", "credits": "500", "validity_days": "90"}


class Stand:
    """A deployment, a fake Stripe, and the one's platform `demo` at the other."""

    def __init__(self, deployment: Deployment, shop: Shop, sync: Sync) -> None:
        self.deployment = deployment
        self.ledger = deployment.ledger
        self.platform_id = deployment.platform_id
        self.shop = shop
        self.fake = shop.fake
        self.v1 = shop.v1
        self.sync = sync

    async def product(
        self, metadata: dict[str, str], *, tag: str | None = "demo", name: str = "Ours", **more: Any
    ) -> str:
        """A new product; answers its id."""
        tagged = {"tollkeeper": tag, **metadata} if tag else metadata
        made = await self.v1.products.create_async({"name": name, "metadata": tagged, **more})
        return str(made.id)

    async def price(self, product_id: str, interval: str | None = "month", **more: Any) -> str:
        """A new price of 19 dollars; answers its id."""
        params: dict[str, Any] = {"product": product_id, "currency": "usd", "unit_amount": 1900}
        if interval is not None:
            params["recurring"] = {"interval": interval}
        return str((await self.v1.prices.create_async(params | more)).id)

    async def sold(
        self, metadata: dict[str, str], interval: str | None = "month"
    ) -> tuple[str, str]:
        """A product with a price; answers both ids."""
        product_id = await self.product(metadata)
        return product_id, await self.price(product_id, interval)

    async def edit(self, product_id: str, **params: Any) -> None:
        """Change a product."""
        await self.v1.products.update_async(product_id, params)

    async def known(self, product_id: str) -> StripeProduct | None:
        """The product as it is kept here."""
        found = await self.ledger.stripe_products(self.platform_id, self.sync.livemode)
        return next((one for one in found if one.product_id == product_id), None)

    async def problem(self, product_id: str) -> str | None:
        """Why the product is parked."""
        known = await self.known(product_id)
        assert known is not None
        return known.problem

    async def plan(self, slug: str = "pro") -> Plan | None:
        """The platform's plan of this slug."""
        stored = await self.ledger.plan(self.platform_id, slug)
        return None if stored is None else stored.plan

    async def pack(self, slug: str = "big") -> Pack | None:
        """The platform's pack, if it is sold."""
        stored = await self.ledger.pack(self.platform_id, slug)
        return stored.pack if stored is not None and stored.active else None

    async def apply(self, *plans: Plan, packs: tuple[Pack, ...] = ()) -> None:
        """Let the config say that these are sold."""
        await self.ledger.apply_catalog(Platform("demo"), plans, (), packs)


def hint(object_id: str, kind: str = "product.updated") -> Hint:
    """What a thin event says."""
    return Hint(kind, object_id, 0)


async def ask_at(api: Api, fake: FakeStripe) -> None:
    """Let the platform `demo` of an API, which has its Stripe by that, ask this one."""
    platform_id = api.demo.platform_id
    stored = await api.ledger.stripe_settings(platform_id)
    assert stored is not None
    options = replace(stored.table.options, api_base=fake.url)
    await api.ledger.save_stripe_settings(
        platform_id,
        replace(stored.table, options=options),
        livemode=stored.livemode,
        managed_by=stored.managed_by,
    )
    api.services.billing.source.forget(platform_id)


@asynccontextmanager
async def running_stand(
    postgres_url: str, redis_url: str, *, live: bool = False
) -> AsyncIterator[Stand]:
    """A stand on a migrated database, and on a Redis that is its own."""
    async with opened_sales(redis_url, postgres_url, live=live) as sales:
        yield Stand(*sales)
