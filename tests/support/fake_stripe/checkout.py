"""Checkout sessions as the API makes, shows, lists and expires them. `payer` completes them."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from . import cart
from .calls import get, listing, page, post, retrieving, where, whole_list, within
from .clock import DAY_S, MINUTE_S
from .errors import invalid, missing
from .forms import CREATED, boolean, integer, list_of, metadata, one_of, text
from .store import INCLUDED, merge_metadata

if TYPE_CHECKING:
    from .calls import Call
    from .forms import Shape
    from .store import Object, Store

URL = "/v1/checkout/sessions"
EXPIRES = "checkout.session.expires"
EXPIRES_S_MAX = DAY_S
EXPIRES_S_MIN = 30 * MINUTE_S
METHOD_TYPES = ("card", "us_bank_account")
# Which parameters belong to one mode only: Stripe refuses them in the others.
MODE_OF = {
    "customer_creation": "payment",
    "invoice_creation": "payment",
    "payment_intent_data": "payment",
    "setup_intent_data": "setup",
    "subscription_data": "subscription",
}


def create(call: Call) -> Object:
    """A session that is open for a day, at a page of the fake's own."""
    store, params = call.store, call.params
    mode = call.need("mode")
    customer = None
    if params.get("customer"):
        customer = store.get("customer", params["customer"], "customer")
    _refuse(call, mode)
    _refuse_without_address(call, customer)
    expires_s = _expires_s(call)
    chosen = cart.named_discounts(store, customer, params.get("discounts") or [])
    lines = cart.lines(call, mode)
    session = store.add(
        "checkout.session",
        "cs_live" if store.livemode else "cs_test",
        {
            **_fields(call, mode, customer),
            "discounts": chosen or None,
            "expires_at": expires_s,
            "_data": next(
                (params[name] or {} for name in MODE_OF if "_data" in name and name in params), {}
            ),
            "_customer_update": params.get("customer_update") or {},
            "_lines": lines,
            "_intent": None,
            "_waits": False,
        },
    )
    session["url"] = f"{call.base_url}/checkout/{session['id']}"
    cart.price(store, session)
    store.due(expires_s, EXPIRES, session["id"])
    return session


def _refuse(call: Call, mode: str) -> None:
    """Raises: StripeError, for parameters that do not go together."""
    params = call.params
    for name, only in MODE_OF.items():
        if params.get(name) is not None and mode != only:
            raise invalid(f"You can not pass `{name}` in `{mode}` mode.", name)
    for one, other in (("customer", "customer_email"), ("allow_promotion_codes", "discounts")):
        if params.get(one) and params.get(other):
            raise invalid(f"You may only specify one of these parameters: {one}, {other}.", one)
    if params.get("customer_update") and not params.get("customer"):
        raise invalid("`customer_update` can only be used with `customer`.", "customer_update")
    for name in ("success_url", "cancel_url"):
        url = params.get(name)
        if url is None and name == "success_url":
            raise missing(name)
        if url is not None and urlsplit(url).scheme not in {"http", "https"}:
            raise invalid("Not a valid URL", name, "url_invalid")


def _refuse_without_address(call: Call, customer: Object | None) -> None:
    """Tax needs an address, a tax id a name: of a known customer both must be let in.

    Raises: StripeError, when they are not, which is how most find out.
    """
    if customer is None:
        return
    allowed = call.params.get("customer_update") or {}
    taxed = (call.params.get("automatic_tax") or {}).get("enabled")
    if taxed and not customer["address"] and allowed.get("address") != "auto":
        raise invalid(
            "Automatic tax calculation in Checkout requires a valid address on the Customer. Add a"
            " valid address to the Customer or set either `customer_update[address]` to 'auto' or"
            " `customer_update[shipping]` to 'auto' to save the address entered in Checkout to the"
            " Customer.",
            code="customer_tax_location_invalid",
        )
    identified = (call.params.get("tax_id_collection") or {}).get("enabled")
    if identified and allowed.get("name") != "auto":
        raise invalid(
            "Tax ID collection requires updating business name on the customer. To enable tax ID"
            " collection for an existing customer, please set `customer_update[name]` to `auto`.",
            "customer_update[name]",
        )


def _expires_s(call: Call) -> int:
    now_s = call.store.now_s
    asked = call.params.get("expires_at")
    if asked is None:
        return now_s + EXPIRES_S_MAX
    if not EXPIRES_S_MIN <= asked - now_s <= EXPIRES_S_MAX:
        raise invalid(
            "The `expires_at` timestamp must be between 30 minutes and 24 hours from Checkout"
            " Session creation.",
            "expires_at",
        )
    return int(asked)


def _fields(call: Call, mode: str, customer: Object | None) -> Object:
    """A session before anybody has paid: what was sent, and what is not known yet."""
    params = call.params
    taxed = bool((params.get("automatic_tax") or {}).get("enabled"))
    sent = {name: params.get(name) for name in KEPT_AS_SENT}
    return sent | {
        "adaptive_pricing": None,
        "after_expiration": None,
        "allow_promotion_codes": params.get("allow_promotion_codes"),
        "allowed_payment_method_types": params.get("allowed_payment_method_types"),
        "amount_subtotal": None,
        "amount_total": None,
        "automatic_tax": {
            "enabled": taxed,
            "liability": {"type": "self"} if taxed else None,
            "provider": "stripe" if taxed else None,
            "status": "complete" if taxed else None,
        },
        "client_secret": None,
        "collected_information": None,
        "consent": None,
        "consent_collection": None,
        "currency": params.get("currency"),
        "currency_conversion": None,
        "custom_fields": [],
        "custom_text": dict.fromkeys(
            ("after_submit", "shipping_address", "submit", "terms_of_service_acceptance")
        ),
        "customer": customer["id"] if customer else None,
        "customer_account": None,
        "customer_creation": _customer_creation(params, mode, customer),
        "customer_details": None,
        "customer_email": params.get("customer_email"),
        "invoice": None,
        "invoice_creation": _invoice_creation(params, mode),
        "metadata": merge_metadata({}, params.get("metadata")),
        "mode": mode,
        "payment_intent": None,
        "payment_link": None,
        "payment_method_collection": (
            params.get("payment_method_collection") or "always" if mode == "subscription" else None
        ),
        "payment_method_options": {},
        "payment_method_types": list(params.get("allowed_payment_method_types") or METHOD_TYPES),
        "payment_status": "no_payment_required" if mode == "setup" else "unpaid",
        "permissions": None,
        "phone_number_collection": {"enabled": False},
        "recovered_from": None,
        "saved_payment_method_options": None,
        "setup_intent": None,
        "shipping_address_collection": None,
        "shipping_cost": None,
        "shipping_options": [],
        "status": "open",
        "subscription": None,
        "tax_id_collection": {
            "enabled": bool((params.get("tax_id_collection") or {}).get("enabled")),
            "required": "never",
        },
        "total_details": None,
        "ui_mode": "hosted_page",
    }


def _invoice_creation(params: Object, mode: str) -> Object | None:
    if mode != "payment":
        return None
    asked = params.get("invoice_creation") or {}
    data = asked.get("invoice_data") or {}
    return {
        "enabled": bool(asked.get("enabled")),
        "invoice_data": {
            "account_tax_ids": None,
            "custom_fields": None,
            "description": data.get("description"),
            "footer": None,
            "issuer": None,
            "metadata": merge_metadata({}, data.get("metadata")),
            "rendering_options": None,
        },
    }


def _customer_creation(params: Object, mode: str, customer: Object | None) -> str | None:
    if customer is not None or mode == "setup":
        return None
    invoiced = (params.get("invoice_creation") or {}).get("enabled")
    if mode == "subscription" or invoiced:
        return "always"
    return str(params.get("customer_creation") or "if_required")


def expire_session(store: Store, session_id: str) -> None:
    """Its time has come: nobody can pay it any more, unless somebody has."""
    session = store.get("checkout.session", session_id)
    if session["status"] == "open":
        session |= {"status": "expired", "url": None}
        store.emit("checkout.session.expired", session)


def expire(call: Call) -> Object:
    """The same before its time."""
    session = call.store.get("checkout.session", call.id)
    if session["status"] != "open":
        raise invalid(
            'Only Checkout Sessions with a status in ["open"] can be expired. This Checkout'
            f" Session has a status of `{session['status']}`."
        )
    expire_session(call.store, call.id)
    return session


def update(call: Call) -> Object:
    """Changes what is written on a session."""
    session = call.store.get("checkout.session", call.id)
    if "metadata" in call.params:
        session["metadata"] = merge_metadata(session["metadata"], call.params["metadata"])
    return session


def list_sessions(call: Call) -> Object:
    """Sessions by who and what they are for."""
    found = within(call, call.store.all("checkout.session"))
    found = where(call, found, "customer", "payment_intent", "status", "subscription")
    email = (call.params.get("customer_details") or {}).get("email")
    if email is not None:
        found = [o for o in found if (o["customer_details"] or {}).get("email") == email]
    return page(call, found, URL)


def list_lines(call: Call) -> Object:
    """A session's lines, first one first as Stripe lists them."""
    session = call.store.get("checkout.session", call.id)
    return page(call, reversed(session["_lines"]), f"{URL}/{call.id}/line_items")


def _whole(store: Store, session: Object) -> Object:
    shown = [store.show(line) for line in session["_lines"]]
    return whole_list(shown, f"{URL}/{session['id']}/line_items")


INCLUDED["checkout.session", "line_items"] = _whole

_RECURRING: Shape = {"interval": one_of("day", "week", "month", "year"), "interval_count": integer}
_PRICE_DATA: Shape = {
    "currency": text,
    "product": text,
    "product_data": {"description": text, "metadata": metadata, "name": text},
    "recurring": _RECURRING,
    "tax_behavior": one_of("exclusive", "inclusive", "unspecified"),
    "unit_amount": integer,
}
_SUBSCRIPTION_DATA: Shape = {
    "description": text,
    "metadata": metadata,
    "trial_end": integer,
    "trial_period_days": integer,
    "trial_settings": {
        "end_behavior": {"missing_payment_method": one_of("cancel", "create_invoice", "pause")}
    },
}
# What is shown as it was sent, and means nothing to the fake.
KEPT_AS_SENT: Shape = {
    "billing_address_collection": one_of("auto", "required"),
    "cancel_url": text,
    "client_reference_id": text,
    "locale": text,
    "submit_type": one_of("auto", "book", "donate", "pay", "subscribe"),
    "success_url": text,
}
_SESSION: Shape = {
    **KEPT_AS_SENT,
    "allow_promotion_codes": boolean,
    "allowed_payment_method_types": list_of(one_of(*METHOD_TYPES)),
    "automatic_tax": {"enabled": boolean},
    "currency": text,
    "customer": text,
    "customer_creation": one_of("always", "if_required"),
    "customer_email": text,
    "customer_update": dict.fromkeys(("address", "name", "shipping"), one_of("auto", "never")),
    "discounts": list_of({"coupon": text, "promotion_code": text}),
    "expires_at": integer,
    "invoice_creation": {
        "enabled": boolean,
        "invoice_data": {"description": text, "metadata": metadata},
    },
    "line_items": list_of({"price": text, "price_data": _PRICE_DATA, "quantity": integer}),
    "metadata": metadata,
    "mode": one_of("payment", "setup", "subscription"),
    "payment_intent_data": {
        "description": text,
        "metadata": metadata,
        "setup_future_usage": one_of("off_session", "on_session"),
    },
    "payment_method_collection": one_of("always", "if_required"),
    "setup_intent_data": {"description": text, "metadata": metadata},
    "subscription_data": _SUBSCRIPTION_DATA,
    "tax_id_collection": {"enabled": boolean},
    "ui_mode": one_of("hosted_page"),
}
DUE = {EXPIRES: expire_session}
ROUTES = (
    listing(
        URL,
        list_sessions,
        {
            "created": CREATED,
            "customer": text,
            "customer_details": {"email": text},
            "payment_intent": text,
            "status": one_of("complete", "expired", "open"),
            "subscription": text,
        },
    ),
    post(URL, create, _SESSION),
    get(URL + "/{id}", retrieving("checkout.session")),
    post(URL + "/{id}", update, {"metadata": metadata}),
    post(URL + "/{id}/expire", expire),
    listing(URL + "/{id}/line_items", list_lines),
)
