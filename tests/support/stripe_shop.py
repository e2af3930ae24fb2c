"""A shop at the fake Stripe: the real client, and what tests sell with it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import aiohttp
import stripe

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.fake_stripe.face import FakeStripe
    from tests.support.fake_stripe.payment_methods import Behaviour
    from tests.support.fake_stripe.store import Object

SUCCESS_URL = "https://shop.example/paid?session={CHECKOUT_SESSION_ID}"
ANSWER_S_MAX = 20


@dataclass(frozen=True, slots=True)
class Shop:
    """A fake, and a client of it."""

    fake: FakeStripe
    client: stripe.StripeClient

    @property
    def v1(self) -> Any:
        """The client's services, whose parameters tests may also give wrongly on purpose."""
        return self.client.v1

    async def price(
        self, unit_amount: int = 1000, interval: str | None = None, **product: Any
    ) -> str:
        """A new product's price: for each interval, else for once. Answers with its id."""
        data: dict[str, Any] = {"currency": "usd", "unit_amount": unit_amount}
        if interval is not None:
            data["recurring"] = {"interval": interval}
        made = await self.v1.products.create_async(
            {"name": "Plan" if interval else "Pack", "default_price_data": data, **product}
        )
        return str(made.default_price)

    async def customer(self, card: Behaviour | None = None, **customer: Any) -> str:
        """A new customer, with a payment method on file if one is named. Answers with its id."""
        made = await self.v1.customers.create_async({"email": "pat@example.com", **customer})
        if card is not None:
            self.fake.set_card(made.id, card)
        return str(made.id)

    async def session(self, price: str, quantity: int = 1, **session: Any) -> str:
        """A checkout session that sells one thing. Answers with its id."""
        made = await self.v1.checkout.sessions.create_async(
            {
                "line_items": [{"price": price, "quantity": quantity}],
                "mode": "payment",
                "success_url": SUCCESS_URL,
                **session,
            }
        )
        return str(made.id)

    async def buy(self, price: str, card: Behaviour = "works", **session: Any) -> Object:
        """The session by which a customer has bought one thing."""
        customer = session.pop("customer", None) or await self.customer()
        made = await self.session(price, customer=customer, **session)
        return self.fake.complete_checkout(made, card)

    async def subscribe(self, price: str, card: Behaviour = "works", **session: Any) -> Object:
        """The session by which a customer has subscribed."""
        return await self.buy(price, card, mode="subscription", **session)

    async def charge_of(self, session: Object) -> str:
        """The charge that paid a session of a single payment."""
        intent = await self.v1.payment_intents.retrieve_async(session["payment_intent"])
        return str(intent.latest_charge)

    def happened(self, *beginnings: str) -> list[str]:
        """The types of events so far, those that begin so, or all."""
        types = [str(event["type"]) for event in self.fake.events()]
        return [one for one in types if one.startswith(beginnings or ("",))]


@asynccontextmanager
async def client_of(fake: FakeStripe, key: str | None = None) -> AsyncIterator[stripe.StripeClient]:
    """The real client, as the gateway uses it, of a fake that runs."""
    stripe.enable_telemetry = False  # it would write to the home folder
    http = stripe.AIOHTTPClient(timeout=aiohttp.ClientTimeout(total=ANSWER_S_MAX))
    try:
        yield stripe.StripeClient(
            key or fake.api_key, base_addresses={"api": fake.url}, http_client=http
        )
    finally:
        await http.close_async()
