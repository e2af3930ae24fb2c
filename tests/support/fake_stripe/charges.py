"""Charges: the single tries to take money, which succeed, fail, or are under way for a while."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import payment_methods
from .calls import get, listing, page, post, retrieving, where, within
from .forms import CREATED, metadata, text
from .store import merge_metadata

if TYPE_CHECKING:
    from .calls import Call
    from .store import Object, Store

URL = "/v1/charges"
DECLINED = "Your card was declined."
RETURNED = "The customer's bank account has insufficient funds."
SHOWN_OF_ACCOUNT = ("account_holder_type", "account_type", "bank_name", "fingerprint", "last4")
SHOWN_OF_CARD = (
    "brand",
    "checks",
    "country",
    "exp_month",
    "exp_year",
    "fingerprint",
    "funding",
    "last4",
)


def make(store: Store, intent: Object, method: Object) -> Object:
    """A charge of which it is not known yet how it ends."""
    return store.add(
        "charge",
        "ch",
        {
            "amount": intent["amount"],
            "amount_captured": 0,
            "amount_refunded": 0,
            "application": None,
            "application_fee": None,
            "application_fee_amount": None,
            "balance_transaction": None,
            "billing_details": dict(method["billing_details"]),
            "calculated_statement_descriptor": "FAKE STRIPE",
            "captured": True,
            "currency": intent["currency"],
            "customer": intent["customer"],
            "description": intent["description"],
            "disputed": False,
            "failure_balance_transaction": None,
            "failure_code": None,
            "failure_message": None,
            "fraud_details": {},
            "metadata": dict(intent["metadata"]),
            "on_behalf_of": None,
            "outcome": None,
            "paid": False,
            "payment_intent": intent["id"],
            "payment_method": method["id"],
            "payment_method_details": {
                "type": method["type"],
                method["type"]: _shown(method),
            },
            "receipt_email": None,
            "receipt_number": None,
            "receipt_url": None,
            "refunded": False,
            "review": None,
            "shipping": None,
            "source": None,
            "source_transfer": None,
            "statement_descriptor": None,
            "statement_descriptor_suffix": None,
            "status": "pending",
            "transfer_data": None,
            "transfer_group": None,
        },
    )


def _shown(method: Object) -> Object:
    details = method[method["type"]]
    if payment_methods.is_debit(method):
        return {name: details[name] for name in SHOWN_OF_ACCOUNT}
    return {
        **{name: details[name] for name in SHOWN_OF_CARD},
        "network": details["brand"],
        "three_d_secure": None,
        "wallet": None,
    }


def left_of(charge: Object) -> int:
    """How much of its money was not paid back yet."""
    return int(charge["amount_captured"] - charge["amount_refunded"])


def succeed(store: Store, charge: Object) -> None:
    """The money is taken."""
    charge |= {
        "amount_captured": charge["amount"],
        "outcome": _outcome("authorized", "approved_by_network", None, "Payment complete."),
        "paid": True,
        "status": "succeeded",
    }
    store.emit("charge.succeeded", charge)


def fail(store: Store, charge: Object) -> None:
    """The bank says no: a card is declined, a debit returned."""
    debit = charge["payment_method_details"]["type"] != "card"
    told = "The bank did not return any further details with this decline."
    reason = "insufficient_funds" if debit else "generic_decline"
    charge |= {
        "failure_code": "payment_method_provider_decline" if debit else "card_declined",
        "failure_message": RETURNED if debit else DECLINED,
        "outcome": _outcome("issuer_declined", "declined_by_network", reason, told),
        "status": "failed",
    }
    store.emit("charge.failed", charge)


def _outcome(kind: str, network_status: str, reason: str | None, told: str) -> Object:
    return {
        "advice_code": None,
        "network_advice_code": None,
        "network_decline_code": None,
        "network_status": network_status,
        "reason": reason,
        "risk_level": "normal",
        "risk_score": 13,
        "seller_message": told,
        "type": kind,
    }


def list_charges(call: Call) -> Object:
    """Charges by customer, intent and time."""
    found = where(call, within(call, call.store.all("charge")), "customer", "payment_intent")
    return page(call, found, URL)


def update(call: Call) -> Object:
    """Changes what is written on a charge; its money stays."""
    charge = call.store.get("charge", call.id)
    with call.store.updating(charge):
        if "metadata" in call.params:
            charge["metadata"] = merge_metadata(charge["metadata"], call.params["metadata"])
        if "description" in call.params:
            charge["description"] = call.params["description"]
    return charge


ROUTES = (
    listing(URL, list_charges, {"created": CREATED, "customer": text, "payment_intent": text}),
    get(URL + "/{id}", retrieving("charge")),
    post(URL + "/{id}", update, {"metadata": metadata, "description": text}),
)
