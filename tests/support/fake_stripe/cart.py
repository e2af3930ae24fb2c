"""What a checkout session sells: its lines, and what they come to with discounts and tax."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import catalog, discounts, proration
from .errors import invalid
from .store import EMBEDDED

if TYPE_CHECKING:
    from .calls import Call
    from .forms import Tree
    from .store import Object, Store

EMBEDDED["item"] = ("price",)


def lines(call: Call, mode: str) -> list[Object]:
    """The lines that a call asks for, not yet priced.

    Raises: StripeError, for what can't be sold in this mode, or together.
    """
    asked = call.params.get("line_items") or []
    if mode == "setup":
        if asked:
            raise invalid("You can not pass `line_items` in `setup` mode.", "line_items")
        return []
    if not asked:
        raise invalid(
            f"You must provide `line_items` in `{mode}` mode.", "line_items", "parameter_missing"
        )
    sold = [(_price(call, each, place), _quantity(each, place)) for place, each in enumerate(asked)]
    _refuse_mix([price for price, _ in sold], mode)
    return [_line(call.store, price, quantity) for price, quantity in sold]


def _price(call: Call, asked: Tree, place: int) -> Object:
    store, at = call.store, f"line_items[{place}]"
    if (asked.get("price") is None) == (asked.get("price_data") is None):
        raise invalid("Exactly one of price and price_data is required.", at)
    if asked.get("price") is None:
        return _inline_price(call, asked["price_data"], at)
    price = store.get("price", asked["price"], f"{at}[price]")
    product = store.get("product", price["product"], f"{at}[price]")
    if not (price["active"] and product["active"]):
        what = "price" if not price["active"] else "product of the price"
        raise invalid(f"The {what} specified is inactive: '{price['id']}'.", f"{at}[price]")
    return price


def _inline_price(call: Call, data: Tree, at: str) -> Object:
    """A price for this sale alone: it is never active, nor is a product made with it."""
    store = call.store
    if (data.get("product") is None) == (data.get("product_data") is None):
        raise invalid("Exactly one of product and product_data is required.", f"{at}[price_data]")
    if data.get("product") is not None:
        product = store.get("product", data["product"], f"{at}[price_data][product]")
    else:
        asked = {**data["product_data"], "active": False}
        product = catalog.create_product(type(call)(store, {}, asked, call.base_url))
    price = catalog.add_price(store, product, {**data, "active": False})
    store.emit("price.created", price)
    return price


def _quantity(asked: Tree, place: int) -> int:
    quantity = asked.get("quantity")
    if quantity is None or quantity < 1:
        at = f"line_items[{place}][quantity]"
        raise invalid("Quantity must be at least 1.", at, "parameter_missing")
    return int(quantity)


def _refuse_mix(prices: list[Object], mode: str) -> None:
    recurring = [price for price in prices if price["type"] == "recurring"]
    if mode == "payment" and recurring:
        raise invalid(
            "You specified `payment` mode but passed a recurring price. Either switch to"
            " `subscription` mode or use only one-time prices.",
            "mode",
        )
    if mode == "subscription" and not recurring:
        raise invalid(
            "You must provide at least one recurring price in `subscription` mode when using"
            " prices.",
            "mode",
        )
    if len({price["currency"] for price in prices}) > 1:
        raise invalid("All prices of a session must be in the same currency.", "line_items")


def _line(store: Store, price: Object, quantity: int) -> Object:
    product = store.tables["product"][price["product"]]
    return {
        "id": store.make_id("li"),
        "object": "item",
        "adjustable_quantity": None,
        "amount_discount": 0,
        "amount_subtotal": 0,
        "amount_tax": 0,
        "amount_total": 0,
        "currency": price["currency"],
        "description": product["name"],
        "metadata": {},
        "price": price["id"],
        "quantity": quantity,
    }


def price(store: Store, session: Object) -> None:
    """Writes what a session's lines come to, each and together. A trial costs nothing yet."""
    if session["mode"] == "setup":
        return
    has_trial = bool(session["_data"].get("trial_period_days") or session["_data"].get("trial_end"))
    sold: list[Object] = session["_lines"]
    weighed = [_weighed(store, line, has_trial=has_trial) for line in sold]
    discounts.take_off(store, weighed, [_taken(store, one) for one in session["discounts"] or []])
    for line, amounts in zip(sold, weighed, strict=True):
        off = discounts.off(amounts)
        left = amounts["amount"] - off
        taxed = session["automatic_tax"]["enabled"]
        tax = proration.percent(left, proration.TAX_HUNDREDTHS) if taxed else 0
        line |= {
            "amount_discount": off,
            "amount_subtotal": amounts["amount"],
            "amount_tax": tax,
            "amount_total": left + tax,
        }
    session |= {
        "amount_subtotal": sum(line["amount_subtotal"] for line in sold),
        "amount_total": sum(line["amount_total"] for line in sold),
        "currency": sold[0]["currency"],
        "total_details": {
            "amount_discount": sum(line["amount_discount"] for line in sold),
            "amount_shipping": 0,
            "amount_tax": sum(line["amount_tax"] for line in sold),
        },
    }


def _weighed(store: Store, line: Object, *, has_trial: bool) -> Object:
    """A line as discounts look at one."""
    cost = store.tables["price"][line["price"]]
    free = has_trial and cost["type"] == "recurring"
    return {
        "amount": 0 if free else cost["unit_amount"] * line["quantity"],
        "discount_amounts": [],
        "discountable": True,
        "pricing": {"price_details": {"price": cost["id"], "product": cost["product"]}},
    }


def _taken(store: Store, named: Object) -> Object:
    """What a session's discount will be, once it is redeemed."""
    return {"id": "", "source": {"coupon": coupon_id(store, named), "type": "coupon"}}


def coupon_id(store: Store, named: Object) -> str:
    """The coupon that a session's discount names, itself or by a promotion code."""
    if named["promotion_code"] is None:
        return str(named["coupon"])
    code = store.get("promotion_code", named["promotion_code"], "discounts")
    return str(code["promotion"]["coupon"])


def named_discounts(store: Store, customer: Object | None, asked: list[Tree]) -> list[Object]:
    """The discounts that a call asks for.

    Raises: StripeError, for one that is not there, used up, or for somebody else.
    """
    if len(asked) > 1:
        raise invalid("A session can have one discount.", "discounts")
    found = []
    for each in asked:
        named = {"coupon": each.get("coupon"), "promotion_code": each.get("promotion_code")}
        if (named["coupon"] is None) == (named["promotion_code"] is None):
            raise invalid("Exactly one of coupon and promotion_code is required.", "discounts")
        if named["promotion_code"] is not None:
            code = store.get("promotion_code", named["promotion_code"], "discounts")
            discounts.refuse_code(store, customer, code)
        coupon = store.get("coupon", coupon_id(store, named), "discounts")
        if not discounts.valid(store, coupon):
            raise invalid(f"Coupon expired: {coupon['id']}", "discounts", "coupon_expired")
        found.append(named)
    return found
