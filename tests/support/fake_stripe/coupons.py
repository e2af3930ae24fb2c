"""Coupons, and the promotion codes by which customers redeem them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from . import discounts
from .calls import delete, get, listing, page, post, retrieving, where, within
from .errors import invalid
from .forms import CREATED, boolean, integer, list_of, metadata, one_of, text
from .proration import WHOLE
from .store import INCLUDED, SHOWN, merge_metadata

if TYPE_CHECKING:
    from typing import Any

    from .calls import Call
    from .store import Object, Store

COUPONS = "/v1/coupons"
CODES = "/v1/promotion_codes"
CODE_CHARACTERS = 8


def percentage(value: Any, name: str) -> int:
    """A percentage with at most two decimals, read as hundredths."""
    match = re.fullmatch(r"(\d{1,3})(?:\.(\d{1,2})0*)?", value if isinstance(value, str) else "")
    if match is None:
        raise invalid(f"Invalid decimal: {value}", name)
    hundredths = int(match[1]) * 100 + int((match[2] or "").ljust(2, "0"))
    if not 0 < hundredths <= WHOLE:
        raise invalid("percent_off must be greater than 0 and at most 100", name)
    return hundredths


def create(call: Call) -> Object:
    """A coupon, by percent or by an amount."""
    store, params = call.store, call.params
    hundredths, amount = params.get("percent_off"), params.get("amount_off")
    if (hundredths is None) == (amount is None):
        raise invalid("You must pass one of percent_off and amount_off.", "percent_off")
    if amount is not None and not params.get("currency"):
        raise invalid("You must pass currency with amount_off.", "currency")
    duration = params.get("duration") or "once"
    if (duration == "repeating") != (params.get("duration_in_months") is not None):
        raise invalid("duration_in_months goes with duration repeating.", "duration_in_months")
    wanted = params.get("id") or store.make_id("cpn").removeprefix("cpn_")[:8]
    if wanted in store.tables.get("coupon", {}):
        raise invalid(f"Coupon already exists: {wanted}", "id", "resource_already_exists")
    coupon = store.keep(
        {
            "id": wanted,
            "object": "coupon",
            "amount_off": amount,
            "created": store.now_s,
            "currency": (params.get("currency") or "").lower() or None,
            "duration": duration,
            "duration_in_months": params.get("duration_in_months"),
            "livemode": store.livemode,
            "max_redemptions": params.get("max_redemptions"),
            "metadata": merge_metadata({}, params.get("metadata")),
            "name": params.get("name"),
            "percent_off": None if hundredths is None else hundredths / 100,
            "redeem_by": params.get("redeem_by"),
            "times_redeemed": 0,
            "valid": True,
            "_hundredths": hundredths,
            "_products": (params.get("applies_to") or {}).get("products") or [],
        }
    )
    store.emit("coupon.created", coupon)
    return coupon


def update(call: Call) -> Object:
    """Changes name and metadata; what it takes off never changes."""
    coupon = call.store.get("coupon", call.id)
    with call.store.updating(coupon):
        if "name" in call.params:
            coupon["name"] = call.params["name"]
        if "metadata" in call.params:
            coupon["metadata"] = merge_metadata(coupon["metadata"], call.params["metadata"])
    return coupon


def remove(call: Call) -> Object:
    """Nobody redeems it any more; discounts that were given stay."""
    coupon = call.store.get("coupon", call.id)
    coupon["_deleted"] = True
    call.store.emit("coupon.deleted", coupon)
    return {"id": coupon["id"], "object": "coupon", "deleted": True}


def list_all(call: Call) -> Object:
    """Newest first, by time."""
    return page(call, within(call, call.store.all("coupon")), COUPONS)


def create_code(call: Call) -> Object:
    """A code that customers type in."""
    store, params = call.store, call.params
    promotion = call.need("promotion")
    coupon = store.get("coupon", promotion.get("coupon") or "", "promotion[coupon]")
    word = params.get("code") or store.make_id("c").removeprefix("c_")[:CODE_CHARACTERS].upper()
    for other in store.all("promotion_code"):
        if other["active"] and other["code"].upper() == word.upper():
            raise invalid(f"An active promotion code with `code: {word}` already exists.", "code")
    if params.get("customer"):
        store.get("customer", params["customer"], "customer")
    code = store.add(
        "promotion_code",
        "promo",
        {
            "active": params.get("active", True),
            "code": word,
            "customer": params.get("customer"),
            "customer_account": None,
            "expires_at": params.get("expires_at"),
            "max_redemptions": params.get("max_redemptions"),
            "metadata": merge_metadata({}, params.get("metadata")),
            "promotion": {"coupon": coupon["id"], "type": "coupon"},
            "restrictions": {
                "first_time_transaction": False,
                "minimum_amount": None,
                "minimum_amount_currency": None,
            },
            "times_redeemed": 0,
        },
    )
    store.emit("promotion_code.created", code)
    return code


def update_code(call: Call) -> Object:
    """Lets it be used or not, and changes metadata."""
    code = call.store.get("promotion_code", call.id)
    with call.store.updating(code):
        if "active" in call.params:
            code["active"] = call.params["active"]
        if "metadata" in call.params:
            code["metadata"] = merge_metadata(code["metadata"], call.params["metadata"])
    return code


def list_codes(call: Call) -> Object:
    """Newest first, by code, coupon, customer and whether active."""
    found = within(call, call.store.all("promotion_code"))
    found = where(call, found, "active", "code", "customer")
    coupon = call.params.get("coupon")
    return page(call, [c for c in found if coupon in {None, c["promotion"]["coupon"]}], CODES)


def _work_out(store: Store, shown: Object) -> None:
    shown["valid"] = discounts.valid(store, shown)


SHOWN["coupon"] = _work_out
INCLUDED["coupon", "applies_to"] = lambda _, coupon: {"products": coupon["_products"]}

ROUTES = (
    listing(COUPONS, list_all, {"created": CREATED}),
    post(
        COUPONS,
        create,
        {
            "amount_off": integer,
            "applies_to": {"products": list_of(text)},
            "currency": text,
            "duration": one_of("forever", "once", "repeating"),
            "duration_in_months": integer,
            "id": text,
            "max_redemptions": integer,
            "metadata": metadata,
            "name": text,
            "percent_off": percentage,
            "redeem_by": integer,
        },
    ),
    get(COUPONS + "/{id}", retrieving("coupon")),
    post(COUPONS + "/{id}", update, {"name": text, "metadata": metadata}),
    delete(COUPONS + "/{id}", remove),
    listing(
        CODES,
        list_codes,
        {"active": boolean, "code": text, "coupon": text, "created": CREATED, "customer": text},
    ),
    post(
        CODES,
        create_code,
        {
            "active": boolean,
            "code": text,
            "customer": text,
            "expires_at": integer,
            "max_redemptions": integer,
            "metadata": metadata,
            "promotion": {"type": one_of("coupon"), "coupon": text},
        },
    ),
    get(CODES + "/{id}", retrieving("promotion_code")),
    post(CODES + "/{id}", update_code, {"active": boolean, "metadata": metadata}),
)
