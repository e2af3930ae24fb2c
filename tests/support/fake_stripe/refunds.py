"""Money that goes back to the payer, whole or in part, and the refunds that do not arrive."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import charges, payment_methods
from .calls import get, listing, page, post, retrieving, where, whole_list, within
from .clock import DAY_S
from .errors import invalid, missing
from .forms import CREATED, integer, metadata, one_of, text
from .store import INCLUDED, merge_metadata

if TYPE_CHECKING:
    from .calls import Call
    from .store import Object, Store

URL = "/v1/refunds"
ENDS = "refund.ends"
DEBIT_RETURNS_S = 5 * DAY_S
FAILS_S = DAY_S


def of_charge(store: Store, charge: Object) -> list[Object]:
    """A charge's refunds, oldest first."""
    return [refund for refund in store.all("refund") if refund["charge"] == charge["id"]]


def possible(charge: Object) -> bool:
    """Whether any of it can be: what is disputed is the bank's to decide, but for inquiries."""
    return charges.left_of(charge) > 0 and (
        not charge["disputed"] or bool(charge.get("_refundable"))
    )


def create(call: Call) -> Object:
    """Pays back an amount of a charge, else all that is left of it."""
    return pay_back(call.store, _charge_of(call), call.params)


def pay_back(store: Store, charge: Object, params: Object) -> Object:
    """Makes the refund of `params["amount"]`, else of all that is left.

    Raises: StripeError, when that can't be paid back.
    """
    left = charges.left_of(charge)
    amount = params.get("amount")
    _refuse(charge, left if amount is None else amount, left)
    refund = _make(store, charge, left if amount is None else amount, params)
    store.emit("refund.created", refund)
    _count(store, charge, refund["amount"])
    method = store.get("payment_method", charge["payment_method"])
    if payment_methods.is_debit(method):
        store.due(store.now_s + DEBIT_RETURNS_S, ENDS, refund["id"])
    elif payment_methods.behaviour_of(method) == "refund fails":
        store.due(store.now_s + FAILS_S, ENDS, refund["id"])
    return refund


def _charge_of(call: Call) -> Object:
    """The charge that a call names, itself or by its intent."""
    store, params = call.store, call.params
    if params.get("charge"):
        return store.get("charge", params["charge"], "charge")
    if not params.get("payment_intent"):
        raise missing("payment_intent")
    intent = store.get("payment_intent", params["payment_intent"], "payment_intent")
    if intent["latest_charge"] is None or intent["status"] != "succeeded":
        raise invalid(
            "This PaymentIntent does not have a successful charge to refund.",
            "payment_intent",
            "payment_intent_unexpected_state",
        )
    return store.get("charge", intent["latest_charge"])


def _refuse(charge: Object, amount: int, left: int) -> None:
    """Raises: StripeError, when the amount can't be paid back."""
    if charge["status"] != "succeeded":
        raise invalid("This charge did not succeed: there is nothing to refund.", "charge")
    if charge["disputed"] and not charge.get("_refundable"):
        raise invalid(
            f"Charge {charge['id']} has been charged back; cannot issue a refund.",
            code="charge_disputed",
        )
    if left == 0:
        raise invalid(
            f"Charge {charge['id']} has already been refunded.",
            code="charge_already_refunded",
        )
    if amount < 1:
        raise invalid("Invalid positive integer", "amount", "parameter_invalid_integer")
    if amount > left:
        raise invalid(
            f"Refund amount ({amount}) is greater than unrefunded amount on charge ({left})",
            "amount",
        )


def _make(store: Store, charge: Object, amount: int, params: Object) -> Object:
    debit = charge["payment_method_details"]["type"] != "card"
    refund = store.add(
        "refund",
        "re",
        {
            "amount": amount,
            "balance_transaction": None,
            "charge": charge["id"],
            "currency": charge["currency"],
            "customer": charge["customer"],
            "customer_account": None,
            "destination_details": _destination(debit=debit),
            "metadata": merge_metadata({}, params.get("metadata")),
            "payment_intent": charge["payment_intent"],
            "payment_method": charge["payment_method"],
            "reason": params.get("reason"),
            "receipt_number": None,
            "source_transfer_reversal": None,
            "status": "pending" if debit else "succeeded",
            "transfer_reversal": None,
        },
    )
    # Of all kinds of objects, refunds do not say which mode they are of.
    del refund["livemode"]
    return refund


def _destination(*, debit: bool) -> Object:
    if debit:
        return {"type": "us_bank_transfer", "us_bank_transfer": {"reference": None}}
    return {
        "type": "card",
        "card": {
            "reference": None,
            "reference_status": "pending",
            "reference_type": "acquirer_reference_number",
            "type": "refund",
        },
    }


def _count(store: Store, charge: Object, amount: int) -> None:
    """A charge says how much of it was paid back. What comes back again is told as an update."""
    event_type = "charge.refunded" if amount > 0 else "charge.updated"
    with store.updating(charge, event_type):
        charge["amount_refunded"] += amount
        charge["refunded"] = charge["amount_refunded"] == charge["amount"]


def end(store: Store, refund_id: str) -> None:
    """A refund arrives after days, or comes back."""
    refund = store.get("refund", refund_id)
    charge = store.get("charge", refund["charge"])
    if refund["status"] == "pending":
        with store.updating(refund):
            refund["status"] = "succeeded"
        return
    before = store.show(refund)
    refund |= {
        "failure_balance_transaction": None,
        "failure_reason": "lost_or_stolen_card",
        "status": "failed",
    }
    changed = {name: before.get(name) for name in ("failure_reason", "status")}
    store.emit("refund.failed", refund)
    store.emit("refund.updated", refund, changed)
    store.emit("charge.refund.updated", refund, changed)
    _count(store, charge, -refund["amount"])


def update(call: Call) -> Object:
    """Changes what is written on a refund; nothing else of it can be."""
    refund = call.store.get("refund", call.id)
    with call.store.updating(refund):
        if "metadata" in call.params:
            refund["metadata"] = merge_metadata(refund["metadata"], call.params["metadata"])
    return refund


def list_refunds(call: Call) -> Object:
    """Refunds by charge, intent and time."""
    found = within(call, call.store.all("refund"))
    return page(call, where(call, found, "charge", "payment_intent"), URL)


def _whole(store: Store, charge: Object) -> Object:
    shown = [store.show(refund) for refund in reversed(of_charge(store, charge))]
    return whole_list(shown, f"/v1/charges/{charge['id']}/refunds")


INCLUDED["charge", "refunds"] = _whole

DUE = {ENDS: end}
ROUTES = (
    listing(URL, list_refunds, {"charge": text, "created": CREATED, "payment_intent": text}),
    post(
        URL,
        create,
        {
            "amount": integer,
            "charge": text,
            "metadata": metadata,
            "payment_intent": text,
            "reason": one_of("duplicate", "fraudulent", "requested_by_customer"),
        },
    ),
    get(URL + "/{id}", retrieving("refund")),
    post(URL + "/{id}", update, {"metadata": metadata}),
)
