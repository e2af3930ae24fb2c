"""Meters and the events that they count: use that Stripe is told of, each event once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .calls import get, listing, page, post, retrieving, where
from .clock import DAY_S
from .errors import invalid
from .forms import integer, one_of, text

if TYPE_CHECKING:
    from typing import Any

    from .calls import Call
    from .store import Object

METERS = "/v1/billing/meters"
EVENTS = "/v1/billing/meter_events"
# How far back, and how little ahead, an event may say that it happened.
PAST_S_MAX = 35 * DAY_S
AHEAD_S_MAX = 300


def create(call: Call) -> Object:
    """A meter that sums or counts the events of a name."""
    store, params = call.store, call.params
    name = call.need("event_name")
    for meter in store.all("billing.meter"):
        if meter["event_name"] == name and meter["status"] == "active":
            raise invalid(f"There is already an active meter with event name {name}.", "event_name")
    mapping = params.get("customer_mapping") or {}
    made = store.add(
        "billing.meter",
        "mtr",
        {
            "customer_mapping": {
                "event_payload_key": mapping.get("event_payload_key") or "stripe_customer_id",
                "type": "by_id",
            },
            "default_aggregation": {"formula": call.need("default_aggregation").get("formula")},
            "display_name": call.need("display_name"),
            "event_name": name,
            "event_time_window": None,
            "status": "active",
            "status_transitions": {"deactivated_at": None},
            "updated": store.now_s,
            "value_settings": {
                "event_payload_key": (params.get("value_settings") or {}).get("event_payload_key")
                or "value",
            },
        },
    )
    store.emit("billing.meter.created", made)
    return made


def list_all(call: Call) -> Object:
    """Newest first, by status."""
    return page(call, where(call, call.store.all("billing.meter"), "status"), METERS)


def payload(value: Any, name: str) -> dict[str, str]:
    """What an event carries: names and values."""
    if not isinstance(value, dict):
        raise invalid("Invalid object", name)
    return {key: text(each, f"{name}[{key}]") for key, each in value.items()}


def create_event(call: Call) -> Object:
    """Use by a customer.

    Raises: StripeError, 400, for an identifier that was used in the last 24 hours, a customer that
    is not there, a value that is no whole number, or a time out of range.
    """
    store, params = call.store, call.params
    name = call.need("event_name")
    meters = [m for m in store.all("billing.meter") if m["event_name"] == name]
    if not meters:
        raise invalid(f"No meter found for event name {name}.", "event_name")
    meter, carried = meters[-1], call.need("payload")
    at_s = params.get("timestamp") or store.now_s
    if not store.now_s - PAST_S_MAX <= at_s <= store.now_s + AHEAD_S_MAX:
        raise invalid("The timestamp is too far in the past or the future.", "timestamp")
    store.get(
        "customer", carried.get(meter["customer_mapping"]["event_payload_key"]) or "", "payload"
    )
    value_key = meter["value_settings"]["event_payload_key"]
    integer(carried.get(value_key), f"payload[{value_key}]")
    identifier = params.get("identifier") or store.make_id("mev")
    for event in store.all("billing.meter_event"):
        recent = event["created"] > store.now_s - DAY_S
        if recent and event["identifier"] == identifier:
            raise invalid(
                f"An event already exists with identifier {identifier}.",
                "identifier",
                "duplicate_meter_event",
            )
    made = store.keep(
        {
            "id": store.make_id("mev"),
            "object": "billing.meter_event",
            "created": store.now_s,
            "event_name": name,
            "identifier": identifier,
            "livemode": store.livemode,
            "payload": carried,
            "timestamp": at_s,
        }
    )
    return {name: value for name, value in made.items() if name != "id"}


ROUTES = (
    listing(METERS, list_all, {"status": one_of("active", "inactive")}),
    post(
        METERS,
        create,
        {
            "customer_mapping": {"event_payload_key": text, "type": one_of("by_id")},
            "default_aggregation": {"formula": one_of("count", "last", "sum")},
            "display_name": text,
            "event_name": text,
            "value_settings": {"event_payload_key": text},
        },
    ),
    get(METERS + "/{id}", retrieving("billing.meter")),
    post(
        EVENTS,
        create_event,
        {"event_name": text, "identifier": text, "payload": payload, "timestamp": integer},
    ),
)
