"""A running API whose platform sells at the fake Stripe: a plan, a dearer one, and a pack."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

from gateway.config.stripe import StripeTable
from gateway.ledger import BY_API
from gateway.operations.secrets import set_secret
from policies.billing_options import BillingOptions
from policies.catalog import Pack, Plan, Platform
from tests.support.api import CREDIT, PLANS
from tests.support.billing_rows import BillingRows
from tests.support.fake_stripe.face import FakeStripe
from tests.support.stripe_sales import handle_event
from tests.support.stripe_shop import Shop, client_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.api import Api

THANKS = "https://shop.example/thanks"
MAX = Plan("max", 5_000 * CREDIT)
PACK = Pack("small", "Small", 300 * CREDIT)


class StripeDesk:
    """The API, its platform's Stripe, and what happens there."""

    def __init__(self, api: Api, shop: Shop) -> None:
        self.api = api
        self.shop = shop
        self.fake = shop.fake
        self.rows = BillingRows(api.postgres_url, api.demo.platform_id, livemode=False)
        self._handled = 0

    async def open(self) -> None:
        """Write the settings, and put what is sold into Stripe."""
        api, platform_id = self.api, self.api.demo.platform_id
        await set_secret(api.ledger, api.services.sealer, platform_id, "stripe", self.fake.api_key)
        options = BillingOptions(api_base=self.fake.url, success_url=THANKS)
        await api.ledger.save_stripe_settings(
            platform_id,
            StripeTable("secret:stripe", options=options),
            livemode=False,
            managed_by=BY_API,
        )
        await api.ledger.apply_catalog(Platform("demo", "Demo"), (*PLANS, MAX), [])
        await api.ledger.create_pack(platform_id, PACK)
        await self._sell("plan", "pro", 2_000, interval="month")
        await self._sell("plan", "max", 9_000, interval="month")
        await self._sell("pack", "small", 1_500)

    async def pay(self, page: dict[str, Any], card: Any = "works") -> None:
        """Pay on a page, and let the books follow."""
        self.fake.complete_checkout(page["session_id"], card)
        await self.follow()

    async def follow(self) -> None:
        """Handle all that happened."""
        sync = await self.api.services.billing.sync(self.api.demo.platform_id)
        events = self.fake.events()
        fresh, self._handled = events[self._handled :], len(events)
        for event in fresh:
            await handle_event(sync, event)

    async def _sell(self, kind: str, slug: str, amount: int, interval: str | None = None) -> None:
        """A product that names what the API describes; the books follow its events."""
        await self.shop.price(amount, interval, metadata={"tollkeeper": "demo", kind: slug})


@asynccontextmanager
async def opened_desk(api: Api) -> AsyncIterator[StripeDesk]:
    """The same API, with a Stripe."""
    async with AsyncExitStack() as stack:
        fake = await stack.enter_async_context(FakeStripe.running())
        desk = StripeDesk(api, Shop(fake, await stack.enter_async_context(client_of(fake))))
        await desk.open()
        await desk.follow()
        yield desk
