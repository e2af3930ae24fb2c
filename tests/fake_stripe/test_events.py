"""What happened, as events tell it, and how it is delivered."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
import stripe
from aiohttp import web

from tests.support.fake_stripe.clock import DAY_S, HOUR_S
from tests.support.fake_stripe.face import FakeStripe
from tests.support.stripe_billing import at
from tests.support.stripe_shop import client_of
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.stripe_shop import Shop


TRIES_MAX = 30


class Receiver:
    """An endpoint that keeps what it gets and answers as it is told."""

    def __init__(self) -> None:
        self.got: list[tuple[dict[str, Any], str]] = []
        self.bodies: list[str] = []
        self.statuses: list[int] = []
        self.url = ""

    async def receive(self, request: web.Request) -> web.Response:
        body = await request.text()
        self.got.append((json.loads(body), request.headers["Stripe-Signature"]))
        self.bodies.append(body)
        return web.Response(status=self.statuses.pop(0) if self.statuses else 200)

    @property
    def types(self) -> list[str]:
        return [event["type"] for event, _ in self.got]


@pytest_asyncio.fixture
async def receiver() -> AsyncIterator[Receiver]:
    made = Receiver()
    app = web.Application()
    app.router.add_post("/hook", made.receive)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    yield made
    await runner.cleanup()


async def test_an_update_tells_what_was_before(shop: Shop) -> None:
    customer = await shop.customer(metadata={"plan": "pro", "seat": "1"})
    await shop.v1.customers.update_async(customer, {"name": "Ann", "metadata": {"plan": "max"}})
    event = (await shop.v1.events.list_async({"type": "customer.updated"})).data[0]
    assert event.data.object.name == "Ann"
    assert event.data.previous_attributes.to_dict() == {"metadata": {"plan": "pro"}, "name": None}


async def test_an_update_that_changes_nothing_is_no_event(shop: Shop) -> None:
    customer = await shop.customer(name="Ann")
    await shop.v1.customers.update_async(customer, {"name": "Ann"})
    assert shop.happened("customer.") == ["customer.created"]


async def test_an_event_keeps_its_object_as_it_was(shop: Shop) -> None:
    customer = await shop.customer(name="Ann")
    await shop.v1.customers.update_async(customer, {"name": "Bob"})
    first = (await shop.v1.events.list_async()).data[-1]
    assert (first.type, first.data.object.name) == ("customer.created", "Ann")
    assert first.request.id.startswith("req_")


async def test_events_are_listed_by_type_and_time_for_30_days(shop: Shop) -> None:
    await shop.fake.advance_to(at(2030, 1, 1))
    await shop.customer()
    await shop.fake.advance(days=20)
    await shop.price()

    async def listed(**params: Any) -> list[str]:
        found = await shop.v1.events.list_async(params)
        return [event.type for event in found.data][::-1]

    assert await listed() == ["customer.created", "product.created", "price.created"]
    assert await listed(type="product.*") == ["product.created"]
    assert await listed(types=["price.created", "customer.created"]) == [
        "customer.created",
        "price.created",
    ]
    assert await listed(created={"lt": at(2030, 1, 2)}) == ["customer.created"]
    old = (await shop.v1.events.list_async()).data[-1]
    await shop.fake.advance(days=11)
    assert await listed() == ["product.created", "price.created"]
    with pytest.raises(stripe.InvalidRequestError, match="No such event"):
        await shop.v1.events.retrieve_async(old.id)


async def test_deliveries_are_signed_by_every_secret(shop: Shop, receiver: Receiver) -> None:
    shop.fake.add_endpoint(receiver.url, secrets=["whsec_new", "whsec_old"])
    await shop.customer()
    await shop.fake.delivered()
    (_, signature), body = receiver.got[0], receiver.bodies[0]
    for secret in ("whsec_new", "whsec_old"):
        event = stripe.Webhook.construct_event(body, signature, secret)
        assert event.type == "customer.created"
    with pytest.raises(stripe.SignatureVerificationError):
        stripe.Webhook.construct_event(body, signature, "whsec_other")


async def test_a_thin_event_is_a_hint_that_leads_to_event_and_object(
    shop: Shop, receiver: Receiver
) -> None:
    shop.fake.add_endpoint(receiver.url, forms=["thin"])
    customer = await shop.customer()
    await shop.fake.delivered()
    (_, signature), body = receiver.got[0], receiver.bodies[0]
    hint: Any = shop.client.parse_event_notification(body, signature, shop.fake.webhook_secret)
    assert hint.type == "v1.customer.created"
    assert hint.related_object.id == customer
    # The client's own fetch_event_async sends a parameter that is none (16.1): ask as if without.
    event = await shop.client.v2.core.events.retrieve_async(hint.id)
    snapshot = await shop.v1.events.retrieve_async(event.snapshot_event)
    assert snapshot.data.object.id == customer


async def test_an_endpoint_gets_only_its_types_and_mode(shop: Shop, receiver: Receiver) -> None:
    shop.fake.add_endpoint(receiver.url, types=["price.created"])
    shop.fake.add_endpoint(receiver.url, livemode=True)
    await shop.price()
    await shop.fake.delivered()
    assert receiver.types == ["price.created"]


async def test_endpoints_made_by_the_api_show_their_secret_once(
    shop: Shop, receiver: Receiver
) -> None:
    made = await shop.v1.webhook_endpoints.create_async(
        {"url": receiver.url, "enabled_events": ["customer.created"]}
    )
    await shop.customer()
    await shop.fake.delivered()
    stripe.Webhook.construct_event(receiver.bodies[0], receiver.got[0][1], made.secret)
    assert "secret" not in (await shop.v1.webhook_endpoints.retrieve_async(made.id)).to_dict()
    await shop.v1.webhook_endpoints.update_async(made.id, {"disabled": True})
    await shop.customer()
    await shop.fake.delivered()
    assert len(receiver.got) == 1


async def test_held_deliveries_come_in_any_order_twice_or_not_at_all(
    shop: Shop, receiver: Receiver
) -> None:
    shop.fake.add_endpoint(receiver.url)
    shop.fake.set_delivery_mode("held")
    await shop.price()
    await shop.customer()
    await shop.fake.delivered()
    assert receiver.got == []
    made = ["product.created", "price.created", "customer.created"]
    held = list(shop.fake.deliveries.held)
    assert (
        await shop.fake.deliver(order="reversed", twice=True, drop=["price.created"]) == [200] * 4
    )
    assert receiver.types == ["customer.created", "product.created"] * 2
    assert shop.fake.deliveries.held == []
    await shop.fake.deliver(held)
    assert receiver.types[4:] == made
    await shop.fake.deliver(held, order=7)
    assert sorted(receiver.types[7:]) == sorted(made)


async def test_a_failed_delivery_is_tried_again_for_three_days_then_given_up(
    shop: Shop, receiver: Receiver
) -> None:
    endpoint = shop.fake.add_endpoint(receiver.url)
    receiver.statuses = [500, 500]
    await shop.customer()
    await shop.fake.delivered()
    undelivered = await shop.v1.events.list_async({"delivery_success": False})
    assert len(undelivered.data) == 1
    await shop.fake.advance(seconds=HOUR_S)
    assert len(receiver.got) == 3
    assert (await shop.v1.events.list_async({"delivery_success": False})).data == []

    endpoint.url = "http://127.0.0.1:9/nobody"
    await shop.customer()
    await shop.fake.advance(days=2)
    lost = shop.fake.deliveries.all[-1]
    assert lost.state == "failed"
    await shop.fake.advance(seconds=2 * DAY_S)
    assert lost.state == "given up"
    endpoint.url = receiver.url
    await shop.fake.advance(days=5)
    assert len(receiver.got) == 3


async def test_a_failed_delivery_is_tried_again_within_seconds_while_the_clock_runs(
    receiver: Receiver,
) -> None:
    receiver.statuses = [503]
    async with FakeStripe.running(seed="soon", real_time=True) as fake, client_of(fake) as client:
        fake.add_endpoint(receiver.url)
        await client.v1.customers.create_async()
        await eventually(lambda: len(receiver.got) == 2)
        assert fake.deliveries.all[-1].answers == [503, 200]

        # Of one that is never taken tries become rarer, and end.
        receiver.statuses = [503] * TRIES_MAX
        await client.v1.customers.create_async()
        await fake.advance(days=4)
        assert fake.deliveries.all[-1].state == "given up"
        assert len(fake.deliveries.all[-1].answers) < TRIES_MAX
