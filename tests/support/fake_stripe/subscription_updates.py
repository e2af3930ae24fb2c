"""Changes of what a subscription is for: prorated, billed, and perhaps only once that is paid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from . import discounts, invoice_items, invoices, lines, periods, proration, subscriptions
from .errors import invalid

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .store import Object, Store
    from .subscriptions import Wanted

Behavior = Literal["always_invoice", "create_prorations", "none"]
PENDING_EXPIRES = "subscription.pending_update_expires"
PENDING_S = 23 * 3600


@dataclass(frozen=True, slots=True)
class Change:
    """One item's change: `item` None adds one, `wanted` None takes it away."""

    item: Object | None
    wanted: Wanted | None

    @property
    def real(self) -> bool:
        """Whether it changes what is billed."""
        if self.item is None or self.wanted is None:
            return True
        return bool(
            self.item["price"] != self.wanted.price["id"]
            or self.item["quantity"] != self.wanted.quantity
        )


@dataclass(frozen=True, slots=True)
class Update:
    """Changes of items, how they are prorated, and from when on."""

    changes: Sequence[Change]
    behavior: Behavior = "create_prorations"
    at_s: int | None = None
    reset_anchor: bool = False
    wait_for_payment: bool = False


def apply(store: Store, subscription: Object, update: Update) -> None:
    """Makes the changes, or has them wait until what they cost is paid."""
    at_s = store.now_s if update.at_s is None else update.at_s
    start_s, end_s = subscriptions.period_of(subscription)
    if not start_s <= at_s < end_s:
        raise invalid("proration_date must be within the current period.", "proration_date")
    old_rhythm = subscriptions.rhythm(subscriptions.wanted_of(store, subscription))
    after = _wanted_after(store, subscription, update.changes)
    resets = update.reset_anchor or subscriptions.rhythm(after) != old_rhythm
    real = any(change.real for change in update.changes)
    if subscription["status"] == "trialing" or not (real or resets):
        change_items(store, subscription, update.changes)
        return
    if resets:
        _begin_anew(store, subscription, update, at_s)
    elif update.behavior == "none":
        change_items(store, subscription, update.changes)
    else:
        _prorate(store, subscription, update, at_s)


def _wanted_after(store: Store, subscription: Object, changes: Sequence[Change]) -> list[Wanted]:
    changed = {change.item["id"]: change.wanted for change in changes if change.item is not None}
    kept = [
        changed.get(item["id"], wanted)
        for item, wanted in zip(
            subscriptions.items_of(subscription),
            subscriptions.wanted_of(store, subscription),
            strict=True,
        )
    ]
    added = [change.wanted for change in changes if change.item is None]
    return [each for each in [*kept, *added] if each is not None]


def change_items(store: Store, subscription: Object, changes: Sequence[Change]) -> None:
    """Makes changes of items, and nothing else."""
    items = subscriptions.items_of(subscription)
    for change in changes:
        if change.item is None and change.wanted is not None:
            items.append(subscriptions.new_item(store, subscription, change.wanted))
        elif change.wanted is None:
            items[:] = [item for item in items if item["id"] != (change.item or {})["id"]]
        else:
            for item in items:
                if item["id"] == (change.item or {})["id"]:
                    item |= {
                        "plan": change.wanted.price["id"],
                        "price": change.wanted.price["id"],
                        "quantity": change.wanted.quantity,
                        "metadata": dict(change.wanted.metadata),
                    }


def _prorate(store: Store, subscription: Object, update: Update, at_s: int) -> None:
    """The period stays: unused time is credited, the rest of it is billed at the new price."""
    customer = store.get("customer", subscription["customer"])
    made: list[Object] = []
    for change in update.changes:
        if not change.real:
            continue
        if change.item is not None:
            made += credits_for(store, customer, subscription, change.item, at_s)
        if change.wanted is not None:
            made.append(_debit(store, customer, subscription, change, at_s))
    for item in made:
        store.emit("invoiceitem.created", item)
    if update.behavior == "create_prorations":
        change_items(store, subscription, update.changes)
        return
    invoice = draft_for(store, customer, subscription, at_s)
    invoice_items.put_on(store, invoice, made)
    _collect(store, subscription, invoice, update, resets=False)


def draft_for(store: Store, customer: Object, subscription: Object, at_s: int) -> Object:
    return invoices.draft(
        store,
        customer,
        [],
        reason="subscription_update",
        currency=subscription["currency"],
        period=(store.now_s, store.now_s),
        subscription=subscription,
        discount_ids=[d["id"] for d in discounts.running(store, subscription["discounts"])],
        automatic_tax=subscription["automatic_tax"]["enabled"],
        proration_date=at_s,
    )


def _begin_anew(store: Store, subscription: Object, update: Update, at_s: int) -> None:
    """A new period begins now, and is billed whole; what was left of the old one is credited."""
    customer = store.get("customer", subscription["customer"])
    made: list[Object] = []
    if update.behavior != "none":
        for item in subscriptions.items_of(subscription):
            made += credits_for(store, customer, subscription, item, at_s)
    for item in made:
        store.emit("invoiceitem.created", item)
    invoice = draft_for(store, customer, subscription, at_s)
    invoice_items.put_on(store, invoice, made)
    # The lines are those of the subscription as it will be.
    trial_run: Object = {**subscription, "items": {"data": _copies(subscription)}}
    change_items(store, trial_run, update.changes)
    interval, count = subscriptions.rhythm(subscriptions.wanted_of(store, trial_run))
    for item in subscriptions.items_of(trial_run):
        item["current_period_start"] = store.now_s
        item["current_period_end"] = periods.next_after(store.now_s, interval, count, store.now_s)
    whole = [lines.of_item(store, subscription, item) for item in subscriptions.items_of(trial_run)]
    invoices.add_lines(store, invoice, whole)
    _collect(store, subscription, invoice, update, resets=True)


def _copies(subscription: Object) -> list[Object]:
    return [dict(item) for item in subscriptions.items_of(subscription)]


def _collect(
    store: Store, subscription: Object, invoice: Object, update: Update, *, resets: bool
) -> None:
    """Bills a change now. The change is made before, or when the invoice is paid."""
    wait = update.wait_for_payment
    if wait:
        invoice["_for_update"] = True
        invoice["auto_advance"] = False
    else:
        with store.updating(subscription):
            _make(store, subscription, update.changes, resets=resets)
            subscription["latest_invoice"] = invoice["id"]
    invoices.announce(store, invoice)
    if wait:
        _set_pending(store, subscription, invoice, update, resets=resets)
    invoices.finalize(store, invoice)
    invoices.collect(store, invoice)
    if wait and subscription["_update"] is not None:
        with store.updating(subscription):
            subscription["latest_invoice"] = invoice["id"]
            subscription["pending_update"] = subscription["_pending"]
        store.due(subscription["_pending"]["expires_at"], PENDING_EXPIRES, subscription["id"])


def _make(store: Store, subscription: Object, changes: Sequence[Change], *, resets: bool) -> None:
    change_items(store, subscription, changes)
    if resets:
        interval, count = subscriptions.rhythm(subscriptions.wanted_of(store, subscription))
        subscription["billing_cycle_anchor"] = store.now_s
        end_s = periods.next_after(store.now_s, interval, count, store.now_s)
        subscriptions.set_period(store, subscription, store.now_s, end_s)


def _set_pending(
    store: Store, subscription: Object, invoice: Object, update: Update, *, resets: bool
) -> None:
    """Keeps what waits for the invoice: as plain values, which a saved state can hold."""
    expire_pending(store, subscription)
    _, end_s = subscriptions.period_of(subscription)
    preview: Object = {**subscription, "items": {"data": _copies(subscription)}}
    change_items(store, preview, update.changes)
    subscription["_update"] = {
        "invoice": invoice["id"],
        "items": subscriptions.items_of(preview),
        "resets": resets,
    }
    subscription["_pending"] = {
        "billing_cycle_anchor": store.now_s if resets else None,
        "expires_at": min(end_s, store.now_s + PENDING_S),
        "subscription_items": subscriptions.items_of(preview),
        "trial_end": None,
        "trial_from_plan": None,
    }


def _invoice_paid(store: Store, invoice: Object) -> None:
    """The change that waited for this invoice is made."""
    subscription = invoices.subscription_of(store, invoice)
    waiting = (subscription or {}).get("_update")
    if subscription is None or waiting is None or waiting["invoice"] != invoice["id"]:
        return
    was_pending = subscription["pending_update"] is not None
    with store.updating(subscription):
        subscription["items"]["data"] = waiting["items"]
        subscription |= {
            "_update": None,
            "latest_invoice": invoice["id"],
            "pending_update": None,
        }
        if waiting["resets"]:
            _make(store, subscription, (), resets=True)
    if was_pending:
        store.emit("customer.subscription.pending_update_applied", subscription)


def _invoice_closed(store: Store, invoice: Object) -> None:
    subscription = invoices.subscription_of(store, invoice)
    waiting = (subscription or {}).get("_update")
    if subscription is not None and waiting and waiting["invoice"] == invoice["id"]:
        _drop_pending(store, subscription)


def expire_pending(store: Store, subscription: Object) -> None:
    """A change that waits is given up, and its invoice with it."""
    waiting = subscription.get("_update")
    if waiting is None:
        return
    invoice = store.get("invoice", waiting["invoice"])
    _drop_pending(store, subscription)
    if invoice["status"] == "open":
        invoices.close(store, invoice, "void")


def _drop_pending(store: Store, subscription: Object) -> None:
    with store.updating(subscription):
        subscription["pending_update"] = None
        subscription["_update"] = None
    store.emit("customer.subscription.pending_update_expired", subscription)


def pending_expires(store: Store, subscription_id: str) -> None:
    """The time is over in which a change could be paid."""
    subscription = store.get("subscription", subscription_id)
    pending = subscription["pending_update"]
    if pending is not None and pending["expires_at"] <= store.now_s:
        expire_pending(store, subscription)


def credits_for(
    store: Store, customer: Object, subscription: Object, item: Object, at_s: int
) -> list[Object]:
    """Credits for the unused time of what was billed for an item in its current period.

    What was billed counts, after discounts, not what the price says now.
    """
    price = store.tables["price"][item["price"]]
    name = store.tables["product"][price["product"]]["name"]
    words = f"Unused time on {_counted(name, item['quantity'])} after {periods.day_of(at_s)}"
    made = []
    for amount, period, credited in _billed(store, subscription, item):
        unused = proration.part(amount, *period, at_s)
        made.append(
            invoice_items.make(
                store,
                customer,
                amount=-unused,
                currency=price["currency"],
                description=words,
                period=(at_s, period[1]),
                price=price,
                quantity=item["quantity"],
                metadata=subscription["metadata"],
                subscription=subscription["id"],
                subscription_item=item["id"],
                proration=True,
                credited=credited,
                discountable=False,
            )
        )
    return made


def _counted(name: str, quantity: int) -> str:
    return name if quantity == 1 else f"{quantity} {lines.TIMES} {name}"


def _billed(
    store: Store, subscription: Object, item: Object
) -> list[tuple[int, tuple[int, int], Object]]:
    """The last debit for an item's price in this period: net amount, its period, where it is."""
    end_s = item["current_period_end"]
    for pending in reversed(store.all("invoiceitem")):
        if pending["invoice"] is None and _is_debit(pending, subscription, item, end_s):
            where: Object = {"invoice_item": pending["id"], "type": "invoice_item"}
            where["invoice_line_item_details"] = None
            period = (pending["period"]["start"], pending["period"]["end"])
            return [(pending["amount"], period, where)]
    for invoice in reversed(invoices.of_subscription(store, subscription)):
        waits = invoice.get("_for_update") and invoice["status"] == "open"
        if invoice["status"] == "void" or waits:
            continue
        for line in invoice["lines"]["data"]:
            details = line["parent"][line["parent"]["type"]]
            if details.get("subscription_item") not in {None, item["id"]}:
                continue
            if not _fits(line, item, end_s):
                continue
            where = {
                "invoice_item": None,
                "invoice_line_item_details": {
                    "invoice": invoice["id"],
                    "invoice_line_items": [line["id"]],
                },
                "type": "invoice_line_items",
            }
            period = (line["period"]["start"], line["period"]["end"])
            return [(line["amount"] - discounts.off(line), period, where)]
    return []


def _is_debit(pending: Object, subscription: Object, item: Object, end_s: int) -> bool:
    details = (pending["parent"] or {}).get("subscription_details") or {}
    return bool(
        pending["proration"]
        and details.get("subscription") == subscription["id"]
        and details.get("subscription_item") == item["id"]
        and _fits(pending, item, end_s)
    )


def _fits(billed: Object, item: Object, end_s: int) -> bool:
    price = ((billed["pricing"] or {}).get("price_details") or {}).get("price")
    return bool(
        billed["amount"] > 0 and billed["period"]["end"] == end_s and price == item["price"]
    )


def _debit(
    store: Store, customer: Object, subscription: Object, change: Change, at_s: int
) -> Object:
    wanted = change.wanted
    if wanted is None:
        raise ValueError("only what is wanted is billed")
    start_s, end_s = subscriptions.period_of(subscription)
    price = wanted.price
    name = store.tables["product"][price["product"]]["name"]
    amount = price["unit_amount"] * wanted.quantity
    item_id = change.item["id"] if change.item is not None else None
    running = discounts.running(store, subscription["discounts"])
    by_percent = all(discounts.coupon_of(store, d)["_hundredths"] is not None for d in running)
    return invoice_items.make(
        store,
        customer,
        amount=proration.part(amount, start_s, end_s, at_s),
        currency=price["currency"],
        description=(
            f"Remaining time on {_counted(name, wanted.quantity)} after {periods.day_of(at_s)}"
        ),
        period=(at_s, end_s),
        price=price,
        quantity=wanted.quantity,
        metadata=subscription["metadata"],
        subscription=subscription["id"],
        subscription_item=item_id,
        proration=True,
        # A coupon by amount has served this period already.
        discountable=by_percent,
    )


invoices.AFTER_PAID.append(_invoice_paid)
invoices.AFTER_CLOSED.append(_invoice_closed)
