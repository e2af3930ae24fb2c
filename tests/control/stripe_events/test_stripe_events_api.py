"""Owners see what Stripe said, replay what is mended, and find what never came."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest_asyncio

from gateway.config.stripe import StripeTable
from gateway.ledger.inbox import EventKey
from policies.billing_options import BillingOptions
from tests.support.fake_stripe.face import FakeStripe
from tests.support.inbox import TEST, jobs, some_event
from tests.support.stripe_shop import Shop, client_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import pytest

    from tests.support.api import Api, Tenant

PATH = "/v1/stripe/events"


async def kept(api: Api, tenant: Tenant, *events: str, **fields: Any) -> None:
    for event in events:
        await api.services.events.receive(tenant.platform_id, TEST, [some_event(event, **fields)])


@pytest_asyncio.fixture
async def shop(api: Api, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Shop]:
    async with FakeStripe.running() as fake, client_of(fake) as client:
        monkeypatch.setenv("THEIR_STRIPE_KEY", fake.api_key)
        table = StripeTable("env:THEIR_STRIPE_KEY", (), None, BillingOptions(api_base=fake.url))
        await api.ledger.save_stripe_settings(
            api.demo.platform_id, table, livemode=False, managed_by="config"
        )
        yield Shop(fake, client)


async def test_the_list_is_newest_first_in_pages_and_the_platforms_own(api: Api) -> None:
    await kept(api, api.demo, *(f"evt_{number}" for number in range(5)))
    await kept(api, api.other, "evt_foreign")
    viewer, found, cursor = api.as_("viewer"), [], None
    while True:
        page = await viewer.get(PATH, limit=2, cursor=cursor)
        assert page.status == 200
        found += [event["id"] for event in page.body["data"]]
        cursor = page.body["next_cursor"]
        if cursor is None:
            break
    assert found == [f"evt_{number}" for number in reversed(range(5))]


async def test_events_are_found_by_status_type_and_object(api: Api) -> None:
    await kept(api, api.demo, "evt_1")
    await kept(api, api.demo, "evt_2", type="charge.refunded", object_id="ch_1")
    key = EventKey(api.demo.platform_id, TEST, "evt_1")
    await api.ledger.mark_stripe_event(key, "parked", 10, "the customer is nobody's")

    async def found(**query: str) -> list[str]:
        page = await api.as_("viewer").get(PATH, **query)
        return [event["id"] for event in page.body["data"]]

    assert await found(status="parked") == ["evt_1"]
    assert await found(type="charge.refunded") == ["evt_2"]
    assert await found(object_id="ch_1", status="waiting") == ["evt_2"]
    assert await found(object_id="ch_1", status="done") == []
    wrong = await api.as_("viewer").get(PATH, status="lost")
    assert (wrong.status, list(wrong.wrong)) == (422, ["status"])


async def test_an_event_says_what_came_of_it_and_what_stripe_sent(api: Api) -> None:
    await kept(api, api.demo, "evt_1")
    key = EventKey(api.demo.platform_id, TEST, "evt_1")
    await api.ledger.mark_stripe_event(key, "parked", 10, "the customer is nobody's")
    answer = await api.as_("viewer").get(f"{PATH}/evt_1")
    assert answer.status == 200
    told = {**answer.body}
    assert told.pop("received_at") > "2026"
    assert told == {
        "id": "evt_1",
        "type": "invoice.paid",
        "object_id": "in_1",
        "livemode": False,
        "shape": "snapshot",
        "source": "webhook",
        "status": "parked",
        "attempts": 10,
        "problem": "the customer is nobody's",
        "created_at": "2023-11-14T22:13:20.000Z",
        "done_at": None,
        "payload": {"id": "evt_1", "type": "invoice.paid", "data": {"object": {"id": "in_1"}}},
    }
    foreign = await api.as_("owner", api.other).get(f"{PATH}/evt_1")
    assert (foreign.status, foreign.code) == (404, "not_found")


async def test_a_replayed_event_waits_again(api: Api) -> None:
    await kept(api, api.demo, "evt_1")
    key = EventKey(api.demo.platform_id, TEST, "evt_1")
    await api.ledger.mark_stripe_event(key, "parked", 10, "mend it")
    answer = await api.as_("editor").post(f"{PATH}/evt_1/replay")
    assert (answer.status, answer.body["status"], answer.body["attempts"]) == (200, "waiting", 0)
    assert answer.body["problem"] is None
    assert await jobs(api.postgres_url) == {key.text: "queued"}
    for tenant, event in ((api.other, "evt_1"), (api.demo, "evt_none")):
        missing = await api.as_("editor", tenant).post(f"{PATH}/{event}/replay")
        assert (missing.status, missing.code) == (404, "not_found")


async def test_without_stripe_there_is_nothing_to_reconcile_with(api: Api) -> None:
    answer = await api.as_("editor").post("/v1/stripe/reconcile", {})
    assert (answer.status, answer.code) == (409, "stripe_not_set_up")
    assert "stripe set" in answer.body["detail"]


async def test_reconciling_finds_what_never_came_and_the_second_time_nothing(
    api: Api, shop: Shop
) -> None:
    await shop.v1.customers.delete_async(await shop.customer())
    first = await api.as_("editor").post("/v1/stripe/reconcile", {"days": 40})
    assert (first.status, first.body["events_added"]) == (200, 1)
    assert first.body["next_cursor"] is None
    listed = await api.as_("viewer").get(PATH)
    assert [(one["type"], one["source"]) for one in listed.body["data"]] == [
        ("customer.deleted", "reconcile")
    ]
    again = await api.as_("editor").post("/v1/stripe/reconcile", {"days": 40})
    assert again.body == first.body | {"events_added": 0}


async def test_a_long_reconciliation_goes_on_where_it_ended(
    api: Api, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.control.stripe_events.endpoints.RECONCILE_S", 0.0)
    await shop.customer()
    seen, cursor, answers = 0, None, 0
    while answers < 5:
        wish = {} if cursor is None else {"cursor": cursor}
        answer = await api.as_("editor").post("/v1/stripe/reconcile", wish)
        answers += 1
        seen += answer.body["events_seen"]
        cursor = answer.body["next_cursor"]
        if cursor is None:
            break
    assert (seen, answers) == (1, 2)
    wrong = await api.as_("editor").post("/v1/stripe/reconcile", {"cursor": "WyJ4IiwiIl0"})
    assert (wrong.status, list(wrong.wrong)) == (422, ["cursor"])


async def test_stripe_that_does_not_answer_is_503(api: Api, shop: Shop) -> None:
    shop.fake.fail_next(10)
    answer = await api.as_("editor").post("/v1/stripe/reconcile", {})
    assert (answer.status, answer.code) == (503, "temporarily_unavailable")
