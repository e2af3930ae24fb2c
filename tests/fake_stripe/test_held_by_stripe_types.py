"""The fake says nothing that Stripe does not: it is held against the types of the stripe package.

Every scene that there is runs through the real client, whose answers are kept as they came.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
import stripe
from stripe._object_classes import get_object_class

from tests.support import stripe_types
from tests.support.fake_stripe import events, forms
from tests.support.fake_stripe.face import FakeStripe
from tests.support.fake_stripe.resources import ROUTES
from tests.support.stripe_scenes import SCENES
from tests.support.stripe_shop import Shop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.fake_stripe.calls import Route

FAULTS_SHOWN_MAX = 40


@dataclass(slots=True)
class History:
    """What was answered: (route, document) of each call, and all events."""

    answers: list[tuple[Route, Any]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)


class Recorder(stripe.AIOHTTPClient):
    """The real client's transport, which keeps every answer as it came."""

    def __init__(self) -> None:
        super().__init__()
        self.history = History()

    async def request_async(
        self, method: str, url: str, headers: Mapping[str, str], post_data: Any = None
    ) -> tuple[bytes, int, Mapping[str, str]]:
        content, status, answered = await super().request_async(method, url, headers, post_data)
        if status == 200:
            route = route_of(method.upper(), urlsplit(url).path)
            self.history.answers.append((route, json.loads(content)))
        return content, status, answered


def route_of(method: str, path: str) -> Route:
    """The route of the fake that a call has taken: one without variables before one with some."""
    parts = path.split("/")

    def fits(route: Route) -> bool:
        pattern = route.path.split("/")
        return (
            route.method == method
            and len(pattern) == len(parts)
            and all(p.startswith("{") or p == part for p, part in zip(pattern, parts, strict=True))
        )

    return min((route for route in ROUTES if fits(route)), key=lambda route: route.path.count("{"))


def call_of(route: Route) -> stripe_types.Call:
    return stripe_types.calls()[route.method, stripe_types.template(route.path)]


@pytest_asyncio.fixture(scope="module")
async def history() -> AsyncIterator[History]:
    async with FakeStripe.running(seed="types") as fake:
        http = Recorder()
        client = stripe.StripeClient(
            fake.api_key, base_addresses={"api": fake.url}, http_client=http
        )
        try:
            shop = Shop(fake, client)
            for scene in SCENES:
                await scene(shop)
            await look_at_everything(fake, client, http.history)
            http.history.events = fake.events()
            yield http.history
        finally:
            await http.close_async()


async def look_at_everything(
    fake: FakeStripe, client: stripe.StripeClient, history: History
) -> None:
    """Lists all that can be listed, and retrieves each of it that can be."""

    async def got(path: str) -> Any:
        await client.raw_request_async("get", path)
        return history.answers[-1][1]

    known = {route.path for route in ROUTES if route.method == "GET"}
    for path in sorted(path for path in known if "{" not in path):
        subscription = fake.store.all("subscription")[-1]["id"]
        query = f"?subscription={subscription}" if path.endswith("subscription_items") else ""
        answer = await got(path + query)
        for one in answer.get("data", []):
            for below in known:
                if below.startswith(f"{path}/{{id}}"):
                    await got(below.replace("{id}", one["id"]))
    for event in fake.events()[-3:]:
        await got(f"/v2/core/events/{event['_thin_id']}")
    await got(f"/v1/accounts/{fake.store.account_id}")


def told(faults: list[str]) -> str:
    """The faults that occur, the most frequent first."""
    return "\n".join(
        f"{count} x {fault}" for fault, count in Counter(faults).most_common(FAULTS_SHOWN_MAX)
    )


def paid_invoice(history: History) -> dict[str, Any]:
    return next(
        one
        for route, one in history.answers
        if route.path == "/v1/invoices/{id}" and one.get("amount_paid") and one["lines"]["data"]
    )


@pytest.mark.parametrize(
    ("wrong", "fault"),
    [
        ({"colour": "red"}, "Invoice.colour: there is no such field"),
        ({"amount_due": None}, "Invoice.amount_due: None is no int"),
        ({"amount_due": 1.5}, "Invoice.amount_due: 1.5 is no int"),
        ({"livemode": 0}, "Invoice.livemode: 0 is no bool"),
        ({"status": "settled"}, "Invoice.status: 'settled' is none of"),
        ({"customer": {"object": "charge"}}, "Invoice.customer"),
        ({"lines": []}, "Invoice.lines: [] is no list object"),
        ({"lines": {"data": [{"id": 5}]}}, "Invoice.lines.data[0].id: 5 is no str"),
        ({"lines": {"data": [{"period": {}}]}}, "Invoice.lines.data[0].period.end: is missing"),
        ({"metadata": {"a": 1}}, "Invoice.metadata[a]: 1 is no str"),
    ],
)
def test_the_measure_finds_what_is_wrong(
    history: History, wrong: dict[str, Any], fault: str
) -> None:
    right = paid_invoice(history)
    assert stripe_types.faults(right, stripe.Invoice) == []
    spoilt = right | wrong
    if isinstance(wrong.get("lines"), dict):
        (line,) = wrong["lines"]["data"]
        lines = right["lines"]
        spoilt["lines"] = lines | {"data": [lines["data"][0] | line]}

    found = stripe_types.faults(spoilt, stripe.Invoice)

    assert any(one.startswith(fault) for one in found), found


def test_the_measure_misses_no_field_and_knows_no_parameter_too_many(history: History) -> None:
    right = paid_invoice(history)
    less = {name: one for name, one in right.items() if name != "currency"}
    params = stripe_types.calls()["POST", "/v1/checkout/sessions"].params
    sent = {"payment_method_types": ["card"], "line_items": [{"cost": "1"}], "mode": "payment"}

    assert stripe_types.faults(less, stripe.Invoice) == ["Invoice.currency: is missing"]
    assert stripe_types.unknown_parameters(sent, params) == [
        "payment_method_types",
        "line_items[][cost]",
    ]
    words = {"mode": stripe_types.Words(("payment", "gift"))}
    assert stripe_types.unknown_parameters(words, params) == ["mode=gift"]


def test_every_route_is_one_of_stripes() -> None:
    known = stripe_types.calls()

    assert [
        f"{route.method} {route.path}"
        for route in ROUTES
        if (route.method, stripe_types.template(route.path)) not in known
    ] == []


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_every_parameter_and_word_that_a_route_takes_is_stripes(route: Route) -> None:
    params = call_of(route).params

    assert stripe_types.unknown_parameters(taken_by(route.params), params) == []


def taken_by(shape: Any) -> Any:
    """What a route's shape takes, as the tree of a call that sends all of it, every word too."""
    if isinstance(shape, Mapping):
        return {name: taken_by(one) for name, one in shape.items()}
    if isinstance(shape, forms.ListOf):
        return [taken_by(shape.item)]
    if isinstance(shape, forms.Either):
        return taken_by(shape.shape or shape.value)
    if isinstance(shape, forms.OneOf):
        return stripe_types.Words(shape.words)
    return None


def test_every_route_has_answered(history: History) -> None:
    answered = {(route.method, route.path) for route, _ in history.answers}

    assert {(route.method, route.path) for route in ROUTES} - answered == set()


def test_every_answer_is_of_its_type(history: History) -> None:
    faults = [
        fault
        for route, document in history.answers
        for fault in stripe_types.faults(document, call_of(route).answer)
    ]

    assert told(faults) == ""


def test_every_event_is_one_of_stripes_with_an_object_of_its_type(history: History) -> None:
    known = stripe_types.event_types()
    assert {event["type"] for event in history.events} - known == set()

    faults = []
    for event in history.events:
        shown = {name: one for name, one in event.items() if not name.startswith("_")}
        faults += stripe_types.faults(shown, stripe.Event)
        about = event["data"]["object"]
        shape = get_object_class("V1", about["object"])
        faults += stripe_types.faults(about, shape, f"{event['type']}: {about['object']}")
        changed = event["data"].get("previous_attributes", {})
        faults += [
            f"{event['type']}: {name} was no field"
            for name in changed.keys() - stripe_types.fields(shape).keys()
        ]
    assert told(faults) == ""


def test_an_update_always_says_what_was_before(history: History) -> None:
    silent = [
        event["type"]
        for event in history.events
        if event["type"].endswith(".updated") and not event["data"].get("previous_attributes")
    ]

    assert Counter(silent) == {}


async def test_every_thin_event_is_read_by_the_package_and_says_where_to_look(
    history: History,
) -> None:
    client = stripe.StripeClient("sk_test_x")
    faults = []
    for event in history.events:
        notified = events.thin(event)
        read = stripe.v2.core.EventNotification.from_json(notified, client)
        assert read.id == event["_thin_id"]
        assert read.type in stripe_types.thin_event_types()
        faults += stripe_types.faults(events.retrieved_thin(event), stripe.v2.core.Event)
        if "related_object" in notified:
            assert route_of("GET", notified["related_object"]["url"])
    assert told(faults) == ""
