"""What coupons take off: the discounts of a subscription or an invoice, and their amounts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import proration
from .errors import invalid
from .forms import list_of, text
from .periods import boundary

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .forms import Tree
    from .store import Object, Store

# How a discount is asked for, wherever it can be.
DISCOUNTS = list_of({"coupon": text, "promotion_code": text, "discount": text})


def valid(store: Store, coupon: Object) -> bool:
    """Whether a coupon can still be redeemed."""
    left = coupon["max_redemptions"] is None or (
        coupon["times_redeemed"] < coupon["max_redemptions"]
    )
    return left and (coupon["redeem_by"] is None or store.now_s < coupon["redeem_by"])


def redeem(
    store: Store,
    customer: Object,
    asked: Iterable[Tree] | None,
    *,
    subscription: str | None = None,
    invoice: str | None = None,
    checkout_session: str | None = None,
) -> list[str]:
    """Redeems coupons or promotion codes. Answers with the ids of the discounts.

    Raises: StripeError, 400, for one that is not there, used up, or not for this customer.
    """
    made = []
    for each in asked or ():
        if each.get("discount"):
            made.append(str(store.get("discount", each["discount"], "discounts")["id"]))
            continue
        coupon, code = _chosen(store, customer, each)
        coupon["times_redeemed"] += 1
        if code is not None:
            code["times_redeemed"] += 1
        discount = store.keep(
            {
                "id": store.make_id("di"),
                "object": "discount",
                "checkout_session": checkout_session,
                "customer": customer["id"],
                "customer_account": None,
                "end": _end(store, coupon),
                "invoice": invoice,
                "invoice_item": None,
                "promotion_code": None if code is None else code["id"],
                "source": {"coupon": coupon["id"], "type": "coupon"},
                "start": store.now_s,
                "subscription": subscription,
                "subscription_item": None,
            }
        )
        made.append(str(discount["id"]))
    return made


def _chosen(store: Store, customer: Object, asked: Tree) -> tuple[Object, Object | None]:
    code = None
    if asked.get("promotion_code"):
        code = store.get("promotion_code", asked["promotion_code"], "discounts")
        refuse_code(store, customer, code)
        coupon = store.get("coupon", code["promotion"]["coupon"], "discounts")
    else:
        coupon = store.get("coupon", asked.get("coupon") or "", "discounts")
    if not valid(store, coupon):
        raise invalid(f"Coupon {coupon['id']} is used up or past.", "discounts", "coupon_expired")
    return coupon, code


def refuse_code(store: Store, customer: Object | None, code: Object) -> None:
    """Looks whether a promotion code may be used by this customer now.

    Raises: StripeError, 400, if not.
    """
    used = code["max_redemptions"] is not None and (
        code["times_redeemed"] >= code["max_redemptions"]
    )
    past = code["expires_at"] is not None and store.now_s >= code["expires_at"]
    if used or past or not code["active"]:
        raise invalid("This promotion code cannot be redeemed.", "promotion_code")
    if code["customer"] is not None and (customer is None or customer["id"] != code["customer"]):
        raise invalid("This promotion code is for another customer.", "promotion_code")


def _end(store: Store, coupon: Object) -> int | None:
    if coupon["duration"] != "repeating":
        return None
    return boundary(store.now_s, "month", coupon["duration_in_months"], 1)


def coupon_of(store: Store, discount: Object) -> Object:
    """The coupon behind a discount; it works on when it was deleted."""
    return store.tables["coupon"][discount["source"]["coupon"]]


def running(store: Store, ids: Iterable[str]) -> list[Object]:
    """Those of the discounts that have not ended."""
    found = [store.get("discount", each) for each in ids]
    return [each for each in found if each["end"] is None or store.now_s < each["end"]]


def take_off(store: Store, lines: list[Object], discounts: list[Object]) -> None:
    """Writes each discount's part of each line; a later discount sees what earlier ones left."""
    for line in lines:
        line["discount_amounts"] = []
    for discount in discounts:
        coupon = coupon_of(store, discount)
        amounts = [_open_amount(store, line, coupon) for line in lines]
        parts = proration.shares(_total(coupon, sum(amounts)), amounts)
        for line, amount in zip(lines, parts, strict=True):
            if line["discountable"] and line["amount"] > 0:
                line["discount_amounts"].append({"amount": amount, "discount": discount["id"]})


def _total(coupon: Object, amount: int) -> int:
    if coupon["_hundredths"] is not None:
        return proration.percent(amount, coupon["_hundredths"])
    return min(amount, int(coupon["amount_off"]))


def _open_amount(store: Store, line: Object, coupon: Object) -> int:
    """What of a line this coupon can still take off."""
    products = coupon["_products"]
    product = ((line["pricing"] or {}).get("price_details") or {}).get("product")
    if not line["discountable"] or line["amount"] <= 0 or (products and product not in products):
        return 0
    return max(0, int(line["amount"]) - off(line))


def off(line: Object) -> int:
    """What all discounts take off a line."""
    return sum(int(each["amount"]) for each in line["discount_amounts"])
