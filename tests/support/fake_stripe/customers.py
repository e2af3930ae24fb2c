"""Customers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .calls import delete, get, listing, page, post, where, within
from .forms import CREATED, integer, metadata, text
from .store import merge_metadata

if TYPE_CHECKING:
    from collections.abc import Callable

    from .calls import Call
    from .forms import Shape
    from .store import Object, Store

CUSTOMERS = "/v1/customers"

# Called with a customer that is about to be deleted: whoever has something of its ends it.
BEFORE_DELETION: list[Callable[[Store, Object], None]] = []


def create(call: Call) -> Object:
    """A customer without a card: it gets one by paying, or from a test."""
    store, params = call.store, call.params
    made = store.add(
        "customer",
        "cus",
        {
            "address": params.get("address"),
            "balance": params.get("balance") or 0,
            "currency": None,
            "customer_account": None,
            "default_source": None,
            "delinquent": False,
            "description": params.get("description"),
            "discount": None,
            "email": params.get("email"),
            "invoice_prefix": f"FAKE{len(store.tables.get('customer', {})) + 1:04}",
            "invoice_settings": {
                "custom_fields": None,
                "default_payment_method": None,
                "footer": None,
                "rendering_options": None,
            },
            "metadata": merge_metadata({}, params.get("metadata")),
            "name": params.get("name"),
            "next_invoice_sequence": 1,
            "phone": params.get("phone"),
            "preferred_locales": [],
            "shipping": None,
            "tax_exempt": "none",
            "test_clock": None,
        },
    )
    store.emit("customer.created", made)
    return made


def retrieve(call: Call) -> Object:
    """A customer; of a deleted one only that it is."""
    table = call.store.tables.get("customer", {})
    found = table.get(call.id)
    if found is not None and found.get("_deleted"):
        return {"id": found["id"], "object": "customer", "deleted": True}
    return call.store.get("customer", call.id)


def update(call: Call) -> Object:
    """Changes what is sent; metadata is merged."""
    store, params = call.store, call.params
    customer = store.get("customer", call.id)
    method = (params.get("invoice_settings") or {}).get("default_payment_method")
    if method is not None:
        store.get("payment_method", method, "invoice_settings[default_payment_method]")
    with store.updating(customer):
        for name in ("address", "balance", "description", "email", "name", "phone"):
            if name in params:
                customer[name] = params[name]
        if "default_payment_method" in (params.get("invoice_settings") or {}):
            customer["invoice_settings"]["default_payment_method"] = method
        if "metadata" in params:
            customer["metadata"] = merge_metadata(customer["metadata"], params["metadata"])
    return customer


def remove(call: Call) -> Object:
    """Deletes a customer for good, and ends its subscriptions at once."""
    store = call.store
    customer = store.get("customer", call.id)
    for end in BEFORE_DELETION:
        end(store, customer)
    customer["_deleted"] = True
    store.emit("customer.deleted", customer)
    return {"id": customer["id"], "object": "customer", "deleted": True}


def list_all(call: Call) -> Object:
    """Newest first, by e-mail and time."""
    return page(call, where(call, within(call, call.store.all("customer")), "email"), CUSTOMERS)


_ADDRESS: Shape = dict.fromkeys(("city", "country", "line1", "line2", "postal_code", "state"), text)
_CUSTOMER: Shape = {
    "address": _ADDRESS,
    "balance": integer,
    "description": text,
    "email": text,
    "invoice_settings": {"default_payment_method": text},
    "metadata": metadata,
    "name": text,
    "phone": text,
}
ROUTES = (
    listing(CUSTOMERS, list_all, {"created": CREATED, "email": text}),
    post(CUSTOMERS, create, _CUSTOMER),
    get(CUSTOMERS + "/{id}", retrieve),
    post(CUSTOMERS + "/{id}", update, _CUSTOMER),
    delete(CUSTOMERS + "/{id}", remove),
)
