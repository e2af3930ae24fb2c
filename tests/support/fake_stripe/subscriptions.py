"""Subscriptions: how they start, what they bill, and how they end.

Their items live inside them. Invoices tell them of their fate through hooks (see `invoices`).

incomplete ──paid──► active ──failed──► past_due ──last try──► canceled | unpaid
     │                 ▲ │ ▲                │
  23 hours        trial │ └──────paid───────┘
     ▼            ends  ▼
incomplete_expired    trialing, paused
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from . import customers, discounts, invoice_items, invoices, lines, periods
from .calls import whole_list
from .clock import DAY_S, HOUR_S
from .errors import invalid
from .store import EMBEDDED, SHOWN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .store import Object, Store

URL = "/v1/subscriptions"
ENDED = ("canceled", "incomplete_expired")
INCOMPLETE_S = 23 * HOUR_S
TRIAL_TOLD_S = 3 * DAY_S

PERIOD_ENDS = "subscription.period_ends"
TRIAL_WILL_END = "subscription.trial_will_end"
CANCELS = "subscription.cancels"
EXPIRES = "subscription.expires"
RESUMES = "subscription.collection_resumes"

# What a new subscription has not.
UNSET = (
    "application",
    "application_fee_percent",
    "billing_cycle_anchor_config",
    "billing_thresholds",
    "cancel_at",
    "canceled_at",
    "customer_account",
    "days_until_due",
    "default_source",
    "ended_at",
    "latest_invoice",
    "next_pending_invoice_item_invoice",
    "on_behalf_of",
    "pause_collection",
    "pending_invoice_item_interval",
    "pending_setup_intent",
    "pending_update",
    "schedule",
    "test_clock",
    "transfer_data",
    "trial_end",
    "trial_start",
)


@dataclass(frozen=True, slots=True)
class Wanted:
    """One price that is subscribed to, and how often."""

    price: Object
    quantity: int = 1
    metadata: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Terms:
    """How a subscription starts. `pay`: its first invoice is tried at once; `present`: payer there.

    `extras`: prices for once that its first invoice holds too.
    """

    metadata: dict[str, str] = field(default_factory=dict)
    trial_end_s: int | None = None
    discounts: Sequence[dict[str, Any]] = ()
    automatic_tax: bool = False
    description: str | None = None
    default_payment_method: str | None = None
    save_default: str = "off"
    missing_at_trial_end: str = "create_invoice"
    cancel_at_period_end: bool = False
    extras: Sequence[Wanted] = ()
    pay: bool = True
    present: bool = True


def start(store: Store, customer: Object, wanted: Sequence[Wanted], terms: Terms) -> Object:
    """A new subscription with its first invoice, which is finalised and tried at once.

    Raises: StripeError, 400, for prices that do not go together.
    """
    interval, count = rhythm(wanted)
    subscription = _make(store, customer, wanted, terms)
    subscription["discounts"] = discounts.redeem(
        store, customer, terms.discounts, subscription=subscription["id"]
    )
    now_s = store.now_s
    trial_s = terms.trial_end_s
    end_s = trial_s or periods.next_after(now_s, interval, count, now_s)
    subscription["billing_cycle_anchor"] = trial_s or now_s
    subscription["items"] = whole_list(
        [_item(store, subscription, each, (now_s, end_s)) for each in wanted],
        f"/v1/subscription_items?subscription={subscription['id']}",
    )
    set_period(store, subscription, now_s, end_s)
    if terms.cancel_at_period_end:
        plan_cancellation(store, subscription, end_s)
        subscription["cancel_at_period_end"] = True
    if trial_s is not None:
        subscription |= {"status": "trialing", "trial_end": trial_s, "trial_start": now_s}
        if trial_s > now_s + TRIAL_TOLD_S:
            store.due(trial_s - TRIAL_TOLD_S, TRIAL_WILL_END, subscription["id"])
    else:
        store.due(now_s + INCOMPLETE_S, EXPIRES, subscription["id"])
    store.emit("customer.subscription.created", subscription)
    if trial_s is not None and trial_s <= now_s + TRIAL_TOLD_S:
        store.emit("customer.subscription.trial_will_end", subscription)
    invoice = bill(store, subscription, "subscription_create", extras=terms.extras)
    invoices.finalize(store, invoice)
    if terms.pay:
        invoices.collect(store, invoice, present=terms.present)
    return subscription


def _make(store: Store, customer: Object, wanted: Sequence[Wanted], terms: Terms) -> Object:
    nothing = dict.fromkeys(UNSET)
    return store.add(
        "subscription",
        "sub",
        nothing
        | {
            "automatic_tax": {
                "disabled_reason": None,
                "enabled": terms.automatic_tax,
                "liability": {"type": "self"} if terms.automatic_tax else None,
            },
            "billing_mode": {
                "flexible": {"proration_discounts": "included"},
                "type": "flexible",
                "updated_at": store.now_s,
            },
            "billing_schedules": [],
            "cancel_at_period_end": False,
            "cancellation_details": {
                "comment": None,
                "feedback": None,
                "reason": None,
            },
            "collection_method": "charge_automatically",
            "currency": wanted[0].price["currency"],
            "customer": customer["id"],
            "default_payment_method": terms.default_payment_method,
            "default_tax_rates": [],
            "description": terms.description,
            "discounts": [],
            "invoice_settings": {"account_tax_ids": None, "issuer": {"type": "self"}},
            "metadata": dict(terms.metadata),
            "payment_settings": {
                "payment_method_options": None,
                "payment_method_types": None,
                "save_default_payment_method": terms.save_default,
            },
            "start_date": store.now_s,
            "status": "incomplete",
            # A change that waits for its invoice, and how it is shown once it is known to wait.
            "_update": None,
            "_pending": None,
            "trial_settings": {
                "end_behavior": {"missing_payment_method": terms.missing_at_trial_end}
            },
        },
    )


def _item(store: Store, subscription: Object, wanted: Wanted, period: tuple[int, int]) -> Object:
    return {
        "id": store.make_id("si"),
        "object": "subscription_item",
        "billed_until": None,
        "billing_thresholds": None,
        "created": store.now_s,
        "current_period_end": period[1],
        "current_period_start": period[0],
        "discounts": [],
        "metadata": dict(wanted.metadata),
        "plan": wanted.price["id"],
        "price": wanted.price["id"],
        "quantity": wanted.quantity,
        "subscription": subscription["id"],
        "tax_rates": [],
    }


def new_item(store: Store, subscription: Object, wanted: Wanted) -> Object:
    """An item that joins a running subscription, in its period."""
    return _item(store, subscription, wanted, period_of(subscription))


def rhythm(wanted: Sequence[Wanted]) -> tuple[str, int]:
    """The interval and its count that all the prices have.

    Raises: StripeError, 400, when there is none, or not one for all.
    """
    if not wanted:
        raise invalid("A subscription needs at least one item.", "items", "parameter_missing")
    found = set()
    for each in wanted:
        if each.price["recurring"] is None:
            raise invalid(
                f"The price specified is set to `type=one_time` but this field only accepts prices"
                f" with `type=recurring`: {each.price['id']}",
                "items[0][price]",
            )
        recurring = each.price["recurring"]
        found.add((recurring["interval"], recurring["interval_count"], each.price["currency"]))
    if len(found) != 1:
        raise invalid("The fake bills all items of a subscription in one rhythm.", "items")
    interval, count, _ = found.pop()
    return str(interval), int(count)


def items_of(subscription: Object) -> list[Object]:
    """Its items."""
    found: list[Object] = subscription["items"]["data"]
    return found


def wanted_of(store: Store, subscription: Object) -> list[Wanted]:
    """What it is for now."""
    return [
        Wanted(store.tables["price"][item["price"]], item["quantity"], item["metadata"])
        for item in items_of(subscription)
    ]


def period_of(subscription: Object) -> tuple[int, int]:
    """Its current period: all items share one."""
    item = items_of(subscription)[0]
    return int(item["current_period_start"]), int(item["current_period_end"])


def set_period(store: Store, subscription: Object, start_s: int, end_s: int) -> None:
    """Gives all items this period, and puts its end down."""
    for item in items_of(subscription):
        item["current_period_start"] = start_s
        item["current_period_end"] = end_s
    if subscription["cancel_at_period_end"]:
        subscription["cancel_at"] = end_s
        store.due(end_s, CANCELS, subscription["id"])
    store.due(end_s, PERIOD_ENDS, subscription["id"])


def bill(
    store: Store,
    subscription: Object,
    reason: invoices.Reason,
    *,
    period: tuple[int, int] | None = None,
    extras: Sequence[Wanted] = (),
    first: Sequence[Object] = (),
) -> Object:
    """A draft of all items for their current period, with what is pending. Not announced when
    it is to be finalised at once.

    `period`: what the invoice names as its own, by default that of the items. `first`: lines
    that come before, such as credits.
    """
    customer = store.get("customer", subscription["customer"])
    trial = subscription["status"] == "trialing"
    made = list(first)
    made += [
        lines.of_item(store, subscription, item, trial=trial) for item in items_of(subscription)
    ]
    for each in extras:
        pending = invoice_items.add_for_price(store, customer, each, subscription)
        store.emit("invoiceitem.created", pending)
    invoice = invoices.draft(
        store,
        customer,
        made,
        reason=reason,
        currency=subscription["currency"],
        period=period or period_of(subscription),
        subscription=subscription,
        discount_ids=[d["id"] for d in discounts.running(store, subscription["discounts"])],
        automatic_tax=subscription["automatic_tax"]["enabled"],
        auto_advance=reason == "subscription_cycle",
    )
    if reason != "subscription_update" or extras:
        invoice_items.take_pending(store, customer, invoice, subscription)
    with store.updating(subscription):
        subscription["latest_invoice"] = invoice["id"]
    invoices.announce(store, invoice)
    return invoice


def set_status(store: Store, subscription: Object, status: str) -> None:
    """Changes its status, and tells of it."""
    with store.updating(subscription):
        subscription["status"] = status


def plan_cancellation(store: Store, subscription: Object, at_s: int) -> None:
    """It is to end at a time; until then it serves."""
    subscription["cancel_at"] = at_s
    subscription["canceled_at"] = store.now_s
    subscription["cancellation_details"]["reason"] = "cancellation_requested"
    store.due(at_s, CANCELS, subscription["id"])


def unplan_cancellation(subscription: Object) -> None:
    """It is to go on."""
    subscription |= {"cancel_at": None, "cancel_at_period_end": False, "canceled_at": None}
    subscription["cancellation_details"]["reason"] = None


def end(
    store: Store, subscription: Object, *, reason: str | None, status: str = "canceled"
) -> None:
    """Ends it now, for good. Its unpaid invoices are collected no more."""
    subscription |= {"status": status, "ended_at": store.now_s, "pending_update": None}
    if status == "canceled":
        subscription["canceled_at"] = subscription["canceled_at"] or store.now_s
        subscription["cancellation_details"]["reason"] = reason
    else:
        subscription["canceled_at"] = store.now_s
    for invoice in invoices.of_subscription(store, subscription):
        if invoice["status"] in {"draft", "open"} and invoice["auto_advance"]:
            invoices.stop_collecting(store, invoice)
    if subscription["schedule"] is not None:
        schedule = store.get("subscription_schedule", subscription["schedule"])
        schedule |= {"status": "canceled", "canceled_at": store.now_s, "current_phase": None}
        store.emit("subscription_schedule.canceled", schedule)
    kind = "deleted" if status == "canceled" else "updated"
    previous = None if kind == "deleted" else {"status": "incomplete"}
    store.emit(f"customer.subscription.{kind}", subscription, previous)
    store.told(subscription)


def _invoice_paid(store: Store, invoice: Object) -> None:
    subscription = invoices.subscription_of(store, invoice)
    if subscription is None or subscription["status"] in ENDED:
        return
    if subscription["status"] == "incomplete":
        _begin(store, invoice)
        return
    recover(store, subscription)


def _begin(store: Store, invoice: Object) -> None:
    """It serves when its first invoice is paid, or while a bank debit for it is under way."""
    subscription = invoices.subscription_of(store, invoice)
    if (
        subscription is not None
        and subscription["status"] == "incomplete"
        and subscription["latest_invoice"] == invoice["id"]
    ):
        set_status(store, subscription, "active")


def recover(store: Store, subscription: Object) -> None:
    """It is active again when none of its invoices is owed that was tried in vain."""
    if subscription["status"] not in {"past_due", "unpaid"}:
        return
    owed = [
        each
        for each in invoices.of_subscription(store, subscription)
        if each["status"] == "open" and each["attempted"] and not each.get("_for_update")
    ]
    if not owed:
        set_status(store, subscription, "active")


def _invoice_failed(store: Store, invoice: Object) -> None:
    subscription = invoices.subscription_of(store, invoice)
    if subscription is None or subscription["status"] in ENDED or invoice.get("_for_update"):
        return
    if subscription["status"] == "incomplete":
        return
    if subscription["status"] in {"active", "trialing"}:
        set_status(store, subscription, "past_due")
    last = invoice["next_payment_attempt"] is None and invoice["auto_advance"]
    if not last or subscription["status"] != "past_due":
        return
    invoices.stop_collecting(store, invoice)
    if store.dunning.then == "canceled":
        end(store, subscription, reason="payment_failed")
    elif store.dunning.then == "unpaid":
        set_status(store, subscription, "unpaid")


def _invoice_closed(store: Store, invoice: Object) -> None:
    subscription = invoices.subscription_of(store, invoice)
    if subscription is None:
        return
    if subscription["status"] == "incomplete" and invoice["status"] == "void":
        end(store, subscription, reason=None, status="incomplete_expired")
    recover(store, subscription)


def _customer_deleted(store: Store, customer: Object) -> None:
    for subscription in store.all("subscription"):
        if subscription["customer"] == customer["id"] and subscription["status"] not in ENDED:
            end(store, subscription, reason="cancellation_requested")


def _show_plans(store: Store, shown: Object) -> None:
    """Prices are shown once more as plans, which is what they were called before."""
    price = store.tables["price"][shown["price"]] if isinstance(shown["price"], str) else None
    if price is None or not isinstance(shown["plan"], str):
        return
    shown["plan"] = {
        "id": price["id"],
        "object": "plan",
        "active": price["active"],
        "amount": price["unit_amount"],
        "amount_decimal": price["unit_amount_decimal"],
        "billing_scheme": "per_unit",
        "created": price["created"],
        "currency": price["currency"],
        "interval": price["recurring"]["interval"],
        "interval_count": price["recurring"]["interval_count"],
        "livemode": price["livemode"],
        "metadata": dict(price["metadata"]),
        "meter": None,
        "nickname": price["nickname"],
        "product": price["product"],
        "tiers_mode": None,
        "transform_usage": None,
        "trial_period_days": None,
        "usage_type": "licensed",
    }


EMBEDDED["subscription_item"] = ("price",)
SHOWN["subscription_item"] = _show_plans
invoices.AFTER_PAID.append(_invoice_paid)
invoices.AFTER_FAILED.append(_invoice_failed)
invoices.AFTER_CLOSED.append(_invoice_closed)
invoices.AFTER_SUBMITTED.append(_begin)
customers.BEFORE_DELETION.append(_customer_deleted)
