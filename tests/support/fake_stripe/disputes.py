"""Payers who go to their bank: the money is withdrawn at once, and comes back if we win.

An inquiry is the bank's question before a dispute: it withdraws nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

from . import charges
from .calls import get, listing, page, post, retrieving, where, within
from .clock import DAY_S
from .errors import invalid
from .forms import CREATED, boolean, metadata, text
from .store import merge_metadata

if TYPE_CHECKING:
    from .calls import Call
    from .store import Object, Store

Ending = Literal["won", "lost", "warning_closed"]
ENDINGS: tuple[Ending, ...] = get_args(Ending)

URL = "/v1/disputes"
DUE_AFTER_S = 10 * DAY_S
FEE = 1500
OPEN = {"needs_response", "under_review", "warning_needs_response", "warning_under_review"}
# Stripe's test mode takes these as the evidence that decides.
DECIDING_EVIDENCE: dict[str, Ending] = {"winning_evidence": "won", "losing_evidence": "lost"}
EVIDENCE = (
    "access_activity_log",
    "billing_address",
    "cancellation_policy",
    "cancellation_policy_disclosure",
    "cancellation_rebuttal",
    "customer_communication",
    "customer_email_address",
    "customer_name",
    "customer_purchase_ip",
    "customer_signature",
    "duplicate_charge_documentation",
    "duplicate_charge_explanation",
    "duplicate_charge_id",
    "product_description",
    "receipt",
    "refund_policy",
    "refund_policy_disclosure",
    "refund_refusal_explanation",
    "service_date",
    "service_documentation",
    "shipping_address",
    "shipping_carrier",
    "shipping_date",
    "shipping_documentation",
    "shipping_tracking_number",
    "uncategorized_file",
    "uncategorized_text",
)


def last_of(store: Store, charge: Object) -> Object | None:
    """A charge's dispute, the last if there were several."""
    found = [dispute for dispute in store.all("dispute") if dispute["charge"] == charge["id"]]
    return found[-1] if found else None


def endings_of(dispute: Object) -> tuple[Ending, ...]:
    """How it can still end: not at all when it has."""
    if dispute["status"] not in OPEN:
        return ()
    return ("warning_closed",) if dispute["status"].startswith("warning") else ("won", "lost")


def open_dispute(
    store: Store, charge_id: str, amount: int | None = None, *, inquiry: bool = False
) -> Object:
    """What happens when a payer disputes an amount of a charge, else all that is left of it.

    Raises: StripeError, when the charge has not that much, or is disputed already.
    """
    charge = store.get("charge", charge_id)
    left = charges.left_of(charge)
    taken = left if amount is None else amount
    if charge["disputed"] or not 0 < taken <= left:
        raise invalid(f"This charge can't be disputed for {taken}.", "charge")
    dispute = _make(store, charge, taken, inquiry=inquiry)
    charge["_refundable"] = inquiry
    with store.updating(charge):
        charge["disputed"] = True
    store.emit("charge.dispute.created", dispute)
    if not inquiry:
        _move_money(store, dispute, -taken, "charge.dispute.funds_withdrawn")
    return dispute


def _make(store: Store, charge: Object, amount: int, *, inquiry: bool) -> Object:
    return store.add(
        "dispute",
        "du",
        {
            "amount": amount,
            "balance_transactions": [],
            "charge": charge["id"],
            "currency": charge["currency"],
            "enhanced_eligibility_types": [],
            "evidence": {**dict.fromkeys(EVIDENCE), "enhanced_evidence": {}},
            "evidence_details": {
                "due_by": store.now_s + DUE_AFTER_S,
                "enhanced_eligibility": {},
                "has_evidence": False,
                "past_due": False,
                "submission_count": 0,
                "submission_method": "not_submitted",
            },
            "is_charge_refundable": inquiry,
            "metadata": {},
            "payment_intent": charge["payment_intent"],
            "payment_method_details": {
                "card": {
                    "brand": "visa",
                    "case_type": "inquiry" if inquiry else "chargeback",
                    "network": "visa",
                    "network_reason_code": "10.4",
                },
                "type": "card",
            },
            "reason": "fraudulent",
            "status": "warning_needs_response" if inquiry else "needs_response",
        },
    )


def _move_money(store: Store, dispute: Object, amount: int, event_type: str) -> None:
    """The account pays an amount, with the fee, or gets it back, without."""
    fee = FEE if amount < 0 else 0
    about = "Chargeback withdrawal" if amount < 0 else "Chargeback reversal"
    dispute["balance_transactions"].append(
        {
            "id": store.make_id("txn"),
            "object": "balance_transaction",
            "amount": amount,
            "available_on": store.now_s,
            "balance_type": "payments",
            "created": store.now_s,
            "currency": dispute["currency"],
            "description": f"{about} for {dispute['charge']}",
            "exchange_rate": None,
            "fee": fee,
            "fee_details": [],
            "net": amount - fee,
            "reporting_category": "dispute" if amount < 0 else "dispute_reversal",
            "source": dispute["id"],
            "status": "available",
            "type": "adjustment",
        }
    )
    store.emit(event_type, dispute)


def end_dispute(store: Store, dispute_id: str, ending: Ending) -> Object:
    """What happens when the bank decides.

    Raises: StripeError, when it has, or when it was asked the other kind of question.
    """
    dispute = store.get("dispute", dispute_id)
    if ending not in endings_of(dispute):
        raise invalid(f"A dispute that is {dispute['status']} can't end as {ending}.", "status")
    dispute["status"] = ending
    dispute["is_charge_refundable"] = ending == "warning_closed"
    store.emit("charge.dispute.closed", dispute)
    if ending == "won":
        _move_money(store, dispute, dispute["amount"], "charge.dispute.funds_reinstated")
    return dispute


def update(call: Call) -> Object:
    """Adds evidence, and with `submit` (as by default) sends it to the bank."""
    store, params = call.store, call.params
    dispute = store.get("dispute", call.id)
    if dispute["status"] not in OPEN:
        raise invalid("This dispute is already closed.", code="dispute_already_closed")
    evidence = params.get("evidence") or {}
    submits = bool(evidence) and params.get("submit") is not False
    with store.updating(dispute, "charge.dispute.updated"):
        if "metadata" in params:
            dispute["metadata"] = merge_metadata(dispute["metadata"], params["metadata"])
        dispute["evidence"] |= evidence
        dispute["evidence_details"]["has_evidence"] = any(
            dispute["evidence"][name] for name in EVIDENCE
        )
        if submits:
            dispute["evidence_details"]["submission_count"] += 1
            dispute["evidence_details"]["submission_method"] = "manual"
            inquiry = dispute["status"].startswith("warning")
            dispute["status"] = "warning_under_review" if inquiry else "under_review"
    decides = DECIDING_EVIDENCE.get(str(evidence.get("uncategorized_text")))
    if submits and decides is not None:
        end_dispute(store, dispute["id"], decides)
    return dispute


def close(call: Call) -> Object:
    """Gives up: the dispute is lost. It can't be undone."""
    dispute = call.store.get("dispute", call.id)
    inquiry = dispute["status"].startswith("warning")
    return end_dispute(call.store, call.id, "warning_closed" if inquiry else "lost")


def list_disputes(call: Call) -> Object:
    """Disputes by charge, intent and time."""
    found = within(call, call.store.all("dispute"))
    return page(call, where(call, found, "charge", "payment_intent"), URL)


ROUTES = (
    listing(URL, list_disputes, {"charge": text, "created": CREATED, "payment_intent": text}),
    get(URL + "/{id}", retrieving("dispute")),
    post(
        URL + "/{id}",
        update,
        {"evidence": dict.fromkeys(EVIDENCE, text), "metadata": metadata, "submit": boolean},
    ),
    post(URL + "/{id}/close", close),
)
