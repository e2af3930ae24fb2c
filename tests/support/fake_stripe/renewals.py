"""What falls due by itself: renewals, trials' ends, invoices that finalise and are tried again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import invoices, payment_methods, periods, schedules, subscription_updates, subscriptions

if TYPE_CHECKING:
    from collections.abc import Callable

    from .store import Object, Store


def period_ends(store: Store, subscription_id: str) -> None:
    """A period is over: the subscription ends, pauses, or begins its next one."""
    subscription = store.get("subscription", subscription_id)
    _, end_s = subscriptions.period_of(subscription)
    if subscription["status"] not in {"active", "past_due", "trialing", "unpaid"}:
        return
    if end_s > store.now_s or _cancel_if_due(store, subscription):
        return
    subscription_updates.expire_pending(store, subscription)
    schedules.step(store, subscription)
    if subscription["status"] in subscriptions.ENDED:
        return
    if subscription["status"] == "trialing" and not _trial_can_end(store, subscription):
        return
    renew(store, subscription)


def renew(store: Store, subscription: Object) -> Object:
    """Begins the next period, with a draft of its invoice, which finalises an hour later."""
    start_s, end_s = subscriptions.period_of(subscription)
    interval, count = subscriptions.rhythm(subscriptions.wanted_of(store, subscription))
    anchor_s = subscription["billing_cycle_anchor"]
    with store.updating(subscription):
        if subscription["status"] == "trialing":
            subscription["status"] = "active"
        next_s = periods.next_after(anchor_s, interval, count, end_s)
        subscriptions.set_period(store, subscription, end_s, next_s)
    # The invoice names the period that is over; its lines name the one that begins.
    invoice = subscriptions.bill(store, subscription, "subscription_cycle", period=(start_s, end_s))
    paused = subscription["pause_collection"]
    held = paused is not None and paused["behavior"] == "keep_as_draft"
    if held or subscription["status"] == "unpaid":
        invoices.stop_collecting(store, invoice)
    return invoice


def _trial_can_end(store: Store, subscription: Object) -> bool:
    """Without a card, the trial's end may be the subscription's, or its pause."""
    customer = store.get("customer", subscription["customer"])
    action = subscription["trial_settings"]["end_behavior"]["missing_payment_method"]
    method = payment_methods.default_of(store, subscription, customer)
    if method is not None or action == "create_invoice":
        return True
    if action == "cancel":
        subscriptions.end(store, subscription, reason=None)
        return False
    with store.updating(subscription):
        subscription["status"] = "paused"
    store.emit("customer.subscription.paused", subscription)
    return False


def _cancel_if_due(store: Store, subscription: Object) -> bool:
    at_s = subscription["cancel_at"]
    if at_s is None or at_s > store.now_s or subscription["status"] in subscriptions.ENDED:
        return False
    subscriptions.end(store, subscription, reason="cancellation_requested")
    return True


def cancels(store: Store, subscription_id: str) -> None:
    """The time has come for which an end was planned."""
    _cancel_if_due(store, store.get("subscription", subscription_id))


def trial_will_end(store: Store, subscription_id: str) -> None:
    """Told three days before."""
    subscription = store.get("subscription", subscription_id)
    if subscription["status"] != "trialing" or subscription["trial_end"] is None:
        return
    if subscription["trial_end"] <= store.now_s + subscriptions.TRIAL_TOLD_S:
        store.emit("customer.subscription.trial_will_end", subscription)


def expires(store: Store, subscription_id: str) -> None:
    """Its first invoice was not paid in time."""
    subscription = store.get("subscription", subscription_id)
    if subscription["status"] != "incomplete":
        return
    invoice = store.get("invoice", subscription["latest_invoice"])
    if invoice["status"] == "open":
        # Its subscription hears of that, and ends.
        invoices.close(store, invoice, "void")


def collection_resumes(store: Store, subscription_id: str) -> None:
    """A pause of collection is over."""
    subscription = store.get("subscription", subscription_id)
    paused = subscription["pause_collection"]
    if paused is not None and (paused["resumes_at"] or store.now_s + 1) <= store.now_s:
        with store.updating(subscription):
            subscription["pause_collection"] = None


def finalizes(store: Store, invoice_id: str) -> None:
    """A draft's hour is over: it is finalised and tried, unless its collection is paused."""
    invoice = store.tables["invoice"][invoice_id]
    if invoice.get("_deleted") or invoice["status"] != "draft" or not invoice["auto_advance"]:
        return
    if (invoice["automatically_finalizes_at"] or store.now_s + 1) > store.now_s:
        return
    subscription = invoices.subscription_of(store, invoice)
    invoices.finalize(store, invoice)
    behavior = ((subscription or {}).get("pause_collection") or {}).get("behavior")
    if invoice["status"] != "open":
        return
    if behavior == "void":
        invoices.close(store, invoice, "void")
    elif behavior == "mark_uncollectible":
        invoices.close(store, invoice, "uncollectible")
    else:
        invoices.collect(store, invoice)


def retries(store: Store, invoice_id: str) -> None:
    """A failed invoice is tried again."""
    invoice = store.get("invoice", invoice_id)
    if invoice["status"] != "open" or invoice["next_payment_attempt"] is None:
        return
    if invoice["next_payment_attempt"] <= store.now_s:
        invoices.collect(store, invoice)


DUE: dict[str, Callable[[Store, str], None]] = {
    subscriptions.PERIOD_ENDS: period_ends,
    subscriptions.TRIAL_WILL_END: trial_will_end,
    subscriptions.CANCELS: cancels,
    subscriptions.EXPIRES: expires,
    subscriptions.RESUMES: collection_resumes,
    subscription_updates.PENDING_EXPIRES: subscription_updates.pending_expires,
    invoices.FINALIZES: finalizes,
    invoices.RETRIES: retries,
}
ROUTES = ()
