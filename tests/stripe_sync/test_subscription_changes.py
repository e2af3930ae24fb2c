"""A change of plan is paid first or waits for the next period, and can be taken back until then."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from gateway.ledger.periods import AccountChange
from gateway.ledger.stripe_products import StripePrice
from gateway.operations.errors import ConflictError
from gateway.operations.subscribed import subscribed_of
from gateway.stripe_sync.changes import (
    Live,
    Outcome,
    Target,
    Wanted,
    cancel,
    change,
    is_upgrade,
    resume,
    undo_change,
)
from policies.billing_options import DunningRules
from tests.support.market import DAY_S, opened_market

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.operations.subscribed import Subscribed
    from tests.support.fake_stripe.store import Object
    from tests.support.market import Market


@pytest_asyncio.fixture
async def market(clean_redis_url: str, postgres_url: str) -> AsyncIterator[Market]:
    """Who has subscribed five days ago."""
    async with opened_market(clean_redis_url, postgres_url, ago_s=5 * DAY_S) as opened:
        yield opened


@pytest_asyncio.fixture
async def past(clean_redis_url: str, postgres_url: str) -> AsyncIterator[Market]:
    """Stripe's clock begins 40 days ago, so that the next period has begun by now."""
    async with opened_market(clean_redis_url, postgres_url, ago_s=40 * DAY_S) as opened:
        yield opened


async def subscribed(market: Market, slug: str = "pro", **more: Any) -> str:
    """A subscription that the books know, five days old."""
    made = await market.subscribe(slug, **more)
    await market.fake.advance(days=1)
    await market.catch_up()
    return str(made.id)


async def changed(market: Market, once: str = "1", **wanted: Any) -> Outcome:
    return await change(market.sync, market.caller.account, Wanted(once, **wanted))


async def told(market: Market) -> Subscribed:
    """What the account is told of itself."""
    account = await market.ledger.account(market.deployment.platform_id, market.account_id)
    assert account is not None
    return await subscribed_of(
        market.ledger,
        market.deployment.counters,
        account,
        livemode=False,
        rules=DunningRules(),
    )


def at_stripe(market: Market, subscription_id: str) -> Object:
    return market.fake.store.get("subscription", subscription_id)


def item_of(subscription: Object) -> Object:
    (item,) = subscription["items"]["data"]
    found: Object = item
    return found


async def test_an_upgrade_is_paid_and_there_at_once(market: Market) -> None:
    """Without any event, what is told and what can be spent are true when it is answered."""
    subscription_id = await subscribed(market)
    outcome = await changed(market, plan_slug="max")

    found = await told(market)
    assert outcome.result == "done"
    assert (found.plan_slug, found.credits.total_microcredits) == ("max", 5_000_000_000)
    assert await market.balance() == 5_000
    assert item_of(at_stripe(market, subscription_id))["price"] == market.prices["max", "month"]
    await market.catch_up()
    assert await market.balance() == 5_000
    assert await market.findings() == []


async def test_more_of_the_same_is_an_upgrade(market: Market) -> None:
    await subscribed(market)

    assert (await changed(market, quantity=3)).result == "done"
    assert await market.balance() == 3_000


async def test_an_upgrade_that_is_not_paid_waits_for_it(market: Market) -> None:
    subscription_id = await subscribed(market)
    market.fake.set_card(market.customer_id, "fails")
    outcome = await changed(market, plan_slug="max")
    again = await changed(market, "2", plan_slug="max")

    assert outcome.result == "needs_payment"
    assert outcome.payment_url is not None
    assert again == outcome
    assert (await told(market)).plan_slug == "pro"
    assert await market.balance() == 1_000

    market.fake.set_card(market.customer_id, "works")
    invoice = at_stripe(market, subscription_id)["latest_invoice"]
    await market.shop.v1.invoices.pay_async(invoice)
    await market.catch_up()
    assert (await told(market)).plan_slug == "max"
    assert await market.balance() == 5_000


async def test_an_upgrade_that_is_not_paid_can_be_dropped(market: Market) -> None:
    subscription_id = await subscribed(market)
    market.fake.set_card(market.customer_id, "fails")
    await changed(market, plan_slug="max")
    invoice = at_stripe(market, subscription_id)["latest_invoice"]

    assert (await undo_change(market.sync, market.caller.account)).result == "done"
    assert market.fake.store.get("invoice", invoice)["status"] == "void"
    assert at_stripe(market, subscription_id)["pending_update"] is None
    assert (await undo_change(market.sync, market.caller.account)).result == "unchanged"


async def test_the_same_upgrade_again_is_not_billed_again(market: Market) -> None:
    await subscribed(market)
    first, second = await asyncio.gather(
        changed(market, "a", plan_slug="max"), changed(market, "b", plan_slug="max")
    )
    third = await changed(market, "c", plan_slug="max")
    await market.catch_up()

    assert sorted((first.result, second.result)) == ["done", "unchanged"]
    assert third.result == "unchanged"
    assert [kind for kind, *_ in await market.payments()].count("change") == 1
    assert await market.balance() == 5_000


async def test_a_downgrade_comes_with_the_next_period(past: Market) -> None:
    subscription_id = await subscribed(past, "max")
    period_end_s = item_of(at_stripe(past, subscription_id))["current_period_end"]
    outcome = await changed(past, plan_slug="pro")
    found = await told(past)

    assert outcome == Outcome("scheduled", period_end_s * 1_000)
    assert found.plan_slug == "max"
    assert found.facts is not None
    assert (found.facts.next_plan_slug, found.facts.next_ms) == ("pro", period_end_s * 1_000)

    await past.advance_to_now()
    await past.catch_up()
    after = await told(past)
    assert after.plan_slug == "pro"
    assert after.facts is not None
    assert after.facts.next_plan_slug is None
    assert await past.balance() == 1_000


async def test_a_downgrade_leaves_a_coupon_as_it_was(past: Market) -> None:
    coupon = await past.shop.v1.coupons.create_async({"percent_off": 50, "duration": "forever"})
    subscription_id = await subscribed(past, "max", discounts=[{"coupon": coupon.id}])
    await changed(past, plan_slug="pro")
    await past.advance_to_now()

    latest = past.fake.store.get("invoice", at_stripe(past, subscription_id)["latest_invoice"])
    assert latest["amount_paid"] == 1_000


async def test_a_scheduled_change_can_be_replaced_and_dropped(past: Market) -> None:
    subscription_id = await subscribed(past, "max", quantity=2)
    await changed(past, "1", plan_slug="pro")
    replaced = await changed(past, "2", plan_slug="max", quantity=1)
    found = await told(past)
    assert replaced.result == "scheduled"
    assert found.facts is not None
    assert (found.facts.next_plan_slug, found.facts.next_quantity) == ("max", 1)
    assert await changed(past, "3", plan_slug="max", quantity=1) == replaced

    dropped = await undo_change(past.sync, past.caller.account)
    found = await told(past)
    assert dropped.result == "done"
    assert found.facts is not None
    assert found.facts.next_ms is None

    await past.advance_to_now()
    item = item_of(at_stripe(past, subscription_id))
    assert (item["price"], item["quantity"]) == (past.prices["max", "month"], 2)


async def test_asking_for_what_it_is_drops_what_was_to_come(market: Market) -> None:
    subscription_id = await subscribed(market, "max")
    await changed(market, plan_slug="pro")

    assert (await changed(market, plan_slug="max")).result == "done"
    assert at_stripe(market, subscription_id)["schedule"] is None


async def test_an_upgrade_takes_the_place_of_a_scheduled_downgrade(market: Market) -> None:
    subscription_id = await subscribed(market, "pro", quantity=2)
    await changed(market, "1", quantity=1)

    assert (await changed(market, "2", plan_slug="max", quantity=2)).result == "done"
    assert at_stripe(market, subscription_id)["schedule"] is None
    assert await market.balance() == 10_000


async def test_a_year_is_a_downgrade_where_it_is_cheaper_by_the_month(market: Market) -> None:
    await subscribed(market)
    outcome = await changed(market, months=12)
    found = await told(market)

    assert outcome.result == "scheduled"
    assert found.facts is not None
    assert found.facts.next_price_id == market.prices["pro", "year"]


async def test_cancelling_ends_it_with_the_period_and_resuming_takes_that_back(
    past: Market,
) -> None:
    subscription_id = await subscribed(past)
    period_end_s = item_of(at_stripe(past, subscription_id))["current_period_end"]
    account = past.caller.account
    until_ms = await cancel(past.sync, account)
    found = await told(past)
    assert until_ms == await cancel(past.sync, account) == period_end_s * 1_000
    assert found.facts is not None
    assert (found.plan_slug, found.renews_ms, found.facts.cancel_ms) == ("pro", 0, until_ms)

    await resume(past.sync, account)
    await resume(past.sync, account)
    found = await told(past)
    assert found.facts is not None
    assert (found.renews_ms, found.facts.cancel_ms) == (until_ms, None)

    await cancel(past.sync, account)
    await past.advance_to_now()
    await past.catch_up()
    assert at_stripe(past, subscription_id)["status"] == "canceled"
    assert await past.standing() == ("free", "clock", False)


async def test_cancelling_drops_a_scheduled_change(market: Market) -> None:
    subscription_id = await subscribed(market, "max")
    await changed(market, plan_slug="pro")
    await cancel(market.sync, market.caller.account)

    subscription = at_stripe(market, subscription_id)
    assert subscription["schedule"] is None
    assert subscription["cancel_at_period_end"] is True


async def test_what_is_cancelled_is_resumed_before_it_is_changed(market: Market) -> None:
    await subscribed(market)
    await cancel(market.sync, market.caller.account)
    with pytest.raises(ConflictError) as refused:
        await changed(market, plan_slug="max")

    assert refused.value.code == "subscription_ending"


async def test_what_is_not_paid_for_can_not_be_changed_but_cancelled(past: Market) -> None:
    await subscribed(past)
    past.fake.set_card(past.customer_id, "fails")
    await past.fake.advance(days=31)
    await past.catch_up()
    with pytest.raises(ConflictError) as refused:
        await changed(past, plan_slug="max")
    found = await told(past)

    assert refused.value.code == "payment_overdue"
    assert found.trouble is not None
    assert found.trouble.failures >= 1
    assert await cancel(past.sync, past.caller.account) > 0


async def test_without_a_subscription_there_is_nothing_to_change(market: Market) -> None:
    for asked in (change, undo_change, cancel, resume):
        arguments = (Wanted("1", "max"),) if asked is change else ()
        with pytest.raises(ConflictError) as refused:
            await asked(market.sync, market.caller.account, *arguments)
        assert refused.value.code == "no_subscription"


async def test_one_that_the_books_have_not_heard_of_is_found(market: Market) -> None:
    await market.subscribe("pro")

    assert (await changed(market, plan_slug="max")).result == "done"
    assert (await told(market)).plan_slug == "max"


async def test_a_plan_by_the_clock_is_told_as_it_is(market: Market) -> None:
    before = await told(market)
    assert (before.plan_slug, before.status, before.facts) == (None, "none", None)
    assert (before.renews_ms, before.credits.total_microcredits, before.trouble) == (0, 0, None)
    await market.deployment.ledger.change_account(
        market.deployment.platform_id,
        market.account_id,
        AccountChange(plan_slug="free"),
    )
    found = await told(market)
    assert (found.plan_slug, found.status, found.by_clock) == ("free", "active", True)
    assert found.renews_ms == found.credits_renew_ms > int(time.time()) * 1_000


@pytest.mark.parametrize(
    ("now", "then", "upgrade"),
    [
        # (minor units, months, quantity) now and then
        ((2_000, 1, 1), (9_000, 1, 1), True),
        ((9_000, 1, 1), (2_000, 1, 1), False),
        ((2_000, 1, 1), (20_000, 12, 1), False),  # 16.67 a month
        ((2_000, 1, 1), (24_000, 12, 1), False),  # the same by the month, another price
        ((2_000, 1, 1), (24_001, 12, 1), True),
        ((20_000, 12, 1), (2_000, 1, 1), True),
        ((2_000, 1, 1), (2_000, 1, 2), True),
        ((2_000, 1, 3), (2_000, 1, 2), False),
        ((0, 1, 1), (0, 1, 2), True),  # costs nothing, but is more
        ((9_000, 1, 1), (2_000, 1, 5), True),
    ],
)
def test_what_is_dearer_by_the_month_is_an_upgrade(
    now: tuple[int, int, int], then: tuple[int, int, int], *, upgrade: bool
) -> None:
    def price_id(of: tuple[int, int, int]) -> str:
        return f"price_{of[0]}_{of[1]}"

    recurring = {"interval": "month", "interval_count": now[1]}
    price = {"id": price_id(now), "unit_amount": now[0], "recurring": recurring}
    live = Live({"id": "sub_1"}, {"price": price, "quantity": now[2]})
    amount, months, quantity = then
    wanted = StripePrice(
        price_id(then), "prod_1", active=True, currency="usd", unit_amount=amount, months=months
    )

    assert is_upgrade(live, Target(wanted, quantity)) is upgrade
