"""The account that the fake's keys belong to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .calls import get
from .errors import no_such

if TYPE_CHECKING:
    from .calls import Call
    from .store import Object


def retrieve(call: Call) -> Object:
    """The account itself, as `GET /v1/account` shows it."""
    if call.path.get("id", call.store.account_id) != call.store.account_id:
        raise no_such("account", call.id)
    return {
        "id": call.store.account_id,
        "object": "account",
        "business_profile": {"name": "Fake Stripe", "url": None},
        "charges_enabled": True,
        "country": "US",
        "default_currency": "usd",
        "details_submitted": True,
        "email": "owner@example.com",
        "metadata": {},
        "payouts_enabled": True,
        "type": "standard",
    }


ROUTES = (get("/v1/account", retrieve), get("/v1/accounts/{id}", retrieve))
