"""`tollkeeper stripe events` and `stripe reconcile`: what was said, and what was not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.control.api.roles import Role
from gateway.ledger.inbox import EventKey
from tests.support.fake_stripe.face import FakeStripe
from tests.support.inbox import TEST, jobs, some_event
from tests.support.stripe_shop import Shop, client_of
from tests.support.stripe_stand import ask_at

if TYPE_CHECKING:
    from tests.support.api import Api
    from tests.support.remote_cli import Remote


async def test_a_parked_event_is_found_looked_at_and_replayed(api: Api, remote: Remote) -> None:
    await remote.log_in(api.demo.tokens[Role.EDITOR])
    for event in ("evt_1", "evt_2"):
        await api.services.events.receive(api.demo.platform_id, TEST, [some_event(event)])
    key = EventKey(api.demo.platform_id, TEST, "evt_1")
    await api.ledger.mark_stripe_event(key, "parked", 10, "the customer is nobody's")

    listed = await remote("stripe", "events", "list", "--status", "parked")
    assert "the customer is nobody's" in listed.out
    assert "evt_2" not in listed.out
    shown = await remote("stripe", "events", "show", "evt_1")
    assert "status: parked\n" in shown.out
    assert "payload" not in shown.out
    whole = await remote("stripe", "events", "show", "evt_1", "--json")
    assert whole.document["event"]["payload"]["id"] == "evt_1"
    replayed = await remote("stripe", "events", "replay", "evt_1")
    assert replayed.out == "Event evt_1 (invoice.paid) waits: a running node works on it.\n"
    assert (await jobs(api.postgres_url))[key.text] == "queued"
    assert (await remote("stripe", "events", "replay", "evt_none")).code != 0
    other = EventKey(api.demo.platform_id, TEST, "evt_2")
    await api.ledger.mark_stripe_event(other, "parked", 10, "no plan of this name")
    for count in (1, 0):
        again = await remote("stripe", "events", "replay", "--parked")
        assert again.out == f"Waiting again: {count}. A running node works on what waits.\n"
    for words in ([], ["evt_1", "--parked"]):
        refused = await remote("stripe", "events", "replay", *words)
        assert (refused.code, "--parked" in refused.err) == (2, True)
    none = await remote("stripe", "events", "list", "--type", "charge.failed")
    assert none.out == "Stripe said nothing of that kind.\n"


async def test_reconciling_goes_on_until_everything_was_looked_at(api: Api, remote: Remote) -> None:
    await remote.log_in(api.demo.tokens[Role.OWNER])
    async with FakeStripe.running() as fake, client_of(fake) as client:
        await remote("secrets", "set", "key", stdin=fake.api_key)
        await remote("stripe", "set", "--key", "key")
        await ask_at(api, fake)
        shop = Shop(fake, client)
        for _ in range(60):
            await shop.v1.customers.delete_async(await shop.customer())
        done = await remote("stripe", "reconcile", "--days", "10")
        assert done.out == (
            "60 of 120 events had not come and are worked on by running nodes; 0 of 0 payments "
            "were not booked and are now.\n"
        )
        again = await remote("stripe", "reconcile", "--json")
        assert again.document["events_added"] == 0
