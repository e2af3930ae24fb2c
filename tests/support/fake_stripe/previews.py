"""Invoices that are only looked at: done for real on a copy of everything, which is thrown away."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING

from . import (
    lines,
    renewals,
    schedules,
    subscription_resources,
    subscription_updates,
    subscriptions,
)
from .calls import whole_list
from .clock import Clock
from .errors import invalid
from .store import Store

if TYPE_CHECKING:
    from .calls import Call
    from .store import Object


class Copy(Store):
    """A store to try things out in: nobody hears of its events, nothing falls due in it."""

    def due(self, at_s: int, what: str, object_id: str) -> None:
        """Nothing falls due in a copy."""

    def emit(self, event_type: str, obj: Object, previous: Object | None = None) -> Object:
        """Nobody hears of it."""
        del event_type, previous
        return obj


def copy_of(store: Store) -> Copy:
    """Everything but events, as it is now."""
    made = Copy(
        livemode=store.livemode,
        clock=store.clock,
        agenda=store.agenda,
        ids=store.ids,
        deliveries=store.deliveries,
        dunning=store.dunning,
    )
    made.tables = deepcopy({kind: rows for kind, rows in store.tables.items() if kind != "event"})
    made.proration_parent = store.proration_parent
    return made


def create(call: Call) -> Object:
    """The invoice that would come next for a subscription, perhaps after a change.

    With `proration_behavior=always_invoice` it is the one that the change makes at once, else that
    of the next renewal.
    """
    store = copy_of(call.store)
    subscription = store.get("subscription", call.need("subscription"), "subscription")
    if subscription["status"] in subscriptions.ENDED:
        raise invalid("No upcoming invoices for customer", code="invoice_upcoming_none")
    details = call.params.get("subscription_details") or {}
    if details.get("items"):
        before = subscription["latest_invoice"]
        update = subscription_resources.update_of(store, subscription, details)
        subscription_updates.apply(store, subscription, update)
        if subscription["latest_invoice"] != before:
            return _shown(store, store.get("invoice", subscription["latest_invoice"]))
    ends = details.get("cancel_at_period_end", subscription["cancel_at_period_end"])
    if ends:
        raise invalid("No upcoming invoices for customer", code="invoice_upcoming_none")
    _, end_s = subscriptions.period_of(subscription)
    store.clock = Clock(end_s)
    schedules.step(store, subscription)
    return _shown(store, renewals.renew(store, subscription))


def _shown(store: Store, invoice: Object) -> Object:
    made = f"upcoming_{invoice['id']}"
    due = invoice["amount_due"]
    if invoice["status"] == "draft":
        balance = store.get("customer", invoice["customer"])["balance"]
        due, _ = lines.balanced(invoice["total"], balance)
    for line in invoice["lines"]["data"]:
        line["invoice"] = made
    return store.show(invoice) | {
        "id": made,
        "amount_due": due,
        "amount_paid": 0,
        "amount_remaining": due,
        "billing_reason": "upcoming",
        "lines": whole_list(invoice["lines"]["data"], f"/v1/invoices/{made}/lines"),
        "number": None,
        "status": "draft",
    }
