"""The customer portal: how it is set up, and sessions of it. Its page is among `pages`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .calls import get, listing, page, post, retrieving, where
from .errors import invalid
from .forms import boolean, list_of, metadata, one_of, text
from .store import merge_metadata

if TYPE_CHECKING:
    from .calls import Call
    from .forms import Shape
    from .store import Object, Store

SESSIONS = "/v1/billing_portal/sessions"
CONFIGURATIONS = "/v1/billing_portal/configurations"
CANCEL_REASONS = ("too_expensive", "missing_features", "switched_service", "unused", "other")
# The flows that the page has; each starts at one of its parts.
FLOWS = ("payment_method_update", "subscription_cancel")


def create_configuration(call: Call) -> Object:
    """What the portal lets customers do; the first one made is the default."""
    call.need("features")
    return _make_configuration(call.store, call.params)


def default_configuration(store: Store) -> Object:
    """The one that sessions have which name none; Stripe has its owner save it once by hand."""
    made = [one for one in store.all("billing_portal.configuration") if one["is_default"]]
    return made[0] if made else _make_configuration(store, {})


def _make_configuration(store: Store, params: Object) -> Object:
    first = not store.all("billing_portal.configuration")
    made = store.add(
        "billing_portal.configuration",
        "bpc",
        {
            "active": True,
            "application": None,
            "business_profile": {
                "headline": None,
                "privacy_policy_url": None,
                "terms_of_service_url": None,
            }
            | (params.get("business_profile") or {}),
            "default_return_url": params.get("default_return_url"),
            "features": _features(params.get("features") or {}),
            "is_default": first,
            "login_page": {"enabled": False, "url": None},
            "metadata": merge_metadata({}, params.get("metadata")),
            "name": params.get("name"),
            "updated": store.now_s,
        },
    )
    store.emit("billing_portal.configuration.created", made)
    return made


def _features(asked: Object) -> Object:
    """What is asked for, laid over what Stripe takes for granted."""
    features: Object = {
        "customer_update": {"allowed_updates": ["email"], "enabled": False},
        "invoice_history": {"enabled": True},
        "payment_method_update": {"enabled": True, "payment_method_configuration": None},
        "subscription_cancel": {
            "cancellation_reason": {"enabled": False, "options": list(CANCEL_REASONS)},
            "enabled": True,
            "mode": "at_period_end",
            "proration_behavior": "none",
        },
        "subscription_pause": {
            "duration": {"interval_options": [], "type": "indefinite"},
            "enabled": False,
        },
        "subscription_update": {
            "billing_cycle_anchor": None,
            "default_allowed_updates": [],
            "enabled": False,
            "proration_behavior": "none",
            "schedule_at_period_end": {"conditions": []},
            "trial_update_behavior": "end_trial",
        },
    }
    for name, values in asked.items():
        features[name] |= values or {}
    return features


def update_configuration(call: Call) -> Object:
    """Changes what is sent of it."""
    store, params = call.store, call.params
    made = store.get("billing_portal.configuration", call.id)
    with store.updating(made):
        for name in ("active", "default_return_url", "name"):
            if name in params:
                made[name] = params[name]
        for name in ("business_profile", "features"):
            for inner, value in (params.get(name) or {}).items():
                old = made[name][inner]
                made[name][inner] = old | value if isinstance(old, dict) else value
        if "metadata" in params:
            made["metadata"] = merge_metadata(made["metadata"], params["metadata"])
        made["updated"] = store.now_s
    return made


def list_configurations(call: Call) -> Object:
    """All of them, by whether they are active, or the default."""
    found = call.store.all("billing_portal.configuration")
    return page(call, where(call, found, "active", "is_default"), CONFIGURATIONS)


def create_session(call: Call) -> Object:
    """A way into the portal for one customer."""
    store, params = call.store, call.params
    customer = store.get("customer", call.need("customer"), "customer")
    if params.get("configuration"):
        configuration = store.get(
            "billing_portal.configuration", params["configuration"], "configuration"
        )
    else:
        configuration = default_configuration(store)
    made = store.add(
        "billing_portal.session",
        "bps",
        {
            "configuration": configuration["id"],
            "customer": customer["id"],
            "customer_account": None,
            "flow": _flow(store, customer, params.get("flow_data")),
            "locale": params.get("locale"),
            "on_behalf_of": None,
            "return_url": params.get("return_url") or configuration["default_return_url"],
        },
    )
    made["url"] = f"{call.base_url}/portal/{made['id']}"
    store.emit("billing_portal.session.created", made)
    return made


def _flow(store: Store, customer: Object, asked: Object | None) -> Object | None:
    if asked is None:
        return None
    named = (asked.get("subscription_cancel") or {}).get("subscription")
    if asked.get("type") == "subscription_cancel":
        at = "flow_data[subscription_cancel][subscription]"
        subscription = store.get("subscription", named or "", at)
        if subscription["customer"] != customer["id"]:
            raise invalid("The subscription is another customer's.", at)
    after = asked.get("after_completion") or {}
    return {
        "after_completion": {
            "hosted_confirmation": None,
            "redirect": after.get("redirect"),
            "type": after.get("type") or "portal_homepage",
        },
        "subscription_cancel": {"retention": None, "subscription": named} if named else None,
        "subscription_update": None,
        "subscription_update_confirm": None,
        "type": asked.get("type") or "payment_method_update",
    }


_ENABLED: Shape = {"enabled": boolean}
_CONFIGURATION: Shape = {
    "business_profile": dict.fromkeys(
        ("headline", "privacy_policy_url", "terms_of_service_url"), text
    ),
    "default_return_url": text,
    "features": {
        "customer_update": {
            "allowed_updates": list_of(
                one_of("address", "email", "name", "phone", "shipping", "tax_id")
            ),
            "enabled": boolean,
        },
        "invoice_history": _ENABLED,
        "payment_method_update": _ENABLED,
        "subscription_cancel": {
            "enabled": boolean,
            "mode": one_of("at_period_end", "immediately"),
            "proration_behavior": one_of("always_invoice", "create_prorations", "none"),
        },
        "subscription_update": _ENABLED,
    },
    "metadata": metadata,
    "name": text,
}
ROUTES = (
    listing(CONFIGURATIONS, list_configurations, {"active": boolean, "is_default": boolean}),
    post(CONFIGURATIONS, create_configuration, _CONFIGURATION),
    get(CONFIGURATIONS + "/{id}", retrieving("billing_portal.configuration")),
    post(CONFIGURATIONS + "/{id}", update_configuration, {**_CONFIGURATION, "active": boolean}),
    post(
        SESSIONS,
        create_session,
        {
            "configuration": text,
            "customer": text,
            "flow_data": {
                "after_completion": {
                    "redirect": {"return_url": text},
                    "type": one_of("hosted_confirmation", "portal_homepage", "redirect"),
                },
                "subscription_cancel": {"subscription": text},
                "type": one_of(*FLOWS),
            },
            "locale": text,
            "return_url": text,
        },
    ),
)
