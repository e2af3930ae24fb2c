"""Which payment intent pays which invoice: the only way from one to the other, both ways."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .calls import get, listing, page, retrieving, whole_list, within
from .forms import CREATED, one_of, text
from .store import INCLUDED

if TYPE_CHECKING:
    from .calls import Call
    from .store import Object, Store

URL = "/v1/invoice_payments"


def of_invoice(store: Store, invoice: Object) -> list[Object]:
    """An invoice's payments, oldest first."""
    return [one for one in store.all("invoice_payment") if one["invoice"] == invoice["id"]]


def open_of(store: Store, invoice: Object) -> Object | None:
    """The one by which an invoice is still to be paid."""
    found = [one for one in of_invoice(store, invoice) if one["status"] == "open"]
    return found[-1] if found else None


def make(store: Store, invoice: Object, intent: Object) -> Object:
    """An intent is to pay an invoice."""
    return store.add(
        "invoice_payment",
        "inpay",
        {
            "amount_paid": None,
            "amount_requested": intent["amount"],
            "currency": intent["currency"],
            "invoice": invoice["id"],
            "is_default": True,
            "payment": {"payment_intent": intent["id"], "type": "payment_intent"},
            "status": "open",
            "status_transitions": {"canceled_at": None, "paid_at": None},
        },
    )


def mark_paid(store: Store, intent: Object) -> None:
    """An intent has succeeded: if it was to pay an invoice, it has."""
    for one in store.all("invoice_payment"):
        if one["status"] == "open" and one["payment"]["payment_intent"] == intent["id"]:
            one |= {"amount_paid": intent["amount_received"], "status": "paid"}
            one["status_transitions"]["paid_at"] = store.now_s
            store.emit("invoice_payment.paid", one)


def mark_canceled(store: Store, one: Object) -> None:
    """The invoice will not be paid by it any more."""
    one["status"] = "canceled"
    one["status_transitions"]["canceled_at"] = store.now_s


def list_payments(call: Call) -> Object:
    """Payments by invoice, by intent, by status and time."""
    found = within(call, call.store.all("invoice_payment"))
    for name in ("invoice", "status"):
        if call.params.get(name):
            found = [one for one in found if one[name] == call.params[name]]
    asked = call.params.get("payment") or {}
    if asked.get("payment_intent"):
        intent = asked["payment_intent"]
        found = [one for one in found if one["payment"]["payment_intent"] == intent]
    return page(call, found, URL)


def _whole(store: Store, invoice: Object) -> Object:
    shown = [store.show(one) for one in of_invoice(store, invoice)]
    return whole_list(shown, f"{URL}?invoice={invoice['id']}")


INCLUDED["invoice", "payments"] = _whole

ROUTES = (
    listing(
        URL,
        list_payments,
        {
            "created": CREATED,
            "invoice": text,
            "payment": {"type": one_of("payment_intent"), "payment_intent": text},
            "status": one_of("open", "paid", "canceled"),
        },
    ),
    get(URL + "/{id}", retrieving("invoice_payment")),
)
