"""Events as the API lists them, and the endpoints that they are sent to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import events
from .calls import Route, delete, get, listing, page, post, within
from .clock import DAY_S
from .deliveries import Endpoint
from .errors import invalid, no_such
from .forms import CREATED, boolean, list_of, metadata, text
from .store import merge_metadata

if TYPE_CHECKING:
    from .calls import Call
    from .forms import Shape
    from .store import Object, Store

EVENTS_URL = "/v1/events"
ENDPOINTS_URL = "/v1/webhook_endpoints"


def kept(store: Store) -> list[Object]:
    """The events of the last 30 days of the fake's clock, oldest first."""
    since_s = store.now_s - events.KEPT_DAYS * DAY_S
    return [event for event in store.all("event") if event["created"] >= since_s]


def list_events(call: Call) -> Object:
    """Newest first, by time, type or types, and whether all endpoints have had them."""
    found = within(call, kept(call.store))
    types = call.params.get("types")
    wanted = call.params.get("type")
    if types and wanted:
        raise invalid("You may only specify one of these parameters: type, types.")
    if wanted and wanted.endswith(".*"):
        found = [event for event in found if event["type"].startswith(wanted[:-1])]
    elif wanted or types:
        found = [event for event in found if event["type"] in (types or [wanted])]
    delivered = call.params.get("delivery_success")
    if delivered is not None:
        found = [event for event in found if (event["pending_webhooks"] == 0) == delivered]
    return page(call, found, EVENTS_URL)


def retrieve_event(call: Call) -> Object:
    """One event, while it is kept."""
    for event in kept(call.store):
        if event["id"] == call.id:
            return event
    raise no_such("event", call.id)


def retrieve_thin(call: Call) -> Object:
    """One event in its thin form, by the id that its notification carries."""
    for event in kept(call.store):
        if event["_thin_id"] == call.id:
            return events.retrieved_thin(event)
    raise no_such("event", call.id)


def create_endpoint(call: Call) -> Object:
    """Only this answer shows the endpoint's secret."""
    store = call.store
    made = store.add(
        "webhook_endpoint",
        "we",
        {
            "api_version": events.API_VERSION,
            "application": None,
            "description": call.params.get("description"),
            "enabled_events": call.need("enabled_events"),
            "metadata": merge_metadata({}, call.params.get("metadata")),
            "status": "enabled",
            "url": call.need("url"),
        },
    )
    secret = store.make_id("whsec")
    store.deliveries.endpoints.append(
        Endpoint(
            made["id"],
            made["url"],
            [secret],
            types=made["enabled_events"],
            livemode=store.livemode,
        )
    )
    return made | {"secret": secret}


def update_endpoint(call: Call) -> Object:
    """Changes where events go, which, and whether at all."""
    made = call.store.get("webhook_endpoint", call.id)
    params = call.params
    for name in ("url", "enabled_events", "description"):
        if name in params:
            made[name] = params[name]
    if "disabled" in params:
        made["status"] = "disabled" if params["disabled"] else "enabled"
    if "metadata" in params:
        made["metadata"] = merge_metadata(made["metadata"], params["metadata"])
    for endpoint in call.store.deliveries.endpoints:
        if endpoint.endpoint_id == made["id"]:
            endpoint.url = made["url"]
            endpoint.types = made["enabled_events"]
            endpoint.enabled = made["status"] == "enabled"
    return made


def delete_endpoint(call: Call) -> Object:
    """Sends no more events there."""
    made = call.store.get("webhook_endpoint", call.id)
    made["_deleted"] = True
    for endpoint in call.store.deliveries.endpoints:
        if endpoint.endpoint_id == made["id"]:
            endpoint.enabled = False
    return {"id": made["id"], "object": "webhook_endpoint", "deleted": True}


def list_endpoints(call: Call) -> Object:
    """Those made through the API."""
    return page(call, call.store.all("webhook_endpoint"), ENDPOINTS_URL)


_ENDPOINT: Shape = {
    "url": text,
    "enabled_events": list_of(text),
    "description": text,
    "metadata": metadata,
}
ROUTES = (
    listing(
        EVENTS_URL,
        list_events,
        {"created": CREATED, "type": text, "types": list_of(text), "delivery_success": boolean},
    ),
    get(EVENTS_URL + "/{id}", retrieve_event),
    Route("GET", "/v2/core/events/{id}", retrieve_thin),
    listing(ENDPOINTS_URL, list_endpoints),
    post(ENDPOINTS_URL, create_endpoint, {**_ENDPOINT, "api_version": text}),
    get(ENDPOINTS_URL + "/{id}", lambda call: call.store.get("webhook_endpoint", call.id)),
    post(ENDPOINTS_URL + "/{id}", update_endpoint, {**_ENDPOINT, "disabled": boolean}),
    delete(ENDPOINTS_URL + "/{id}", delete_endpoint),
)
