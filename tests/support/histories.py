"""Histories of payments that somebody might have had, each made from a number, at a fake Stripe."""

from __future__ import annotations

import random
import time
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import stripe

from policies.catalog import Plan, Platform
from tests.support.fake_stripe.errors import StripeError
from tests.support.fake_stripe.face import FakeStripe
from tests.support.stripe_shop import Shop, client_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from tests.support.fake_stripe.payment_methods import Behaviour
    from tests.support.fake_stripe.store import Object

DAY_S = 86_400
GAP_DAYS_MAX = 12
WAVERING_S = 600
# What everybody is on who has not paid. Its period begins with the books and holds all of a
# history: who falls back to it goes on in that, and is given nothing more, heard of or not.
IDLE = Plan("idle", credits_microcredits=7_000_000)
PLATFORM = Platform("demo", signup_plan="idle")
PLANS = {
    "pro": {"credits": "1000", "overage": "bill", "overage_cap": "200"},
    "max": {"credits": "5000"},
    "try": {"credits": "1000", "trial_credits": "50", "trial_days": "5"},
}
COSTS_MINOR = {"pro": 2_000, "max": 9_000, "try": 2_100}
PACK = {"pack": "small", "credits": "300"}
PACK_MINOR = 1_500
CARDS: tuple[Behaviour, ...] = ("works", "works", "works", "fails at renewal", "async", "fails")
PAYERS: tuple[Behaviour, ...] = ("works", "works", "works", "fails at renewal", "async")
LIVE = ("trialing", "active", "past_due", "unpaid")


class History:
    """A customer who does this and that for some weeks, ending now."""

    def __init__(self, shop: Shop, seed: int) -> None:
        self.shop = shop
        self.fake = shop.fake
        self.customer_id = ""
        self.told: list[str] = []
        self._random = random.Random(f"history {seed}")
        self._by_years = self._random.random() < 0.3
        self._prices: dict[tuple[str, str], str] = {}

    async def open_shop(self) -> None:
        """Put plans and packs into Stripe, and make the customer."""
        for slug, metadata in PLANS.items():
            product = await self._product({"plan": slug, **metadata})
            for interval, times in (("month", 1), ("year", 10)):
                amount = COSTS_MINOR[slug] * times
                recurring = {"recurring": {"interval": interval}}
                self._prices[slug, interval] = await self._price(product, amount, **recurring)
        self._prices["small", ""] = await self._price(await self._product(PACK), PACK_MINOR)
        self.customer_id = await self.shop.customer("works")

    async def _product(self, metadata: dict[str, str]) -> str:
        made = await self.shop.v1.products.create_async(
            {"name": "Ours", "metadata": {"tollkeeper": PLATFORM.slug, **metadata}}
        )
        return str(made.id)

    async def _price(self, product: str, amount: int, **params: Any) -> str:
        made = await self.shop.v1.prices.create_async(
            {"product": product, "currency": "usd", "unit_amount": amount, **params}
        )
        return str(made.id)

    async def live_on(self, days: int) -> AsyncIterator[None]:
        """What the customer does in so many days; after each deed it is the caller's turn."""
        end_s = self.fake.clock.now_s + days * DAY_S
        await self._do(self.subscribe)
        yield
        while self.fake.clock.now_s < end_s:
            gap = self._random.choice((0, 1, 2, 4, 7, GAP_DAYS_MAX))
            await self.fake.advance_to(min(self.fake.clock.now_s + gap * DAY_S, end_s))
            yield
            for deed in self._random.sample(self.deeds, self._random.choice((0, 1, 1, 2))):
                await self._do(deed)
                yield

    async def take_back(self, deeds: int) -> AsyncIterator[None]:
        """Money goes back, or comes again."""
        for _ in range(deeds):
            await self._do(self._random.choice((self.refund, self.dispute, self.decide)))
            yield

    @property
    def deeds(self) -> list[Callable[[], Awaitable[None]]]:
        """All there is to be done; what can't be done at the moment is not done."""
        usual = [self.change, self.change, self.buy_pack, self.buy_pack, self.put_card, self.pay]
        usual.append(self.waver)
        # Of yearly prices money goes back at the end: which months it is taken of goes by which of
        # them a change had replaced when it was heard of.
        back = [] if self._by_years else [self.refund, self.refund, self.dispute, self.decide]
        ends = [self.cancel, self.cancel_later, self.keep, self.pause, self.subscribe, self.void]
        return usual + back + ends

    async def _do(self, deed: Callable[[], Awaitable[None]]) -> None:
        try:
            await deed()
        except (stripe.StripeError, StripeError) as error:
            self.told.append(f"{deed.__name__} refused: {error}")
        else:
            self.told.append(f"{deed.__name__}")

    async def subscribe(self) -> None:
        """To a plan, by Checkout; beside another subscription now and then."""
        if await self._subscriptions() and self._random.random() < 0.7:
            return
        price = self._prices[self._random.choice([*PLANS]), self._interval()]
        trial = {"subscription_data": {"trial_period_days": 5}}
        more: dict[str, Any] = trial if self._random.random() < 0.25 else {}
        quantity = self._random.choice((1, 1, 1, 3))
        session = await self.shop.session(
            price, quantity, mode="subscription", customer=self.customer_id, **more
        )
        self.fake.complete_checkout(session, self._random.choice(PAYERS))

    def _interval(self) -> str:
        return self._random.choice(("month", "year")) if self._by_years else "month"

    async def change(self) -> None:
        """To another plan or quantity, up or down, at once."""
        subscription = await self._subscription()
        slug, interval = self._random.choice([*PLANS]), self._interval()
        await self._put(subscription, slug, interval, self._random.choice((1, 1, 2)))

    async def waver(self) -> None:
        """Up, down and up again within the hour; what was paid first goes back now and then."""
        subscription, interval = await self._subscription(), self._interval()
        before = {charge["id"] for charge in self.fake.store.all("charge")}
        for slug in ("pro", "max", "pro"):
            await self._put(subscription, slug, interval)
            await self.fake.advance(seconds=WAVERING_S)
        new = [one for one in self.fake.store.all("charge") if one["id"] not in before]
        if new and not self._by_years and self._random.random() < 0.5:
            await self.shop.v1.refunds.create_async({"charge": new[-1]["id"]})
            await self.fake.advance(seconds=WAVERING_S)
        await self._put(subscription, "max", interval)

    async def _put(self, subscription: Object, slug: str, interval: str, quantity: int = 1) -> None:
        item = {"id": subscription["items"]["data"][0]["id"], "quantity": quantity}
        await self.shop.v1.subscriptions.update_async(
            subscription["id"],
            {
                "items": [{**item, "price": self._prices[slug, interval]}],
                "proration_behavior": "always_invoice",
            },
        )

    async def buy_pack(self) -> None:
        """One or more, and some only look."""
        session = await self.shop.session(
            self._prices["small", ""], self._random.choice((1, 1, 2)), customer=self.customer_id
        )
        if self._random.random() < 0.8:
            self.fake.complete_checkout(session, self._random.choice(PAYERS))

    async def put_card(self) -> None:
        """Another card."""
        self.fake.set_card(self.customer_id, self._random.choice(CARDS))

    async def pay(self) -> None:
        """What is unpaid: by a card that works, or by a transfer."""
        invoice = await self._open_invoice()
        by_hand = {"paid_out_of_band": True} if self._random.random() < 0.3 else {}
        if not by_hand:
            self.fake.set_card(self.customer_id, "works")
        await self.shop.v1.invoices.pay_async(invoice, by_hand)

    async def void(self) -> None:
        """What is unpaid is given up."""
        invoice = await self._open_invoice()
        if self._random.random() < 0.5:
            await self.shop.v1.invoices.void_invoice_async(invoice)
        else:
            await self.shop.v1.invoices.mark_uncollectible_async(invoice)

    async def refund(self) -> None:
        """Some of a payment, or all that is left of it."""
        charge = await self._charge()
        left = charge["amount"] - charge["amount_refunded"]
        amount = self._random.choice((left, left // 2, left // 3, 1))
        await self.shop.v1.refunds.create_async({"charge": charge["id"], "amount": amount})

    async def dispute(self) -> None:
        """The customer's bank wants a payment back."""
        charge = await self._charge()
        if not charge["disputed"] and not charge["amount_refunded"]:
            self.fake.dispute(charge["id"], self._random.choice((None, charge["amount"] // 2)))

    async def decide(self) -> None:
        """The bank decides."""
        open_ones = [
            one for one in self.fake.store.all("dispute") if one["status"] == "needs_response"
        ]
        if open_ones:
            ending = self._random.choice(("won", "lost"))
            self.fake.close_dispute(self._random.choice(open_ones)["id"], ending)

    async def cancel(self) -> None:
        """At once."""
        await self.shop.v1.subscriptions.cancel_async((await self._subscription())["id"])

    async def cancel_later(self) -> None:
        """At the period's end."""
        await self._update(cancel_at_period_end=True)

    async def keep(self) -> None:
        """Not to cancel, and to be charged again."""
        await self._update(cancel_at_period_end=False, pause_collection="")

    async def pause(self) -> None:
        """Not to be charged for a while."""
        behavior = self._random.choice(("void", "keep_as_draft", "mark_uncollectible"))
        await self._update(pause_collection={"behavior": behavior})

    async def _update(self, **params: Any) -> None:
        subscription = await self._subscription()
        await self.shop.v1.subscriptions.update_async(subscription["id"], params)

    async def _subscriptions(self) -> list[Object]:
        return [one for one in self.fake.store.all("subscription") if one["status"] in LIVE]

    async def _subscription(self) -> Object:
        found = await self._subscriptions()
        if not found:
            raise stripe.InvalidRequestError("there is no subscription", None)
        return self._random.choice(found)

    async def _open_invoice(self) -> str:
        found = [one["id"] for one in self.fake.store.all("invoice") if one["status"] == "open"]
        if not found:
            raise stripe.InvalidRequestError("there is no unpaid invoice", None)
        return str(self._random.choice(found))

    async def _charge(self) -> Object:
        found = [
            one
            for one in self.fake.store.all("charge")
            if one["status"] == "succeeded" and one["amount"] > one["amount_refunded"]
        ]
        if not found:
            raise stripe.InvalidRequestError("there is nothing to be paid back", None)
        return self._random.choice(found)


@asynccontextmanager
async def opened_history(seed: int, days: int) -> AsyncIterator[History]:
    """A history that begins so many days ago."""
    async with AsyncExitStack() as stack:
        # Not to the second: what falls due after whole days is then not due at this very moment.
        begin_s = int(time.time()) - days * DAY_S - 1_234
        fake = await stack.enter_async_context(FakeStripe.running(now_s=begin_s, seed=str(seed)))
        history = History(Shop(fake, await stack.enter_async_context(client_of(fake))), seed)
        await history.open_shop()
        yield history
