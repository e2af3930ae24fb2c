"""The API's edges, as Stripe has them: keys, modes, parameters, idempotency, trouble, pages."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import aiohttp
import pytest
import stripe

from tests.support.stripe_shop import client_of
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from tests.support.stripe_shop import Shop


async def raw(shop: Shop, method: str, path: str, **how: object) -> tuple[int, dict[str, object]]:
    headers = {"Authorization": f"Bearer {shop.fake.api_key}"}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.request(method, shop.fake.url + path, **how) as answer,  # type: ignore[arg-type]
    ):
        return answer.status, await answer.json()


async def test_400_for_a_parameter_that_stripe_has_not_names_it(shop: Shop) -> None:
    with pytest.raises(stripe.InvalidRequestError) as caught:
        await shop.v1.subscriptions.create_async({"customer": "cus_x", "coupon": "TEN"})
    assert caught.value.http_status == 400
    assert caught.value.code == "parameter_unknown"
    assert caught.value.param == "coupon"


async def test_400_for_an_unknown_parameter_within_another(shop: Shop) -> None:
    with pytest.raises(stripe.InvalidRequestError, match="items\\[0\\]\\[plan\\]"):
        await shop.v1.subscriptions.create_async({"customer": "c", "items": [{"plan": "x"}]})


@pytest.mark.parametrize(
    "form",
    ["name", "a[=1", "a]=1", "name=x&name=y", "name[a]=1&name=2", "[x]=1", "metadata[a][b]=1"],
)
async def test_400_for_a_form_that_no_client_sends(shop: Shop, form: str) -> None:
    status, body = await raw(
        shop,
        "POST",
        "/v1/customers",
        data=form,
        headers={"Content-Type": "application/x-www-form-urlencoded"},
    )
    assert status == 400, body


async def test_a_key_gets_in_as_a_bearers_token_or_as_the_name_of_basic(shop: Shop) -> None:
    customer = await shop.customer()
    url = f"{shop.fake.url}/v1/customers"

    async def found(key: str) -> tuple[int, list[str]]:
        headers = {"Authorization": aiohttp.encode_basic_auth(key, "")}
        async with (
            aiohttp.ClientSession(headers=headers) as session,
            session.get(url) as answer,
        ):
            listed = (await answer.json()).get("data", [])
            return answer.status, [each["id"] for each in listed]

    assert await found(shop.fake.api_key) == (200, [customer])
    assert await found(shop.fake.live_api_key) == (200, [])
    assert await found("sk_test_wrong") == (401, [])


@pytest.mark.parametrize("sent", ["", "Basic", "Basic !", "Basic /w==", "Digest x"])
async def test_401_for_what_is_no_key(shop: Shop, sent: str) -> None:
    status, _ = await raw(shop, "GET", "/v1/customers", headers={"Authorization": sent})
    assert status == 401


async def test_401_for_another_key(shop: Shop) -> None:
    async with client_of(shop.fake, "sk_test_wrong") as client:
        with pytest.raises(stripe.AuthenticationError):
            await client.v1.customers.list_async()


async def test_403_for_a_connected_account(shop: Shop) -> None:
    with pytest.raises(stripe.PermissionError):
        await shop.v1.customers.list_async(options={"stripe_account": "acct_other"})


async def test_404_for_a_path_that_the_fake_has_not(shop: Shop) -> None:
    status, body = await raw(shop, "GET", "/v1/tax_rates")
    assert status == 404
    assert "Unrecognized request URL (GET: /v1/tax_rates)" in str(body)


async def test_404_for_an_object_that_is_not_there_and_400_where_it_is_a_parameter(
    shop: Shop,
) -> None:
    with pytest.raises(stripe.InvalidRequestError) as caught:
        await shop.v1.prices.retrieve_async("price_no")
    assert (caught.value.http_status, caught.value.code) == (404, "resource_missing")
    with pytest.raises(stripe.InvalidRequestError) as caught:
        await shop.v1.prices.create_async(
            {"product": "prod_no", "currency": "usd", "unit_amount": 1}
        )
    assert (caught.value.http_status, caught.value.param) == (400, "product")


async def test_objects_of_one_mode_are_not_there_in_the_other(shop: Shop) -> None:
    customer = await shop.customer()
    async with client_of(shop.fake, shop.fake.live_api_key) as live:
        with pytest.raises(stripe.InvalidRequestError, match="No such customer"):
            await live.v1.customers.retrieve_async(customer)
        made = await live.v1.customers.create_async({})
        assert made.livemode is True
        assert [each.livemode for each in (await live.v1.events.list_async()).data] == [True]
    assert [each.id for each in (await shop.v1.customers.list_async()).data] == [customer]


async def test_one_idempotency_key_makes_one_object(shop: Shop) -> None:
    options = {"idempotency_key": "k1"}
    first = await shop.v1.customers.create_async({"name": "Ann"}, options=options)
    second = await shop.v1.customers.create_async({"name": "Ann"}, options=options)
    assert first.id == second.id
    assert second.last_response.headers["Idempotent-Replayed"] == "true"
    assert len((await shop.v1.customers.list_async()).data) == 1
    assert [request.replayed for request in shop.fake.requests][:2] == [False, True]


async def test_400_for_an_idempotency_key_with_other_parameters(shop: Shop) -> None:
    options = {"idempotency_key": "k1"}
    await shop.v1.customers.create_async({"name": "Ann"}, options=options)
    with pytest.raises(stripe.IdempotencyError, match="same parameters"):
        await shop.v1.customers.create_async({"name": "Bob"}, options=options)


async def test_409_for_an_idempotency_key_whose_first_call_still_runs(shop: Shop) -> None:
    options = {"idempotency_key": "k1"}
    shop.fake.hold_answers()
    first = asyncio.create_task(shop.v1.customers.create_async({"name": "Ann"}, options=options))
    await eventually(lambda: shop.fake.store.all("customer"))
    with pytest.raises(stripe.APIError) as caught:
        await shop.v1.customers.create_async({"name": "Ann"}, options=options)
    assert caught.value.http_status == 409
    with pytest.raises(stripe.IdempotencyError, match="same parameters"):
        await shop.v1.customers.create_async({"name": "Bob"}, options=options)
    shop.fake.release_answers()
    made = await first
    assert made.name == "Ann"
    again = await shop.v1.customers.create_async({"name": "Ann"}, options=options)
    assert again.id == made.id


async def test_a_key_is_free_again_after_a_day_and_after_a_refusal(shop: Shop) -> None:
    options = {"idempotency_key": "k1"}
    with pytest.raises(stripe.InvalidRequestError):
        await shop.v1.products.create_async({}, options=options)
    first = await shop.v1.products.create_async({"name": "Pro"}, options=options)
    await shop.fake.advance(days=1)
    second = await shop.v1.products.create_async({"name": "Max"}, options=options)
    assert first.id != second.id


async def test_what_was_done_before_the_answer_was_lost_is_not_done_again(shop: Shop) -> None:
    shop.fake.fail_next(1, "disconnect", after=True)
    with pytest.raises(stripe.APIConnectionError):
        await shop.v1.customers.create_async({"name": "Ann"}, options={"idempotency_key": "k"})
    made = await shop.v1.customers.create_async({"name": "Ann"}, options={"idempotency_key": "k"})
    assert [each["id"] for each in shop.fake.store.all("customer")] == [made.id]


@pytest.mark.parametrize(
    ("status", "error"), [(500, stripe.APIError), (429, stripe.RateLimitError)]
)
async def test_trouble_comes_as_often_as_asked_and_nothing_is_done(
    shop: Shop, status: int, error: type[Exception]
) -> None:
    shop.fake.fail_next(2, status)
    for _ in range(2):
        with pytest.raises(error):
            await shop.v1.customers.create_async({})
    assert shop.fake.store.all("customer") == []
    await shop.v1.customers.create_async({})


async def test_pages_go_both_ways_through_a_list(shop: Shop) -> None:
    made = [await shop.customer() for _ in range(5)][::-1]
    first = await shop.v1.customers.list_async({"limit": 2})
    assert ([each.id for each in first.data], first.has_more) == (made[:2], True)
    last = await shop.v1.customers.list_async({"limit": 3, "starting_after": made[1]})
    assert ([each.id for each in last.data], last.has_more) == (made[2:], False)
    back = await shop.v1.customers.list_async({"limit": 2, "ending_before": made[4]})
    assert ([each.id for each in back.data], back.has_more) == (made[2:4], True)
    assert [each.id async for each in first.auto_paging_iter()] == made


async def test_400_for_pages_that_can_not_be(shop: Shop) -> None:
    for params in ({"limit": 101}, {"limit": 0}, {"starting_after": "cus_no"}):
        with pytest.raises(stripe.InvalidRequestError):
            await shop.v1.customers.list_async(params)


async def test_ids_are_expanded_in_lists_and_nested(shop: Shop) -> None:
    price = await shop.price(1000, "month")
    await shop.subscribe(price)
    found = await shop.v1.subscriptions.list_async(
        {"expand": ["data.customer", "data.latest_invoice.payments.data.payment.payment_intent"]}
    )
    assert found.data[0].customer.email == "pat@example.com"
    paid = found.data[0].latest_invoice.payments.data[0]
    assert paid.payment.payment_intent.amount == 1000
    with pytest.raises(stripe.InvalidRequestError, match="cannot be expanded"):
        await shop.v1.subscriptions.list_async({"expand": ["data.charge"]})


async def test_metadata_is_merged_and_unset(shop: Shop) -> None:
    customer = await shop.customer(metadata={"a": "1", "b": "2", "_c": "3"})

    async def after(value: object) -> dict[str, str]:
        changed = await shop.v1.customers.update_async(customer, {"metadata": value})
        return dict(changed.metadata.to_dict())

    assert await after({"b": "", "d": "4"}) == {"a": "1", "_c": "3", "d": "4"}
    assert await after("") == {}


async def test_the_account_says_whose_keys_they_are(shop: Shop) -> None:
    account = await shop.v1.accounts.retrieve_current_async()
    assert account.id == shop.fake.store.account_id


async def test_400_for_another_version_of_the_api(shop: Shop) -> None:
    with pytest.raises(stripe.InvalidRequestError, match="endive only"):
        await shop.v1.customers.list_async(options={"stripe_version": "2020-08-27"})


async def test_trouble_can_be_for_some_paths_alone(shop: Shop) -> None:
    shop.fake.fail_next(1, 500, path="/v1/prices")
    await shop.customer()
    with pytest.raises(stripe.APIError):
        await shop.v1.prices.list_async()
    await shop.v1.prices.list_async()


async def test_a_customer_shows_its_running_subscriptions_when_asked(shop: Shop) -> None:
    session = await shop.subscribe(await shop.price(1000, "month"))
    customer = await shop.v1.customers.retrieve_async(
        session["customer"], {"expand": ["subscriptions"]}
    )
    assert [each.id for each in customer.subscriptions.data] == [session["subscription"]]
