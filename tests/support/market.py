"""A deployment that sells plans and packs at the fake Stripe, for tests of what payments give.

Events are handled by hand, with the real client, in the order that a test wants.
"""

from __future__ import annotations

import json
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import asyncpg

from gateway.jobs.expiry import Expiry
from gateway.operations.publish import publisher
from gateway.recovery.carry import Carrier
from policies.billing_options import DunningRules
from policies.catalog import Pack, Plan, Platform
from tests.support.billing_calendar import LostShards
from tests.support.billing_rows import BillingRows
from tests.support.deployment import CREDIT
from tests.support.stripe_sales import handle_event, opened_sales

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence

    from gateway.stripe_sync.sync import Sync
    from tests.support.deployment import Caller, Deployment
    from tests.support.fake_stripe.payment_methods import Behaviour
    from tests.support.fake_stripe.store import Object
    from tests.support.stripe_shop import Shop

DAY_S, HOUR_S = 86_400, 3_600
DAY_MS = DAY_S * 1_000
BRIDGE_MS = 2 * HOUR_S * 1_000
MONTHS = {"month": 1, "year": 12}
# The first failure downgrades, and nothing else happens to who does not pay.
ONE_FAILURE = DunningRules(None, 1, None, None)
FREE = Plan("free", credits_microcredits=10 * CREDIT)
PRO = Plan("pro", credits_microcredits=1_000 * CREDIT, overage_cap_microcredits=200 * CREDIT)
MAX = Plan("max", credits_microcredits=5_000 * CREDIT)
TRY = Plan("try", credits_microcredits=1_000 * CREDIT, trial_microcredits=50 * CREDIT)
YEAR = Plan("year", credits_microcredits=20_000 * CREDIT, period="year")
ROLL = Plan("roll", credits_microcredits=100 * CREDIT, rollover_microcredits_max=None)
PACK = Pack("small", "Small", credits_microcredits=300 * CREDIT, validity_days=90)
PLANS = [FREE, PRO, MAX, TRY, YEAR, ROLL]
COSTS_MINOR = {"pro": 2_000, "max": 9_000, "try": 2_000, "year": 40_000, "roll": 500}


class Lot(NamedTuple):
    """A lot as a test compares it: whole credits, times by the fake's clock in seconds."""

    source: str
    credits: int
    begins_s: int
    ends_s: int  # 0: never


class Market:
    """A deployment, a shop at the fake Stripe, and the account of somebody who buys there."""

    def __init__(self, deployment: Deployment, shop: Shop, sync: Sync, caller: Caller) -> None:
        self.deployment = deployment
        self.ledger = deployment.ledger
        self.shop = shop
        self.fake = shop.fake
        self.sync = sync
        self.caller = caller
        self.account_id = caller.account.account_id
        self.rows = BillingRows(deployment.postgres_url, deployment.platform_id, livemode=False)
        self.sql, self.findings = deployment.sql, deployment.findings
        self.customer_id = ""
        self.prices: dict[tuple[str, str], str] = {}
        self.products: dict[str, str] = {}
        self._handled = 0

    async def stock(self) -> None:
        """Put plans and packs into Stripe, and into the books as their sync does."""
        for plan in PLANS[1:]:
            product = await self._product("plan", plan.slug)
            for interval in MONTHS:
                if plan.period == "month" or interval == "year":
                    await self._price(plan.slug, product, interval)
        product = await self._product("pack", PACK.slug)
        await self._price(PACK.slug, product, "")
        await self.sql(
            "INSERT INTO packs (platform_id, slug, spec) VALUES ($1, $2, $3)",
            self.deployment.platform_id,
            PACK.slug,
            json.dumps(
                {
                    "name": PACK.name,
                    "credits_microcredits": str(PACK.credits_microcredits),
                    "validity_days": PACK.validity_days,
                    "prices": [],
                }
            ),
        )

    async def _product(self, kind: str, slug: str) -> str:
        made = await self.shop.v1.products.create_async(
            {"name": slug, "metadata": {"tollkeeper": "demo", kind: slug}}
        )
        await self.rows.insert(
            "stripe_products",
            livemode=False,
            product_id=made.id,
            kind=kind,
            slug=slug,
            name=slug,
            active=True,
            metadata="{}",
        )
        self.products[slug] = made.id
        return str(made.id)

    async def _price(self, slug: str, product: str, interval: str) -> None:
        amount = COSTS_MINOR.get(slug, 1_500) * (10 if interval == "year" else 1)
        params: dict[str, Any] = {"product": product, "currency": "usd", "unit_amount": amount}
        if interval:
            params["recurring"] = {"interval": interval}
        made = await self.shop.v1.prices.create_async(params)
        await self.rows.insert(
            "stripe_prices",
            livemode=False,
            price_id=made.id,
            product_id=product,
            active=True,
            currency="usd",
            unit_amount=amount,
            months=MONTHS.get(interval),
        )
        self.prices[slug, interval] = made.id

    async def customer(self, card: Behaviour | None = "works", **metadata: str) -> str:
        """A customer of the account's, as we make it: known before anything is bought."""
        made = await self.shop.customer(card, metadata=metadata)
        await self.rows.insert(
            "stripe_customers",
            account_id=self.account_id,
            customer_id=made,
            livemode=False,
        )
        self.customer_id = made
        return made

    async def subscribe(
        self, slug: str = "pro", interval: str = "month", quantity: int = 1, **params: Any
    ) -> Any:
        """The account's customer subscribes to a plan; the subscription."""
        if not self.customer_id:
            await self.customer()
        return await self.shop.v1.subscriptions.create_async(
            {
                "customer": self.customer_id,
                "items": [{"price": self.prices[slug, interval], "quantity": quantity}],
                **params,
            }
        )

    async def change(
        self, subscription: str, slug: str, interval: str = "month", **params: Any
    ) -> Any:
        """Another plan at once, paid first, as our own way of changing does it."""
        whole = await self.shop.v1.subscriptions.retrieve_async(subscription)
        item = whole.to_dict()["items"]["data"][0]["id"]
        return await self.shop.v1.subscriptions.update_async(
            subscription,
            {
                "items": [{"id": item, "price": self.prices[slug, interval], **params}],
                "proration_behavior": "always_invoice",
            },
        )

    async def open_invoice(self) -> Any:
        """The one invoice that the account's customer still has to pay."""
        (invoice,) = (
            await self.shop.v1.invoices.list_async({"customer": self.customer_id, "status": "open"})
        ).data
        return invoice

    def waiting(self) -> list[Object]:
        """Events that nobody has handled, oldest first; from now on they count as handled."""
        events = self.fake.events()
        fresh = events[self._handled :]
        self._handled = len(events)
        return fresh

    async def handle(self, events: Iterable[Object], *, thin: bool = False) -> int:
        """Handle events in this order; how many there was something to be done for."""
        return sum([await handle_event(self.sync, event, thin=thin) for event in events])

    async def catch_up(self) -> int:
        """Handle all that happened, in its order."""
        return await self.handle(self.waiting())

    async def advance_to_now(self) -> None:
        """Let the fake's time be ours: all that falls due until then happens."""
        await self.fake.advance_to(int(time.time()))

    async def row(self, statement: str, *arguments: object) -> tuple[Any, ...]:
        """The first row that a statement answers."""
        connection = await asyncpg.connect(self.deployment.postgres_url)
        try:
            found = await connection.fetchrow(statement, *arguments)
            return tuple(found) if found else ()
        finally:
            await connection.close()

    async def balance(self) -> int:
        """What calls can take now, without overage, in whole credits; both stores say the same."""
        fields = (await self.deployment.counters.inspect(self.caller.keys)).fields
        now_ms = int(await self.sql("SELECT to_ms(now())"))
        in_redis = 0
        for token in fields["lots"].split():
            if token.endswith("o"):
                continue
            begins, ends = int(fields[f"f:{token}"]), int(fields[f"e:{token}"])
            if begins <= now_ms and (ends == 0 or now_ms < ends):
                in_redis += int(fields[f"a:{token}"])
        in_postgres = await self.sql(
            "SELECT coalesce(sum(amount_microcredits + credited_microcredits"
            " - settled_microcredits - expired_microcredits - revoked_microcredits), 0)::bigint"
            " FROM grants WHERE account_id = $1 AND source <> 'overage'"
            " AND effective_at <= now() AND (expires_at IS NULL OR expires_at > now())",
            self.account_id,
        )
        assert in_redis == in_postgres
        whole, rest = divmod(in_redis, CREDIT)
        assert rest == 0
        return whole

    async def lots(self, *sources: str) -> list[Lot]:
        """Lots in the order in which they begin and end, of these sources or all but overage."""
        found = [
            Lot(
                row.source,
                row.amount_microcredits // CREDIT,
                row.effective_ms // 1_000,
                row.expires_ms // 1_000,
            )
            for row in await self.ledger.grants(self.account_id)
            if row.source in sources or (not sources and row.source != "overage")
        ]
        return sorted(found, key=lambda lot: (lot.begins_s, lot.ends_s, lot.source))

    async def standing(self) -> tuple[str | None, str, bool]:
        """The account's plan, who renews it, and whether it is suspended for want of payment."""
        account = await self.ledger.find_account(self.deployment.platform_id, "alice")
        assert account is not None
        return account.plan_slug, account.renewed_by, account.payment_suspended

    async def status_in_redis(self) -> str:
        """What calls are decided by."""
        return (await self.deployment.counters.inspect(self.caller.keys)).fields["status"]

    async def events(self) -> list[str]:
        """Kinds of what the account is told of, in their order."""
        return [event.kind for event in await self.ledger.events(self.account_id)]

    async def payments(self) -> Sequence[tuple[Any, ...]]:
        """Kind, status and amount of payments, in the order in which they fell due."""
        connection = await asyncpg.connect(self.deployment.postgres_url)
        try:
            found = await connection.fetch(
                "SELECT kind, status, amount_minor FROM billing_transactions"
                " WHERE account_id = $1 ORDER BY created_at, kind",
                self.account_id,
            )
            return [tuple(row) for row in found]
        finally:
            await connection.close()

    async def expire(self) -> None:
        """What a node does about lots that have ended, and what rolls over."""
        await Expiry(
            self.deployment.counters,
            self.ledger,
            Carrier(self.deployment.counters, self.ledger),
            LostShards(),
            publisher(self.ledger, self.deployment.counters),
        ).expire()


@asynccontextmanager
async def opened_market(
    redis_url: str, postgres_url: str, *, ago_s: int = 0, **options: Any
) -> AsyncIterator[Market]:
    """An empty deployment with an account that has nothing yet, on the signup plan.

    `ago_s`: how far in the past Stripe's clock begins. `options` are those of the platform's
    billing.
    """
    now_s = int(time.time()) - ago_s
    async with opened_sales(redis_url, postgres_url, now_s=now_s, **options) as sales:
        deployment, shop, sync = sales
        await deployment.ledger.apply_catalog(Platform("demo", signup_plan="free"), PLANS, [])
        caller = await deployment.caller(microcredits=CREDIT)
        await deployment.call(caller, CREDIT)  # loads it, with nothing left
        await deployment.carry()
        market = Market(deployment, shop, sync, caller)
        await market.stock()
        market.waiting()
        yield market
