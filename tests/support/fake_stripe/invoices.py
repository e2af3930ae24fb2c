"""The life of an invoice: draft, open, then paid, void or uncollectible.

What an invoice's fate means for its subscription is told through `AFTER_PAID`, `AFTER_FAILED`,
`AFTER_CLOSED` and, while a bank debit is under way, `AFTER_SUBMITTED`, so that subscriptions know
invoices and not the other way round.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from . import discounts, lines, payments
from .calls import whole_list
from .clock import DAY_S, HOUR_S
from .errors import invalid
from .store import SHOWN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .payments import Payment
    from .store import Object, Store

Reason = Literal["manual", "subscription_create", "subscription_cycle", "subscription_update"]

FINALIZES = "invoice.finalizes"
RETRIES = "invoice.retries"
FINALIZED_AFTER_S = HOUR_S

# What a new invoice has not.
UNSET = (
    "account_tax_ids",
    "application",
    "automatically_finalizes_at",
    "custom_fields",
    "customer_account",
    "customer_shipping",
    "default_payment_method",
    "default_source",
    "description",
    "due_date",
    "effective_at",
    "ending_balance",
    "footer",
    "from_invoice",
    "hosted_invoice_url",
    "invoice_pdf",
    "last_finalization_error",
    "latest_revision",
    "next_payment_attempt",
    "number",
    "on_behalf_of",
    "receipt_number",
    "rendering",
    "shipping_cost",
    "shipping_details",
    "statement_descriptor",
    "test_clock",
    "threshold_reason",
    "webhooks_delivered_at",
)
# What is nought in it at first.
NOUGHT = (
    "amount_due",
    "amount_overpaid",
    "amount_paid",
    "amount_remaining",
    "amount_shipping",
    "attempt_count",
    "post_payment_credit_notes_amount",
    "pre_payment_credit_notes_amount",
    "starting_balance",
)

AFTER_PAID: list[Callable[[Store, Object], None]] = []
AFTER_FAILED: list[Callable[[Store, Object], None]] = []
AFTER_CLOSED: list[Callable[[Store, Object], None]] = []
AFTER_SUBMITTED: list[Callable[[Store, Object], None]] = []

SHOWN["invoice"] = lines.shorten


def draft(
    store: Store,
    customer: Object,
    made_lines: list[Object],
    *,
    reason: Reason,
    currency: str,
    period: tuple[int, int],
    subscription: Object | None = None,
    discount_ids: Iterable[str] = (),
    automatic_tax: bool = False,
    auto_advance: bool = True,
    proration_date: int | None = None,
) -> Object:
    """A new invoice. Nobody is charged before it is finalised; nothing is emitted yet."""
    invoice = store.add(
        "invoice",
        "in",
        _blank(store, customer)
        | {
            "auto_advance": auto_advance,
            "automatic_tax": {
                "disabled_reason": None,
                "enabled": automatic_tax,
                "liability": {"type": "self"} if automatic_tax else None,
                "provider": "stripe" if automatic_tax else None,
                "status": "complete" if automatic_tax else None,
            },
            "billing_reason": reason,
            "currency": currency,
            "discounts": list(discount_ids),
            "parent": _parent(subscription, proration_date),
            "period_end": period[1],
            "period_start": period[0],
        },
    )
    invoice["lines"] = whole_list([], f"/v1/invoices/{invoice['id']}/lines")
    add_lines(store, invoice, made_lines)
    return invoice


def _parent(subscription: Object | None, proration_date: int | None) -> Object | None:
    if subscription is None:
        return None
    details = {"metadata": dict(subscription["metadata"]), "subscription": subscription["id"]}
    if proration_date is not None:
        details["subscription_proration_date"] = proration_date
    return {
        "quote_details": None,
        "subscription_details": details,
        "type": "subscription_details",
    }


def _blank(store: Store, customer: Object) -> Object:
    nothing = dict.fromkeys(UNSET)
    amounts = dict.fromkeys(NOUGHT, 0)
    return {
        **nothing,
        **amounts,
        "account_country": "US",
        "account_name": "Fake Stripe",
        "attempted": False,
        "collection_method": "charge_automatically",
        "customer": customer["id"],
        "customer_address": customer["address"],
        "customer_email": customer["email"],
        "customer_name": customer["name"],
        "customer_phone": customer["phone"],
        "customer_tax_exempt": customer["tax_exempt"],
        "customer_tax_ids": [],
        "default_tax_rates": [],
        "issuer": {"type": "self"},
        "metadata": {},
        "payment_settings": {
            "default_mandate": None,
            "payment_method_options": None,
            "payment_method_types": None,
        },
        "starting_balance": customer["balance"],
        "status": "draft",
        "status_transitions": {
            "finalized_at": None,
            "marked_uncollectible_at": None,
            "paid_at": None,
            "voided_at": None,
        },
        "total_pretax_credit_amounts": [],
    }


def add_lines(store: Store, invoice: Object, made: list[Object]) -> None:
    """Puts lines on a draft, and adds it up anew."""
    for line in made:
        line["invoice"] = invoice["id"]
    # A credit is written before what it makes room for, as Stripe shows them.
    invoice["lines"]["data"] += made
    lines.total(store, invoice)


def announce(store: Store, invoice: Object) -> None:
    """Tells of a new draft, and puts down when it finalises itself."""
    if invoice["auto_advance"]:
        at_s = store.now_s + FINALIZED_AFTER_S
        invoice["automatically_finalizes_at"] = at_s
        store.due(at_s, FINALIZES, invoice["id"])
    store.emit("invoice.created", invoice)


def finalize(store: Store, invoice: Object) -> None:
    """Closes a draft to changes: it is owed now. One of nothing is paid by that.

    Raises: StripeError, 400, for one that is no draft.
    """
    if invoice["status"] != "draft":
        raise invalid("This invoice is already finalized, you can't re-finalize a non-draft.")
    customer = store.get("customer", invoice["customer"])
    lines.total(store, invoice)
    balance = customer["balance"]
    due, left = lines.balanced(invoice["total"], balance)
    number = customer["next_invoice_sequence"]
    customer["next_invoice_sequence"] = number + 1
    with store.updating(customer):
        customer["balance"] = left
        customer["currency"] = invoice["currency"]
    invoice |= {
        "amount_due": due,
        "amount_remaining": due,
        "automatically_finalizes_at": None,
        "effective_at": store.now_s,
        "ending_balance": left,
        "hosted_invoice_url": f"https://invoice.stripe.com/i/{invoice['id']}",
        "invoice_pdf": f"https://pay.stripe.com/invoice/{invoice['id']}/pdf",
        "number": f"{customer['invoice_prefix']}-{number:04}",
        "starting_balance": balance,
        "status": "open",
    }
    invoice["status_transitions"]["finalized_at"] = store.now_s
    _use_up(store, invoice)
    store.emit("invoice.finalized", invoice)
    if due == 0:
        _paid(store, invoice, by_card=True)
    else:
        payments.prepare_for_invoice(store, invoice)


def _use_up(store: Store, invoice: Object) -> None:
    """A coupon for once serves the first invoice that it takes something off."""
    for each in invoice["total_discount_amounts"]:
        discount = store.get("discount", each["discount"])
        if discounts.coupon_of(store, discount)["duration"] == "once" and each["amount"]:
            discount["end"] = store.now_s
            _drop_discount(store, invoice, discount["id"])


def _drop_discount(store: Store, invoice: Object, discount_id: str) -> None:
    subscription = subscription_of(store, invoice)
    if subscription is not None and discount_id in subscription["discounts"]:
        with store.updating(subscription):
            subscription["discounts"].remove(discount_id)


def subscription_of(store: Store, invoice: Object) -> Object | None:
    """The subscription that an invoice is for, if any."""
    details = (invoice["parent"] or {}).get("subscription_details")
    return None if details is None else store.get("subscription", details["subscription"])


def collect(
    store: Store, invoice: Object, *, method: Object | None = None, present: bool = False
) -> Payment | None:
    """Tries to have an open invoice paid. None: nothing was left to pay."""
    if invoice["status"] not in {"open", "uncollectible"}:
        return None
    payment = payments.pay_invoice(store, invoice, method=method, present=present)
    invoice["attempted"] = True
    if payment.outcome == "succeeded":
        invoice["attempt_count"] += 1
        settle(store, invoice, payment)
    elif payment.outcome == "failed":
        fail(store, invoice)
    else:
        for after in AFTER_SUBMITTED:
            after(store, invoice)
    return payment


def settle(store: Store, invoice: Object, payment: Payment) -> None:
    """A payment has come in for it."""
    invoice["amount_paid"] += payment.intent["amount_received"]
    invoice["amount_remaining"] = invoice["amount_due"] - invoice["amount_paid"]
    _paid(store, invoice, by_card=True)


def pay_out_of_band(store: Store, invoice: Object) -> None:
    """The customer has paid otherwise, which only `invoice.paid` tells."""
    payments.cancel_for_invoice(store, invoice)
    invoice["amount_paid_off_stripe"] = invoice["amount_remaining"]
    invoice["amount_paid"] = invoice["amount_due"]
    invoice["amount_remaining"] = 0
    _paid(store, invoice, by_card=False)


def _paid(store: Store, invoice: Object, *, by_card: bool) -> None:
    invoice |= {
        "attempted": True,
        "auto_advance": False,
        "next_payment_attempt": None,
        "status": "paid",
    }
    invoice["status_transitions"]["paid_at"] = store.now_s
    store.emit("invoice.paid", invoice)
    if by_card:
        store.emit("invoice.payment_succeeded", invoice)
    for after in AFTER_PAID:
        after(store, invoice)


def fail(store: Store, invoice: Object) -> None:
    """A try to pay has failed: the next one is put down, or it was the last."""
    days = store.dunning.retry_days
    tries = invoice["attempt_count"]
    invoice["attempted"] = True
    invoice["attempt_count"] = tries + 1
    again = invoice["auto_advance"] and tries < len(days)
    at_s = store.now_s + days[tries] * DAY_S if again else None
    invoice["next_payment_attempt"] = at_s
    if at_s is not None:
        store.due(at_s, RETRIES, invoice["id"])
    store.emit("invoice.payment_failed", invoice)
    for after in AFTER_FAILED:
        after(store, invoice)


def close(store: Store, invoice: Object, status: Literal["void", "uncollectible"]) -> None:
    """Gives an invoice up: void, as if it had never been, or uncollectible, a bad debt.

    Raises: StripeError, 400, for one that is not owed.
    """
    if invoice["status"] not in {"open", "uncollectible"} or invoice["status"] == status:
        raise invalid(f"You can only pass in open invoices. This invoice is {invoice['status']}.")
    name = "voided" if status == "void" else "marked_uncollectible"
    invoice |= {"auto_advance": False, "next_payment_attempt": None, "status": status}
    invoice["status_transitions"][f"{name}_at"] = store.now_s
    if status == "void":
        payments.cancel_for_invoice(store, invoice)
    store.emit(f"invoice.{name}", invoice)
    for after in AFTER_CLOSED:
        after(store, invoice)


def of_subscription(store: Store, subscription: Object) -> list[Object]:
    """A subscription's invoices, oldest first."""
    return [
        each
        for each in store.all("invoice")
        if ((each["parent"] or {}).get("subscription_details") or {}).get("subscription")
        == subscription["id"]
    ]


def stop_collecting(store: Store, invoice: Object) -> None:
    """Nobody tries to have it paid any more, nor is a draft finalised by itself."""
    with store.updating(invoice):
        invoice["auto_advance"] = False
        invoice["next_payment_attempt"] = None
        invoice["automatically_finalizes_at"] = None


def _debit_ended(store: Store, invoice: Object, payment: Payment) -> None:
    if invoice["status"] not in {"open", "uncollectible"}:
        return
    if payment.outcome == "succeeded":
        invoice["attempt_count"] += 1
        settle(store, invoice, payment)
    else:
        fail(store, invoice)


payments.AFTER["invoice"] = _debit_ended
