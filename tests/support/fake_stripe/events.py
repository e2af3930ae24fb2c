"""What happened, as Stripe tells it: an event with a snapshot, and its thin form."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .store import Object, Store

API_VERSION = "2026-10-28.endive"
KEPT_DAYS = 30

# Where the events of a kind of object are named otherwise than the kind.
TOPICS = {"subscription": "customer.subscription", "dispute": "charge.dispute"}
# Where objects are found, when that is not /v1/<kind>s.
URLS = {
    "checkout.session": "/v1/checkout/sessions",
    "billing_portal.session": "/v1/billing_portal/sessions",
    "billing_portal.configuration": "/v1/billing_portal/configurations",
    "billing.meter": "/v1/billing/meters",
}
# What the API only makes: a thin event about one refers to nothing.
NOT_RETRIEVED = {"billing_portal.session"}


def topic(obj: Object) -> str:
    """What events about an object begin with, such as `customer.subscription`."""
    kind: str = obj["object"]
    return TOPICS.get(kind, kind)


def url_of(obj: Object) -> str:
    """Where the object is retrieved."""
    return f"{URLS.get(obj['object'], '/v1/' + obj['object'] + 's')}/{obj['id']}"


def differences(before: Object, after: Object) -> Object:
    """`previous_attributes`: the old values of what changed. Mappings show only what changed."""
    changed: Object = {}
    for key in before.keys() | after.keys():
        old, new = before.get(key), after.get(key)
        if old == new:
            continue
        both = isinstance(old, dict) and isinstance(new, dict)
        changed[key] = differences(old, new) if both else old  # type: ignore[arg-type]
    return dict(sorted(changed.items()))


def make(store: Store, event_type: str, obj: Object, previous: Object | None) -> Object:
    """Keeps a new event about an object as it is now."""
    data: Object = {"object": store.show(obj)}
    if previous is not None:
        data["previous_attributes"] = previous
    return store.add(
        "event",
        "evt",
        {
            "api_version": API_VERSION,
            "data": data,
            "pending_webhooks": 0,
            "request": dict(store.request),
            "type": event_type,
            "_thin_id": store.make_id("evt_test_65" if not store.livemode else "evt_65"),
            "_url": url_of(obj),
        },
    )


def thin(event: Object) -> Object:
    """The notification that an endpoint for thin events gets: a hint, no snapshot."""
    about = event["data"]["object"]
    related = {"id": about["id"], "type": about["object"], "url": event["_url"]}
    return {
        "id": event["_thin_id"],
        "object": "v2.core.event",
        "type": f"v1.{event['type']}",
        "livemode": event["livemode"],
        "created": _iso(event["created"]),
        "context": None,
        "reason": _reason(event),
        **({} if about["object"] in NOT_RETRIEVED else {"related_object": related}),
    }


def retrieved_thin(event: Object) -> Object:
    """A thin event as `/v2/core/events/{id}` answers it."""
    return thin(event) | {"changes": None, "snapshot_event": event["id"]}


def _reason(event: Object) -> dict[str, Any] | None:
    if event["request"]["id"] is None:
        return None
    key = event["request"]["idempotency_key"]
    return {"type": "request", "request": event["request"] | {"idempotency_key": key or ""}}


def _iso(at_s: int) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
