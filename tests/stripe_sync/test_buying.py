"""Stripe's pages are opened for the right account, once, and for what is really sold."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from gateway.operations.errors import ConflictError, DocumentError
from gateway.stripe_sync.buyers import customer_for
from gateway.stripe_sync.checkout import Order, buy_pack, subscribe
from gateway.stripe_sync.errors import StripeUnavailableError
from gateway.stripe_sync.portal import open_portal
from tests.support.market import opened_market

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.stripe_sync.checkout import Checkout
    from tests.support.fake_stripe.store import Object
    from tests.support.market import Market

THANKS = "https://shop.example/thanks"


@pytest_asyncio.fixture
async def market(clean_redis_url: str, postgres_url: str) -> AsyncIterator[Market]:
    async with opened_market(clean_redis_url, postgres_url, success_url=THANKS) as opened:
        yield opened


def order(slug: str = "pro", once: str = "1", **more: Any) -> Order:
    return Order(**{"slug": slug, "quantity": 1, "once": once, "months": 1, **more})


def session_of(market: Market, page: Checkout) -> Object:
    return market.fake.store.get("checkout.session", page.session_id)


async def test_what_is_paid_on_the_page_is_the_accounts(market: Market) -> None:
    page = await subscribe(market.sync, market.caller.account, order(quantity=2))
    market.fake.complete_checkout(page.session_id)
    await market.catch_up()

    assert page.url.startswith(market.fake.url)
    assert await market.standing() == ("pro", "subscription", False)
    assert await market.balance() == 2_000


async def test_everything_made_at_stripe_says_whose_it_is(market: Market) -> None:
    page = await subscribe(market.sync, market.caller.account, order(email="ada@example.com"))
    market.fake.complete_checkout(page.session_id)
    session = session_of(market, page)
    customer = market.fake.store.get("customer", session["customer"])
    subscription = market.fake.store.get("subscription", session["subscription"])

    whose = {"tollkeeper_account": str(market.account_id), "tollkeeper_platform": "demo"}
    assert session["client_reference_id"] == str(market.account_id)
    assert session["metadata"] == customer["metadata"] == subscription["metadata"] == whose
    assert (customer["name"], customer["email"]) == ("alice", "ada@example.com")
    assert session["success_url"] == THANKS
    assert session["allow_promotion_codes"] is True


async def test_a_pack_is_bought_in_any_number_and_its_payment_says_whose_it_is(
    market: Market,
) -> None:
    page = await buy_pack(market.sync, market.caller.account, order("small", quantity=3))
    market.fake.complete_checkout(page.session_id)
    await market.catch_up()
    intent = market.fake.store.get("payment_intent", session_of(market, page)["payment_intent"])

    assert await market.balance() == 900
    assert intent["metadata"]["tollkeeper_account"] == str(market.account_id)
    assert await market.payments() == [("pack", "succeeded", 4_500)]


async def test_requests_at_once_make_one_customer(market: Market) -> None:
    account = market.caller.account
    made = await asyncio.gather(*(customer_for(market.sync, account) for _ in range(5)))

    assert len(set(made)) == 1
    assert [one["id"] for one in market.fake.store.all("customer")] == [made[0]]


async def test_a_death_before_the_customer_was_written_down_makes_no_second_one(
    market: Market,
) -> None:
    first = await customer_for(market.sync, market.caller.account)
    await market.sql("DELETE FROM stripe_customers")

    again = await customer_for(market.sync, market.caller.account, "ada@example.com")

    assert again == first
    assert len(market.fake.store.all("customer")) == 1


async def test_an_account_whose_customer_was_deleted_becomes_another_one(market: Market) -> None:
    first = await customer_for(market.sync, market.caller.account)
    await market.shop.v1.customers.delete_async(first)  # and its event is still on its way

    page = await subscribe(market.sync, market.caller.account, order())

    assert session_of(market, page)["customer"] != first


async def test_the_same_request_again_opens_the_same_page(market: Market) -> None:
    account = market.caller.account
    first = await subscribe(market.sync, account, order(once="a"))

    assert await subscribe(market.sync, account, order(once="a")) == first
    assert (await subscribe(market.sync, account, order(once="b"))).session_id != first.session_id


async def test_whoever_has_a_subscription_is_told_to_change_it(market: Market) -> None:
    """As Stripe has it, whether or not the books have heard of it."""
    page = await subscribe(market.sync, market.caller.account, order())
    market.fake.complete_checkout(page.session_id)

    with pytest.raises(ConflictError) as refused:
        await subscribe(market.sync, market.caller.account, order("max", "2"))

    assert refused.value.code == "already_subscribed"


async def test_a_subscription_to_something_else_of_the_shops_is_no_obstacle(
    market: Market,
) -> None:
    other = await market.shop.price(500, "month")
    customer = await customer_for(market.sync, market.caller.account)
    market.fake.set_card(customer, "works")
    await market.shop.v1.subscriptions.create_async(
        {"customer": customer, "items": [{"price": other}]}
    )

    assert await subscribe(market.sync, market.caller.account, order())


async def test_only_the_first_subscription_begins_with_a_trial(market: Market) -> None:
    await market.sql("""UPDATE plans SET spec = spec || '{"trial_days": 7}' WHERE slug = 'try'""")
    account = market.caller.account
    page = await subscribe(market.sync, account, order("try"))
    market.fake.complete_checkout(page.session_id)
    session = session_of(market, page)
    await market.catch_up()
    assert market.fake.store.get("subscription", session["subscription"])["status"] == "trialing"
    assert await market.balance() == 50

    await market.shop.v1.subscriptions.cancel_async(session["subscription"])
    page = await subscribe(market.sync, account, order("try", "2"))
    market.fake.complete_checkout(page.session_id)

    second = market.fake.store.get("subscription", session_of(market, page)["subscription"])
    assert second["status"] == "active"


async def test_tax_and_promotion_codes_are_as_the_platform_says(
    clean_redis_url: str, postgres_url: str
) -> None:
    options: dict[str, Any] = {"automatic_tax": True, "promotion_codes": False}
    async with opened_market(
        clean_redis_url, postgres_url, success_url=THANKS, **options
    ) as market:
        page = await subscribe(market.sync, market.caller.account, order())
        session = session_of(market, page)

    assert session["automatic_tax"]["enabled"] is True
    assert session["allow_promotion_codes"] is False


@pytest.mark.parametrize(
    ("change", "slug", "more", "code", "told"),
    [
        (None, "year", {}, "no_price", "a year"),
        ("UPDATE stripe_products SET problem = 'credits: 12x is no amount'", "pro", {}, "product_parked", "12x"),  # noqa: E501
        ("UPDATE stripe_products SET active = false", "pro", {}, "not_for_sale", "is archived at Stripe"),  # noqa: E501
        ("UPDATE stripe_prices SET active = false", "pro", {}, "no_price", "nothing that recurs"),
        (None, "free", {}, "not_for_sale", "to cancel one leads to it"),
        ("UPDATE platforms SET signup_plan = NULL", "free", {}, "not_for_sale", "give it a price and run"),  # noqa: E501
        ("WITH none AS (UPDATE platforms SET signup_plan = NULL) UPDATE plans SET spec = spec || '{\"prices\": [[1, \"usd\", 900]]}'", "free", {}, "not_for_sale", 'it: run "tollkeeper stripe plan-push"'),  # noqa: E501
        (None, "pro", {"currency": "eur"}, "no_price", "usd"),
        ("UPDATE stripe_prices SET currency = 'eur' WHERE months = 12", "pro", {"months": 1}, None, ""),  # noqa: E501
        ("UPDATE accounts SET status = 'suspended'", "pro", {}, "account_suspended", ""),
    ],
)  # fmt: skip
async def test_what_is_not_sold_is_refused_with_the_reason(
    market: Market, change: str | None, slug: str, more: dict[str, Any], code: str | None, told: str
) -> None:
    if change is not None:
        await market.sql(change)
    account = await market.ledger.account(market.deployment.platform_id, market.account_id)
    assert account is not None
    if code is None:
        assert await subscribe(market.sync, account, order(slug, **more))
        return
    with pytest.raises(ConflictError) as refused:
        await subscribe(market.sync, account, order(slug, **more))

    assert refused.value.code == code
    assert told in str(refused.value)
    assert market.fake.store.all("checkout.session") == []


async def test_a_price_in_several_currencies_needs_one_to_be_named(market: Market) -> None:
    await market.sql(
        "INSERT INTO stripe_prices (platform_id, livemode, price_id, product_id, active, currency,"
        " unit_amount, months) SELECT platform_id, livemode, 'price_eur', product_id, true, 'eur',"
        " 1900, 1 FROM stripe_prices WHERE price_id = $1",
        market.prices["pro", "month"],
    )
    with pytest.raises(ConflictError) as refused:
        await subscribe(market.sync, market.caller.account, order())

    assert refused.value.code == "currency_needed"
    assert await subscribe(market.sync, market.caller.account, order(currency="usd"))


@pytest.mark.parametrize(
    "url",
    ["javascript:alert(1)", "ftp://shop.example", "https://", "/thanks", "https://a b.example"],
)
@pytest.mark.parametrize("field", ["success_url", "cancel_url"])
async def test_payers_are_sent_to_web_pages_only(market: Market, url: str, field: str) -> None:
    with pytest.raises(DocumentError) as refused:
        await subscribe(market.sync, market.caller.account, order(**{field: url}))
    with pytest.raises(DocumentError):
        await open_portal(market.sync, market.caller.account, url)

    assert [problem.where for problem in refused.value.problems] == [field]


async def test_a_plan_or_pack_that_is_not_there_is_a_wrong_field(market: Market) -> None:
    with pytest.raises(DocumentError) as no_plan:
        await subscribe(market.sync, market.caller.account, order("nothing"))
    with pytest.raises(DocumentError) as no_pack:
        await buy_pack(market.sync, market.caller.account, order("pro"))

    assert no_plan.value.problems[0].where == "plan"
    assert no_pack.value.problems[0].where == "pack"


async def test_without_any_success_url_one_is_asked_for(
    clean_redis_url: str, postgres_url: str
) -> None:
    async with opened_market(clean_redis_url, postgres_url) as market:
        with pytest.raises(DocumentError, match="success_url"):
            await subscribe(market.sync, market.caller.account, order())
        assert await subscribe(market.sync, market.caller.account, order(success_url=THANKS))


async def test_the_portal_opens_for_who_has_bought_something(market: Market) -> None:
    account = market.caller.account
    with pytest.raises(ConflictError) as refused:
        await open_portal(market.sync, account, None)
    await subscribe(market.sync, account, order())

    assert refused.value.code == "nothing_bought"
    assert (await open_portal(market.sync, account, THANKS)).startswith(market.fake.url)


async def test_trouble_at_stripe_leaves_nothing_behind_that_a_repetition_would_trip_over(
    market: Market,
) -> None:
    account = market.caller.account
    market.fake.fail_next(50, status=500)
    with pytest.raises(StripeUnavailableError):
        await subscribe(market.sync, account, order())
    market.fake.api.trouble.clear()

    page = await subscribe(market.sync, account, order())
    market.fake.complete_checkout(page.session_id)
    await market.catch_up()

    assert len(market.fake.store.all("customer")) == 1
    assert await market.balance() == 1_000
