"""Invoices as the API makes, changes, finalises and pays them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import discounts, invoice_items, invoices, payment_methods, payments, previews
from .calls import delete, get, listing, page, post, retrieving, within
from .errors import invalid
from .forms import CREATED, boolean, integer, list_of, metadata, one_of, text
from .store import merge_metadata

if TYPE_CHECKING:
    from .calls import Call
    from .forms import Shape
    from .store import Object

URL = "/v1/invoices"


def create(call: Call) -> Object:
    """A draft made by hand; with `pending_invoice_items_behavior=include` of what waits."""
    store, params = call.store, call.params
    customer = store.get("customer", call.need("customer"), "customer")
    subscription = None
    if params.get("subscription"):
        subscription = store.get("subscription", params["subscription"], "subscription")
    method = params.get("default_payment_method")
    invoice = invoices.draft(
        store,
        customer,
        [],
        reason="manual",
        currency=str(params.get("currency") or customer["currency"] or "usd").lower(),
        period=(store.now_s, store.now_s),
        subscription=subscription,
        automatic_tax=bool((params.get("automatic_tax") or {}).get("enabled")),
        auto_advance=params.get("auto_advance", False),
    )
    invoice |= {
        "default_payment_method": method and payment_methods.get(store, method)["id"],
        "description": params.get("description"),
        "discounts": discounts.redeem(
            store, customer, params.get("discounts"), invoice=invoice["id"]
        ),
        "metadata": merge_metadata({}, params.get("metadata")),
    }
    if params.get("pending_invoice_items_behavior") == "include":
        invoice_items.take_pending(store, customer, invoice, subscription)
    invoices.announce(store, invoice)
    return invoice


def update(call: Call) -> Object:
    """Changes a draft; of a final one only metadata and whether it is collected."""
    store, params = call.store, call.params
    invoice = store.get("invoice", call.id)
    if invoice["status"] != "draft" and params.keys() - {"metadata", "auto_advance"}:
        raise invalid(
            "Finalized invoices can't be updated in this way", code="invoice_not_editable"
        )
    with store.updating(invoice):
        for name in ("default_payment_method", "description"):
            if name in params:
                invoice[name] = params[name]
        if "metadata" in params:
            invoice["metadata"] = merge_metadata(invoice["metadata"], params["metadata"])
        if "auto_advance" in params:
            _advance(call, invoice)
    return invoice


def _advance(call: Call, invoice: Object) -> None:
    store = call.store
    invoice["auto_advance"] = call.params["auto_advance"]
    if invoice["status"] != "draft":
        return
    at_s = store.now_s + invoices.FINALIZED_AFTER_S if invoice["auto_advance"] else None
    invoice["automatically_finalizes_at"] = at_s
    if at_s is not None:
        store.due(at_s, invoices.FINALIZES, invoice["id"])


def finalize(call: Call) -> Object:
    """Finalises a draft; with `auto_advance` it is tried an hour later at most: here at once."""
    invoice = call.store.get("invoice", call.id)
    if "auto_advance" in call.params:
        invoice["auto_advance"] = call.params["auto_advance"]
    invoices.finalize(call.store, invoice)
    if invoice["auto_advance"]:
        invoices.collect(call.store, invoice)
    return invoice


def pay(call: Call) -> Object:
    """Pays it by what is on file, by another method, or notes that it was paid elsewhere.

    Raises: StripeError, 402, when the payment fails; 400 for one that is not owed.
    """
    store, params = call.store, call.params
    invoice = store.get("invoice", call.id)
    if invoice["status"] == "draft":
        invoices.finalize(store, invoice)
        if invoice["status"] == "paid":
            return invoice
    if invoice["status"] == "paid":
        raise invalid("Invoice is already paid", code="invoice_already_paid")
    if invoice["status"] == "void":
        raise invalid("Invoice is voided and can no longer be paid", code="invoice_not_payable")
    if params.get("paid_out_of_band"):
        invoices.pay_out_of_band(store, invoice)
        return invoice
    method = params.get("payment_method")
    found = None if method is None else payment_methods.get(store, method)
    present = not params.get("off_session", True)
    payment = invoices.collect(store, invoice, method=found, present=present)
    if payment is not None and payment.outcome == "failed":
        raise payments.card_error(payment)
    return invoice


def void(call: Call) -> Object:
    """It is as if it had never been."""
    invoice = call.store.get("invoice", call.id)
    invoices.close(call.store, invoice, "void")
    return invoice


def mark_uncollectible(call: Call) -> Object:
    """It is a bad debt; it can still be paid."""
    invoice = call.store.get("invoice", call.id)
    invoices.close(call.store, invoice, "uncollectible")
    return invoice


def remove(call: Call) -> Object:
    """Deletes a draft that was made by hand; what was put on it waits again, unless it is gone."""
    store = call.store
    invoice = store.get("invoice", call.id)
    if invoice["status"] != "draft":
        raise invalid("You can only delete draft invoices.")
    if invoice["parent"] is not None:
        raise invalid("You can't delete invoices created by subscriptions.")
    for item in store.all("invoiceitem"):
        if item["invoice"] == invoice["id"]:
            item["_deleted"] = True
    invoice["_deleted"] = True
    store.emit("invoice.deleted", invoice)
    return {"id": invoice["id"], "object": "invoice", "deleted": True}


def list_all(call: Call) -> Object:
    """Newest first, by customer, subscription, status and time."""
    params = call.params
    found = within(call, call.store.all("invoice"))
    for name in ("customer", "status", "collection_method"):
        if params.get(name):
            found = [each for each in found if each[name] == params[name]]
    if params.get("subscription"):
        subscription = call.store.get("subscription", params["subscription"], "subscription")
        mine = {each["id"] for each in invoices.of_subscription(call.store, subscription)}
        found = [each for each in found if each["id"] in mine]
    return page(call, found, URL)


def list_lines(call: Call) -> Object:
    """All lines of an invoice, in their order."""
    invoice = call.store.get("invoice", call.id)
    # Lists are answered last first; lines go as they stand.
    return page(call, invoice["lines"]["data"][::-1], f"{URL}/{call.id}/lines")


_INVOICE: Shape = {
    "auto_advance": boolean,
    "default_payment_method": text,
    "description": text,
    "metadata": metadata,
}
ROUTES = (
    listing(
        URL,
        list_all,
        {
            "collection_method": one_of("charge_automatically", "send_invoice"),
            "created": CREATED,
            "customer": text,
            "status": one_of("draft", "open", "paid", "uncollectible", "void"),
            "subscription": text,
        },
    ),
    post(
        URL,
        create,
        {
            **_INVOICE,
            "automatic_tax": {"enabled": boolean},
            "collection_method": one_of("charge_automatically"),
            "currency": text,
            "customer": text,
            "discounts": discounts.DISCOUNTS,
            "pending_invoice_items_behavior": one_of("exclude", "include"),
            "subscription": text,
        },
    ),
    post(
        URL + "/create_preview",
        previews.create,
        {
            "customer": text,
            "subscription": text,
            "subscription_details": {
                "cancel_at_period_end": boolean,
                "items": list_of(
                    {
                        "deleted": boolean,
                        "id": text,
                        "metadata": metadata,
                        "price": text,
                        "quantity": integer,
                    }
                ),
                "proration_behavior": one_of("always_invoice", "create_prorations", "none"),
                "proration_date": integer,
            },
        },
    ),
    get(URL + "/{id}", retrieving("invoice")),
    post(URL + "/{id}", update, _INVOICE),
    delete(URL + "/{id}", remove),
    listing(URL + "/{id}/lines", list_lines),
    post(URL + "/{id}/finalize", finalize, {"auto_advance": boolean}),
    post(
        URL + "/{id}/pay",
        pay,
        {"off_session": boolean, "paid_out_of_band": boolean, "payment_method": text},
    ),
    post(URL + "/{id}/void", void),
    post(URL + "/{id}/mark_uncollectible", mark_uncollectible),
)
