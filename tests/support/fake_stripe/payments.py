"""Payment intents: what is to be paid, the charges that try to, and who hears how it ended.

`pay` takes an amount at once. An invoice's intent is made when the invoice is finalised
(`prepare_for_invoice`) and tried as often as needed (`pay_invoice`). Both answer with a `Payment`;
what becomes of the invoice or session is for its own module to say. Only what ends later (a bank
debit that settles, an intent that is confirmed by hand) is told to it, through `AFTER`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from . import charges, invoice_payments, payment_methods
from .calls import get, listing, page, post, retrieving, where, within
from .clock import DAY_S
from .errors import StripeError, invalid
from .forms import CREATED, boolean, metadata, text
from .store import merge_metadata

if TYPE_CHECKING:
    from collections.abc import Callable

    from .calls import Call
    from .store import Object, Store

Outcome = Literal["succeeded", "failed", "processing"]

DEBIT_SETTLES_S = 4 * DAY_S
DEBIT_SETTLES = "payment_intent.settles"
URL = "/v1/payment_intents"

# Who is told how an intent ended for which nobody waits, by the kind of what it pays.
AFTER: dict[str, Callable[[Store, Object, Payment], None]] = {}


@dataclass(frozen=True, slots=True)
class Payment:
    """How a try to pay ended. No `charge`: there was nothing to pay with."""

    outcome: Outcome
    intent: Object
    charge: Object | None


def pay(
    store: Store,
    customer: Object | None,
    amount: int,
    currency: str,
    *,
    method: Object | None,
    present: bool = False,
    description: str | None = None,
    metadata: dict[str, str] | None = None,
    pays: Object | None = None,
) -> Payment:
    """Takes an amount, in minor units, by a payment method. `present`: the payer is there.

    `pays`: what it is for, a checkout session or an invoice, which hears of a debit that settles.
    """
    intent = prepare(
        store, customer, amount, currency, description=description, metadata=metadata, pays=pays
    )
    return attempt(store, intent, method, present=present)


def prepare(
    store: Store,
    customer: Object | None,
    amount: int,
    currency: str,
    *,
    description: str | None = None,
    metadata: dict[str, str] | None = None,
    pays: Object | None = None,
) -> Object:
    """An intent that nobody has tried to pay yet."""
    intent = store.add(
        "payment_intent",
        "pi",
        {
            "amount": amount,
            "amount_capturable": 0,
            "amount_received": 0,
            "application": None,
            "application_fee_amount": None,
            "automatic_payment_methods": None,
            "canceled_at": None,
            "cancellation_reason": None,
            "capture_method": "automatic",
            "client_secret": store.make_id("pi_secret"),
            "confirmation_method": "automatic",
            "currency": currency,
            "customer": customer["id"] if customer else None,
            "customer_account": None,
            "description": description,
            "last_payment_error": None,
            "latest_charge": None,
            "metadata": dict(metadata or {}),
            "next_action": None,
            "on_behalf_of": None,
            "payment_method": None,
            "payment_method_options": None,
            "payment_method_types": ["card", "us_bank_account"],
            "processing": None,
            "receipt_email": None,
            "review": None,
            "setup_future_usage": None,
            "shipping": None,
            "source": None,
            "statement_descriptor": None,
            "statement_descriptor_suffix": None,
            "status": "requires_payment_method",
            "transfer_data": None,
            "transfer_group": None,
            "_pays": pays["id"] if pays else None,
        },
    )
    store.emit("payment_intent.created", intent)
    return intent


def attempt(store: Store, intent: Object, method: Object | None, *, present: bool) -> Payment:
    """Tries to take an intent's amount by a payment method, which makes a charge."""
    if method is None:
        return Payment("failed", intent, None)
    charge = charges.make(store, intent, method)
    intent |= {"latest_charge": charge["id"], "payment_method": method["id"]}
    if payment_methods.is_debit(method):
        intent["status"] = "processing"
        store.emit("charge.pending", charge)
        store.emit("payment_intent.processing", intent)
        store.due(store.now_s + DEBIT_SETTLES_S, DEBIT_SETTLES, intent["id"])
        return Payment("processing", intent, charge)
    behaviour = payment_methods.behaviour_of(method)
    if behaviour == "fails" or (behaviour == "fails at renewal" and not present):
        return _fail(store, intent, charge, method)
    return _succeed(store, intent, charge)


def _succeed(store: Store, intent: Object, charge: Object) -> Payment:
    charges.succeed(store, charge)
    intent |= {
        "amount_received": intent["amount"],
        "last_payment_error": None,
        "status": "succeeded",
    }
    store.emit("payment_intent.succeeded", intent)
    invoice_payments.mark_paid(store, intent)
    return Payment("succeeded", intent, charge)


def _fail(store: Store, intent: Object, charge: Object, method: Object) -> Payment:
    charges.fail(store, charge)
    code = charge["failure_code"]
    intent |= {
        "last_payment_error": {
            "charge": charge["id"],
            "code": code,
            "decline_code": charge["outcome"]["reason"],
            "doc_url": f"https://docs.stripe.com/error-codes/{code.replace('_', '-')}",
            "message": charge["failure_message"],
            "payment_method": store.show(method),
            "type": "card_error",
        },
        "payment_method": None,
        "status": "requires_payment_method",
    }
    store.emit("payment_intent.payment_failed", intent)
    return Payment("failed", intent, charge)


def card_error(payment: Payment) -> StripeError:
    """What a call is answered that tried to pay, and could not."""
    if payment.charge is None:
        return invalid(
            "This customer has no attached payment source or default payment method."
            " Please consider adding a default payment method.",
            code="resource_missing",
        )
    return StripeError(
        402,
        payment.charge["failure_message"],
        kind="card_error",
        code=payment.charge["failure_code"],
        charge=payment.charge["id"],
        decline_code=payment.charge["outcome"]["reason"],
    )


def prepare_for_invoice(store: Store, invoice: Object, description: str | None = None) -> Object:
    """The intent that is to pay what is due of an invoice, made when it is finalised."""
    customer = store.find(invoice["customer"])
    intent = prepare(
        store,
        customer,
        invoice["amount_remaining"],
        invoice["currency"],
        description=description,
        pays=invoice,
    )
    invoice_payments.make(store, invoice, intent)
    return intent


def pay_invoice(
    store: Store, invoice: Object, *, method: Object | None = None, present: bool = False
) -> Payment:
    """Tries to pay an open invoice by its intent: with `method`, else with what is on file.

    On file is what the invoice names, else its subscription, else its customer.
    """
    open_payment = invoice_payments.open_of(store, invoice)
    if open_payment is None:
        intent = prepare_for_invoice(store, invoice)
    else:
        intent = store.get("payment_intent", open_payment["payment"]["payment_intent"])
    if intent["status"] == "processing":
        return Payment("processing", intent, store.get("charge", intent["latest_charge"]))
    if method is None:
        customer = store.find(invoice["customer"])
        details = (invoice["parent"] or {}).get("subscription_details") or {}
        subscription = store.find(details.get("subscription") or "")
        method = payment_methods.default_of(store, invoice, subscription, customer)
    return attempt(store, intent, method, present=present)


def cancel_for_invoice(store: Store, invoice: Object) -> None:
    """An invoice is not to be paid by its intent any more: it was voided, or paid otherwise."""
    open_payment = invoice_payments.open_of(store, invoice)
    if open_payment is None:
        return
    intent = store.get("payment_intent", open_payment["payment"]["payment_intent"])
    intent |= {
        "canceled_at": store.now_s,
        "cancellation_reason": "void_invoice",
        "status": "canceled",
    }
    store.emit("payment_intent.canceled", intent)
    invoice_payments.mark_canceled(store, open_payment)


def settle_debit(store: Store, intent_id: str) -> None:
    """A bank debit that was under way ends, and what it pays hears of it."""
    intent = store.get("payment_intent", intent_id)
    if intent["status"] != "processing":
        return
    charge = store.get("charge", intent["latest_charge"])
    method = store.get("payment_method", intent["payment_method"])
    if payment_methods.behaviour_of(method) == "async":
        payment = _succeed(store, intent, charge)
    else:
        payment = _fail(store, intent, charge, method)
    _tell(store, payment)


def _tell(store: Store, payment: Payment) -> None:
    paid_for = store.find(payment.intent["_pays"] or "")
    if paid_for is None:
        return
    AFTER[paid_for["object"]](store, paid_for, payment)
    # The session that sold a subscription waits for its first invoice.
    for session in store.all("checkout.session"):
        if session["invoice"] == paid_for["id"]:
            AFTER["checkout.session"](store, session, payment)


def list_intents(call: Call) -> Object:
    """Intents by customer and time."""
    return page(call, where(call, within(call, call.store.all("payment_intent")), "customer"), URL)


def update(call: Call) -> Object:
    """Changes what is written on an intent; its amount stays."""
    intent = call.store.get("payment_intent", call.id)
    if "metadata" in call.params:
        intent["metadata"] = merge_metadata(intent["metadata"], call.params["metadata"])
    if "description" in call.params:
        intent["description"] = call.params["description"]
    return intent


def confirm(call: Call) -> Object:
    """Tries to pay, as the payer who comes back to a failed payment does."""
    store, params = call.store, call.params
    intent = store.get("payment_intent", call.id)
    if intent["status"] not in {"requires_payment_method", "requires_confirmation"}:
        raise invalid(
            f"You cannot confirm this PaymentIntent because it has a status of {intent['status']}.",
            code="payment_intent_unexpected_state",
        )
    method = payment_methods.get(store, call.need("payment_method"))
    if intent["customer"] and method["customer"] is None:
        payment_methods.attach(store, method, store.get("customer", intent["customer"]))
    payment = attempt(store, intent, method, present=not params.get("off_session"))
    _tell(store, payment)
    if payment.outcome == "failed":
        raise card_error(payment)
    return intent


DUE = {DEBIT_SETTLES: settle_debit}
ROUTES = (
    listing(URL, list_intents, {"created": CREATED, "customer": text}),
    get(URL + "/{id}", retrieving("payment_intent")),
    post(URL + "/{id}", update, {"metadata": metadata, "description": text}),
    post(
        URL + "/{id}/confirm",
        confirm,
        {"payment_method": text, "off_session": boolean, "return_url": text},
    ),
)
