"""The lines of invoices, and what they add up to.

A line's `amount` is before discounts and tax; `discount_amounts` and `taxes` say those.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import discounts, proration
from .amounts import money
from .calls import whole_list

if TYPE_CHECKING:
    from .store import Object, Store

# Below this no card is charged: Stripe puts the rest on the customer's balance.
CHARGE_MIN = 50
TAX_RATE = "txr_1FakeTenPercent"
# Invoices show so many of their lines; the others are listed by /v1/invoices/{id}/lines.
SHOWN_MAX = 10
TIMES = "\N{MULTIPLICATION SIGN}"


def of_item(store: Store, subscription: Object, item: Object, *, trial: bool = False) -> Object:
    """The line for a subscription's item in its current period."""
    price = store.get("price", item["price"])
    name = store.tables["product"][price["product"]]["name"]
    amount = 0 if trial else price["unit_amount"] * item["quantity"]
    words = f"Trial period for {name}" if trial else _words(price, name, item["quantity"])
    return make(
        store,
        amount=amount,
        currency=price["currency"],
        description=words,
        price=price,
        quantity=item["quantity"],
        period=(item["current_period_start"], item["current_period_end"]),
        metadata=subscription["metadata"],
        parent=_of_subscription(subscription["id"], item["id"], None, None),
        subscription=subscription["id"],
    )


def of_invoice_item(store: Store, item: Object) -> Object:
    """The line for an invoice item: one made by hand, or by a proration."""
    details = (item["parent"] or {}).get("subscription_details") or {}
    price_id = ((item["pricing"] or {}).get("price_details") or {}).get("price")
    subscription, subscription_item = (
        details.get(name) for name in ("subscription", "subscription_item")
    )
    credited = item["proration_details"]["credited_items"] if item["proration"] else None
    # What is credited may wait for an invoice itself: then there is no line to be named.
    named = None if credited is None else credited["invoice_line_item_details"]
    shown = None if named is None else dict(named)
    if item["proration"] and store.proration_parent == "subscription_item_details":
        parent = _of_subscription(subscription, subscription_item, item["id"], shown)
    else:
        parent = {
            "invoice_item_details": {
                "invoice_item": item["id"],
                "proration": item["proration"],
                "proration_details": {"credited_items": shown},
                "subscription": subscription,
            },
            "subscription_item_details": None,
            "type": "invoice_item_details",
        }
    return make(
        store,
        amount=item["amount"],
        currency=item["currency"],
        description=item["description"],
        price=None if price_id is None else store.tables["price"][price_id],
        quantity=item["quantity"],
        period=(item["period"]["start"], item["period"]["end"]),
        metadata=item["metadata"],
        parent=parent,
        subscription=subscription,
        discountable=item["discountable"],
    )


def _of_subscription(
    subscription: str | None,
    item: str | None,
    invoice_item: str | None,
    credited: Object | None,
) -> Object:
    return {
        "invoice_item_details": None,
        "subscription_item_details": {
            "invoice_item": invoice_item,
            "proration": invoice_item is not None,
            "proration_details": {"credited_items": credited},
            "subscription": subscription,
            "subscription_item": item,
        },
        "type": "subscription_item_details",
    }


def make(
    store: Store,
    *,
    amount: int,
    currency: str,
    description: str | None,
    price: Object | None,
    quantity: int,
    period: tuple[int, int],
    metadata: dict[str, str],
    parent: Object,
    subscription: str | None = None,
    discountable: bool = True,
) -> Object:
    """A line that belongs to no invoice yet."""
    pricing = None
    if price is not None:
        pricing = {
            "price_details": {"price": price["id"], "product": price["product"]},
            "type": "price_details",
            "unit_amount_decimal": price["unit_amount_decimal"],
        }
    return {
        "id": store.make_id("il"),
        "object": "line_item",
        "amount": amount,
        "currency": currency,
        "description": description,
        "discount_amounts": [],
        "discountable": discountable,
        "discounts": [],
        "invoice": None,
        "livemode": store.livemode,
        "metadata": dict(metadata),
        "parent": parent,
        "period": {"end": period[1], "start": period[0]},
        "pretax_credit_amounts": [],
        "pricing": pricing,
        "quantity": quantity,
        "quantity_decimal": str(quantity),
        "subscription": subscription,
        "subtotal": amount,
        "taxes": [],
    }


def _words(price: Object, name: str, quantity: int) -> str:
    recurring = price["recurring"]
    count = recurring["interval_count"]
    every = recurring["interval"] if count == 1 else f"{count} {recurring['interval']}s"
    return (
        f"{quantity} {TIMES} {name} (at {money(price['unit_amount'], price['currency'])} / {every})"
    )


def total(store: Store, invoice: Object) -> None:
    """Writes an invoice's discounts, tax and sums from its lines. What was paid stays."""
    lines: list[Object] = invoice["lines"]["data"]
    taken = discounts.running(store, invoice["discounts"])
    discounts.take_off(store, lines, taken)
    for line in lines:
        line["taxes"] = []
        if invoice["automatic_tax"]["enabled"]:
            taxable = line["amount"] - discounts.off(line)
            line["taxes"] = [_tax(proration.percent(taxable, proration.TAX_HUNDREDTHS), taxable)]
    subtotal = sum(line["amount"] for line in lines)
    off = {each["id"]: 0 for each in taken}
    for line in lines:
        for each in line["discount_amounts"]:
            off[each["discount"]] += each["amount"]
    tax = sum(each["amount"] for line in lines for each in line["taxes"])
    untaxed = subtotal - sum(off.values())
    due = max(0, untaxed + tax)
    invoice |= {
        "subtotal": subtotal,
        "subtotal_excluding_tax": subtotal,
        "total": untaxed + tax,
        "total_discount_amounts": [{"amount": a, "discount": each} for each, a in off.items()],
        "total_excluding_tax": untaxed,
        "total_taxes": [_tax(tax, untaxed)] if invoice["automatic_tax"]["enabled"] else [],
        "amount_due": due,
        "amount_remaining": due - invoice["amount_paid"],
    }


def _tax(amount: int, taxable: int) -> Object:
    return {
        "amount": amount,
        "tax_behavior": "exclusive",
        "tax_rate_details": {"tax_rate": TAX_RATE},
        "taxability_reason": "standard_rated",
        "taxable_amount": taxable,
        "type": "tax_rate_details",
    }


def balanced(total_: int, balance: int) -> tuple[int, int]:
    """What is due of a total, and the customer's balance after it: below 0 it is a credit."""
    due = total_ + balance
    if due < CHARGE_MIN:
        return 0, due
    return due, 0


def shorten(store: Store, shown: Object) -> None:
    """Shows the first lines only, as Stripe does."""
    del store
    data = shown["lines"]["data"]
    url = f"/v1/invoices/{shown['id']}/lines"
    shown["lines"] = whole_list(data[:SHOWN_MAX], url) | {"has_more": len(data) > SHOWN_MAX}
