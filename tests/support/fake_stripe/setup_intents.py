"""Setup intents: a card put on file for later, nothing paid yet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .calls import get, listing, page, retrieving, where, within
from .forms import CREATED, text

if TYPE_CHECKING:
    from .calls import Call
    from .store import Object, Store

URL = "/v1/setup_intents"


def succeed(
    store: Store, customer: Object | None, method: Object, metadata: dict[str, str] | None = None
) -> Object:
    """The payer has put a payment method on file."""
    intent = store.add(
        "setup_intent",
        "seti",
        {
            "application": None,
            "automatic_payment_methods": None,
            "cancellation_reason": None,
            "client_secret": store.make_id("seti_secret"),
            "customer": customer["id"] if customer else None,
            "customer_account": None,
            "description": None,
            "flow_directions": None,
            "last_setup_error": None,
            "latest_attempt": None,
            "mandate": None,
            "metadata": dict(metadata or {}),
            "next_action": None,
            "on_behalf_of": None,
            "payment_method": method["id"],
            "payment_method_options": {},
            "payment_method_types": [method["type"]],
            "single_use_mandate": None,
            "status": "succeeded",
            "usage": "off_session",
        },
    )
    store.emit("setup_intent.created", intent)
    store.emit("setup_intent.succeeded", intent)
    return intent


def list_intents(call: Call) -> Object:
    """Setup intents by customer, payment method and time."""
    found = within(call, call.store.all("setup_intent"))
    return page(call, where(call, found, "customer", "payment_method"), URL)


ROUTES = (
    listing(URL, list_intents, {"created": CREATED, "customer": text, "payment_method": text}),
    get(URL + "/{id}", retrieving("setup_intent")),
)
