"""Products and their prices."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from .calls import delete, get, listing, page, post, retrieving, where, within
from .errors import invalid
from .forms import CREATED, boolean, integer, list_of, metadata, one_of, text
from .store import merge_metadata

if TYPE_CHECKING:
    from .calls import Call
    from .forms import Shape, Tree
    from .store import Object, Store

PRODUCTS = "/v1/products"
PRICES = "/v1/prices"
INTERVALS = ("day", "week", "month", "year")
# Stripe's own bound: no period is longer than three years.
INTERVAL_COUNT_MAX = {"day": 1095, "week": 156, "month": 36, "year": 3}


def create_product(call: Call) -> Object:
    """A product, with a first price if `default_price_data` has one."""
    store, params = call.store, call.params
    wanted = params.get("id")
    if wanted and wanted in store.tables.get("product", {}):
        raise invalid(f"Product already exists: {wanted}", "id", "resource_already_exists")
    made = store.add(
        "product",
        "prod",
        {
            "active": params.get("active", True),
            "default_price": None,
            "description": params.get("description"),
            "images": [],
            "marketing_features": params.get("marketing_features") or [],
            "metadata": merge_metadata({}, params.get("metadata")),
            "name": call.need("name"),
            "package_dimensions": None,
            "shippable": None,
            "statement_descriptor": params.get("statement_descriptor"),
            "tax_code": params.get("tax_code"),
            "type": "service",
            "unit_label": params.get("unit_label"),
            "updated": store.now_s,
            "url": params.get("url"),
        },
    )
    if wanted:
        products = store.tables["product"]
        del products[made["id"]]
        made["id"] = wanted
        products[wanted] = made
    first = params.get("default_price_data")
    price = None if first is None else add_price(store, made, first)
    made["default_price"] = None if price is None else price["id"]
    store.emit("product.created", made)
    if price is not None:
        store.emit("price.created", price)
    return made


def update_product(call: Call) -> Object:
    """Changes what is sent; metadata is merged."""
    store, params = call.store, call.params
    product = store.get("product", call.id)
    price_id = params.get("default_price")
    if price_id and store.get("price", price_id, "default_price")["product"] != call.id:
        raise invalid("The price belongs to another product.", "default_price")
    if "name" in params and not params["name"]:
        raise invalid("You passed an empty string for 'name'.", "name", "parameter_invalid_empty")
    with store.updating(product):
        product["updated"] = store.now_s
        for name in _PRODUCT.keys() & params.keys() - {"metadata", "marketing_features"}:
            product[name] = params[name]
        if "default_price" in params:
            product["default_price"] = price_id or None
        if "marketing_features" in params:
            product["marketing_features"] = params["marketing_features"] or []
        if "metadata" in params:
            product["metadata"] = merge_metadata(product["metadata"], params["metadata"])
    return product


def delete_product(call: Call) -> Object:
    """Deletes a product that has no price; one that has some can only be made inactive."""
    store = call.store
    product = store.get("product", call.id)
    if any(price["product"] == call.id for price in store.all("price")):
        raise invalid(
            "This product cannot be deleted because it has one or more user-created prices."
        )
    product["_deleted"] = True
    store.emit("product.deleted", product)
    return {"id": product["id"], "object": "product", "deleted": True}


def list_products(call: Call) -> Object:
    """Newest first, by ids, whether active, and time."""
    found = where(call, within(call, call.store.all("product")), "active", "url")
    ids = call.params.get("ids")
    return page(call, [p for p in found if ids is None or p["id"] in ids], PRODUCTS)


def create_price(call: Call) -> Object:
    """A price of a product that exists, or of a new one (`product_data`)."""
    store, params = call.store, call.params
    data = params.get("product_data")
    if (data is None) == (params.get("product") is None):
        raise invalid("Exactly one of product and product_data is required.", "product")
    if data is None:
        product = store.get("product", params["product"], "product")
    else:
        product = create_product(
            _with_params(call, {"name": data.get("name"), "metadata": data.get("metadata") or {}})
        )
    price = add_price(store, product, params)
    store.emit("price.created", price)
    return price


def _with_params(call: Call, params: Tree) -> Call:
    return type(call)(call.store, call.path, params, call.base_url)


def add_price(store: Store, product: Object, params: Tree) -> Object:
    """Keeps a new price, after looking whether it is a possible one."""
    currency = params.get("currency")
    amount = params.get("unit_amount")
    if currency is None or not re.fullmatch(r"[a-zA-Z]{3}", currency):
        raise invalid(f"Invalid currency: {currency}", "currency")
    if amount is None or amount < 0:
        raise invalid("Invalid integer: unit_amount must be zero or more", "unit_amount")
    key = params.get("lookup_key")
    if key is not None:
        _take_lookup_key(store, key, transfer=bool(params.get("transfer_lookup_key")))
    return store.add(
        "price",
        "price",
        {
            "active": params.get("active", True),
            "billing_scheme": "per_unit",
            "currency": currency.lower(),
            "custom_unit_amount": None,
            "lookup_key": key,
            "metadata": merge_metadata({}, params.get("metadata")),
            "nickname": params.get("nickname"),
            "product": product["id"],
            "recurring": _recurring(params.get("recurring")),
            "tax_behavior": params.get("tax_behavior") or "unspecified",
            "tiers_mode": None,
            "transform_quantity": None,
            "type": "one_time" if params.get("recurring") is None else "recurring",
            "unit_amount": amount,
            "unit_amount_decimal": str(amount),
        },
    )


def _recurring(params: Tree | None) -> Object | None:
    if params is None:
        return None
    interval = params.get("interval")
    if interval is None:
        raise invalid("Missing required param: recurring[interval].", "recurring[interval]")
    count = params.get("interval_count") or 1
    if not 1 <= count <= INTERVAL_COUNT_MAX[interval]:
        raise invalid("Invalid interval_count", "recurring[interval_count]")
    return {
        "interval": interval,
        "interval_count": count,
        "meter": None,
        "trial_period_days": None,
        "usage_type": "licensed",
    }


def _take_lookup_key(store: Store, key: str, *, transfer: bool) -> None:
    for price in store.all("price"):
        if price["lookup_key"] != key:
            continue
        if not transfer:
            raise invalid(
                f"A price (`{price['id']}`) already uses that lookup key.",
                "lookup_key",
            )
        with store.updating(price):
            price["lookup_key"] = None


def update_price(call: Call) -> Object:
    """Changes what is not the price itself: amount, currency and period never change."""
    store, params = call.store, call.params
    price = store.get("price", call.id)
    product = store.get("product", price["product"])
    if params.get("active") is False and product["default_price"] == call.id:
        raise invalid(
            "This price cannot be archived because it is the default price of its product."
        )
    key = params.get("lookup_key")
    if key is not None and key != price["lookup_key"]:
        _take_lookup_key(store, key, transfer=bool(params.get("transfer_lookup_key")))
    with store.updating(price):
        for name in ("active", "nickname", "lookup_key", "tax_behavior"):
            if name in params:
                price[name] = params[name]
        if "metadata" in params:
            price["metadata"] = merge_metadata(price["metadata"], params["metadata"])
    return price


def list_prices(call: Call) -> Object:
    """Newest first, by product, keys, kind and period."""
    params = call.params
    found = where(
        call, within(call, call.store.all("price")), "active", "currency", "product", "type"
    )
    keys = params.get("lookup_keys")
    if keys is not None:
        found = [price for price in found if price["lookup_key"] in keys]
    interval = (params.get("recurring") or {}).get("interval")
    if interval is not None:
        found = [p for p in found if (p["recurring"] or {}).get("interval") == interval]
    return page(call, found, PRICES)


_FEATURES = list_of({"name": text})
_RECURRING: Shape = {
    "interval": one_of(*INTERVALS),
    "interval_count": integer,
    "usage_type": one_of("licensed"),
}
_TAX_BEHAVIOR = one_of("exclusive", "inclusive", "unspecified")
_PRODUCT: Shape = {
    "active": boolean,
    "description": text,
    "marketing_features": _FEATURES,
    "metadata": metadata,
    "name": text,
    "statement_descriptor": text,
    "tax_code": text,
    "unit_label": text,
    "url": text,
}
_FIRST_PRICE: Shape = {
    "currency": text,
    "metadata": metadata,
    "recurring": {"interval": one_of(*INTERVALS), "interval_count": integer},
    "tax_behavior": _TAX_BEHAVIOR,
    "unit_amount": integer,
}
_PRICE: Shape = {
    "active": boolean,
    "lookup_key": text,
    "metadata": metadata,
    "nickname": text,
    "tax_behavior": _TAX_BEHAVIOR,
    "transfer_lookup_key": boolean,
}
ROUTES = (
    listing(
        PRODUCTS,
        list_products,
        {"active": boolean, "created": CREATED, "ids": list_of(text), "url": text},
    ),
    post(PRODUCTS, create_product, {**_PRODUCT, "id": text, "default_price_data": _FIRST_PRICE}),
    get(PRODUCTS + "/{id}", retrieving("product")),
    post(PRODUCTS + "/{id}", update_product, {**_PRODUCT, "default_price": text}),
    delete(PRODUCTS + "/{id}", delete_product),
    listing(
        PRICES,
        list_prices,
        {
            "active": boolean,
            "created": CREATED,
            "currency": text,
            "lookup_keys": list_of(text),
            "product": text,
            "recurring": {"interval": one_of(*INTERVALS)},
            "type": one_of("one_time", "recurring"),
        },
    ),
    post(
        PRICES,
        create_price,
        {
            **_PRICE,
            "currency": text,
            "product": text,
            "product_data": {"name": text, "metadata": metadata},
            "recurring": _RECURRING,
            "unit_amount": integer,
        },
    ),
    get(PRICES + "/{id}", retrieving("price")),
    post(PRICES + "/{id}", update_price, _PRICE),
)
