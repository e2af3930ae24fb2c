"""`/v1/me/subscription` and its like, by status."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from tests.support.stripe_desk import THANKS, opened_desk

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.api import Api, Client
    from tests.support.stripe_desk import StripeDesk

OWN = "/v1/me/subscription"


@pytest_asyncio.fixture
async def desk(api: Api) -> AsyncIterator[StripeDesk]:
    async with opened_desk(api) as opened:
        yield opened


async def subscribed(desk: StripeDesk, plan: str = "pro", **more: Any) -> Client:
    """An admin of the account, which has subscribed."""
    admin = desk.api.as_("admin")
    page = await admin.post("/v1/subscribe", {"plan": plan, **more})
    assert page.status == 200, page.body
    await desk.pay(page.body)
    return admin


async def test_200_who_subscribes_has_the_plan_when_it_is_paid(desk: StripeDesk) -> None:
    admin = await subscribed(desk)
    found = (await admin.get(OWN)).body

    assert (found["plan"], found["status"], found["renewed_by"]) == (
        "pro",
        "active",
        "subscription",
    )
    assert (found["credits_total"], found["credits_left"]) == ("1000", "1000")
    assert found["other_credits_left"] == "100"
    assert (found["price"], found["currency"], found["interval"]) == ("20.00", "usd", "month")
    assert found["mode"] == "test"
    assert found["renews_at"] == found["credits_renew_at"]
    assert (found["cancel_at"], found["scheduled_change"], found["payment_problem"]) == (None,) * 3
    assert (await desk.api.as_("viewer").get(owned(desk, "subscription"))).body == found


async def test_200_a_change_is_answered_with_what_it_is_then(desk: StripeDesk) -> None:
    admin = await subscribed(desk)
    up = await admin.post(f"{OWN}/change", {"plan": "max"})
    down = await admin.post(f"{OWN}/change", {"plan": "pro"})
    undone = await admin.post(f"{OWN}/change/undo")

    assert (up.body["result"], up.body["subscription"]["plan"]) == ("done", "max")
    assert up.body["subscription"]["credits_left"] == "5000"
    assert down.body["result"] == "scheduled"
    assert down.body["subscription"]["scheduled_change"] == {
        "plan": "pro",
        "interval": "month",
        "months": 1,
        "quantity": 1,
        "price": "20.00",
        "at": down.body["effective_at"],
    }
    assert (undone.body["result"], undone.body["subscription"]["scheduled_change"]) == (
        "done",
        None,
    )


async def test_200_a_change_that_is_not_paid_says_where_to_pay(desk: StripeDesk) -> None:
    admin = await subscribed(desk)
    customer = desk.fake.store.all("customer")[0]["id"]
    desk.fake.set_card(customer, "fails")
    answer = (await admin.post(f"{OWN}/change", {"quantity": 2})).body

    assert (answer["result"], answer["effective_at"]) == ("needs_payment", None)
    assert answer["payment_url"].startswith("http")
    assert answer["subscription"]["quantity"] == 1


async def test_200_cancelling_says_until_when_and_resuming_undoes_it(desk: StripeDesk) -> None:
    admin = await subscribed(desk)
    renews_at = (await admin.get(OWN)).body["renews_at"]
    cancelled = (await admin.post(f"{OWN}/cancel")).body
    resumed = (await admin.post(f"{OWN}/resume")).body

    assert cancelled["effective_until"] == cancelled["subscription"]["cancel_at"] == renews_at
    assert cancelled["subscription"]["renews_at"] is None
    assert (resumed["renews_at"], resumed["cancel_at"]) == (renews_at, None)


async def test_200_a_pack_is_bought_beside_the_plan(desk: StripeDesk) -> None:
    admin = desk.api.as_("admin")
    page = await admin.post("/v1/me/packs", {"pack": "small", "quantity": 2})
    await desk.pay(page.body)

    assert (await admin.get(OWN)).body["other_credits_left"] == "700"
    payments = (await admin.get("/v1/me/transactions")).body["data"]
    assert [(one["kind"], one["amount"], one["mode"]) for one in payments] == [
        ("pack", "30.00", "test")
    ]


async def test_200_a_platforms_people_do_the_same_for_an_account(desk: StripeDesk) -> None:
    editor = desk.api.as_("editor")
    page = await editor.post(owned(desk, "subscribe"), {"plan": "pro", "success_url": THANKS})
    await desk.pay(page.body)
    changed = await editor.post(owned(desk, "subscription/change"), {"quantity": 2})
    cancelled = await editor.post(owned(desk, "subscription/cancel"))
    resumed = await editor.post(owned(desk, "subscription/resume"))
    portal = await editor.post(owned(desk, "portal"), {"return_url": THANKS})

    assert [page.status, changed.status, cancelled.status, resumed.status, portal.status] == [
        200
    ] * 5
    assert resumed.body["quantity"] == 2
    assert portal.body["url"].startswith(desk.fake.url)


async def test_200_a_repeated_request_is_answered_the_same_and_makes_one_page(
    desk: StripeDesk,
) -> None:
    admin = desk.api.as_("admin")
    headers = {"Idempotency-Key": "one"}
    first, again = [
        await admin.post("/v1/subscribe", {"plan": "pro"}, headers=headers) for _ in range(2)
    ]

    assert first.body == again.body
    assert len(desk.fake.store.all("checkout.session")) == 1


async def test_200_without_stripe_the_plan_is_the_clocks(api: Api) -> None:
    account = api.demo.account.account_id
    await api.as_("editor").patch(f"/v1/accounts/{account}", {"plan": "pro"})
    found = (await api.as_key().get(OWN)).body

    assert (found["plan"], found["status"], found["renewed_by"]) == ("pro", "active", "clock")
    assert (found["credits_total"], found["credits_left"]) == ("1000", "1000")
    assert found["renews_at"] == found["credits_renew_at"]
    assert found["renews_at"] is not None
    assert (found["subscription_id"], found["mode"], found["price"]) == (None, None, None)


async def test_200_an_account_without_a_plan_has_none(api: Api) -> None:
    found = (await api.as_key().get(OWN)).body

    assert (found["plan"], found["status"], found["renewed_by"]) == (None, "none", None)
    assert (found["renews_at"], found["other_credits_left"]) == (None, "100")


WORKS: dict[str, dict[str, Any] | None] = {
    "/v1/subscribe": {"plan": "pro"},
    "/v1/me/packs": {"pack": "small"},
    "/v1/me/portal": {},
    f"{OWN}/change": {"plan": "pro"},
    f"{OWN}/change/undo": None,
    f"{OWN}/cancel": None,
    f"{OWN}/resume": None,
}


@pytest.mark.parametrize("path", WORKS)
async def test_409_without_stripe_each_says_what_to_set(api: Api, path: str) -> None:
    answer = await api.as_("admin").post(path, WORKS[path])

    assert (answer.status, answer.code) == (409, "stripe_not_set_up")
    assert "tollkeeper stripe set" in answer.body["detail"]


async def test_409_who_has_a_subscription_changes_it(desk: StripeDesk) -> None:
    admin = await subscribed(desk)
    answer = await admin.post("/v1/subscribe", {"plan": "max"})

    assert (answer.status, answer.code) == (409, "already_subscribed")


async def test_409_what_stripe_refuses_is_said_in_its_words(desk: StripeDesk) -> None:
    await desk.rows.sql("UPDATE stripe_prices SET price_id = 'price_gone' WHERE unit_amount = 2000")
    answer = await desk.api.as_("admin").post("/v1/subscribe", {"plan": "pro"})

    assert (answer.status, answer.code) == (409, "stripe_refused")
    assert "price_gone" in answer.body["detail"]


async def test_503_while_stripe_does_not_answer(desk: StripeDesk) -> None:
    desk.fake.fail_next(100)
    answer = await desk.api.as_("admin").post("/v1/subscribe", {"plan": "pro"})

    assert (answer.status, answer.code) == (503, "temporarily_unavailable")
    assert "Retry-After" in answer.headers


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"plan": "nothing"}, "plan"),
        ({"plan": "pro", "interval": "week"}, "interval"),
        ({"plan": "pro", "quantity": 0}, "quantity"),
        ({"plan": "pro", "success_url": "javascript:alert(1)"}, "success_url"),
        ({"plan": "pro", "email": "nobody"}, "email"),
        ({"plan": "pro", "currency": "euro"}, "currency"),
        ({}, "plan"),
    ],
)
async def test_422_wrong_fields_are_named(
    desk: StripeDesk, body: dict[str, Any], field: str
) -> None:
    answer = await desk.api.as_("admin").post("/v1/subscribe", body)

    assert answer.status == 422
    assert set(answer.wrong) == {field}


async def test_422_a_change_says_what_is_to_be_different(desk: StripeDesk) -> None:
    assert (await desk.api.as_("admin").post(f"{OWN}/change", {})).status == 422


async def test_404_another_platforms_account_is_not_there(desk: StripeDesk) -> None:
    foreign = desk.api.other.account.account_id
    for path, body in (("cancel", None), ("change", {"plan": "pro"}), ("resume", None)):
        where = f"/v1/accounts/{foreign}/subscription/{path}"
        assert (await desk.api.as_("editor").post(where, body)).status == 404
    assert (await desk.api.as_("viewer").get(f"/v1/accounts/{foreign}/subscription")).status == 404


def owned(desk: StripeDesk, rest: str) -> str:
    """What an owner has of the account."""
    return f"/v1/accounts/{desk.api.demo.account.account_id}/{rest}"
