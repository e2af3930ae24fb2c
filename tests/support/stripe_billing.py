"""What tests of billing at the fake Stripe have in common: fixed dates, plans, subscribers."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.support.fake_stripe.payment_methods import Behaviour
    from tests.support.stripe_shop import Shop


def at(year: int, month: int, day: int, hour: int = 0) -> int:
    """A moment in UTC."""
    return int(datetime(year, month, day, hour, tzinfo=UTC).timestamp())


async def subscriber(
    shop: Shop, price: str, card: Behaviour | None = "works", **subscription: Any
) -> Any:
    """A new customer's subscription to one price, made through the API."""
    customer = subscription.pop("customer", None) or await shop.customer(card)
    quantity = subscription.pop("quantity", 1)
    return await shop.v1.subscriptions.create_async(
        {
            "customer": customer,
            "items": [{"price": price, "quantity": quantity}],
            **subscription,
        }
    )


def item_of(subscription: Any) -> Any:
    """Its only item."""
    return subscription["items"].data[0]


async def invoices_of(shop: Shop, subscription: Any) -> list[Any]:
    """Its invoices, oldest first, with their payments."""
    found = await shop.v1.invoices.list_async(
        {"subscription": subscription.id, "limit": 100, "expand": ["data.payments"]}
    )
    return list(found.data)[::-1]


async def again(shop: Shop, subscription: Any) -> Any:
    """The subscription as it is now."""
    return await shop.v1.subscriptions.retrieve_async(subscription.id)


async def change(shop: Shop, subscription: Any, price: str, **params: Any) -> Any:
    """The subscription after its item was moved to another price."""
    return await shop.v1.subscriptions.update_async(
        subscription.id,
        {
            "items": [{"id": item_of(subscription).id, "price": price}],
            "expand": ["latest_invoice"],
            **params,
        },
    )
