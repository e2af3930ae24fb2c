"""What is paid for is given: exactly, once, whatever order or number of events says so."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from gateway.stripe_sync.errors import NeedsMendingError
from policies.billing_options import DunningRules
from tests.support.market import BRIDGE_MS, DAY_S, Lot, opened_market

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.market import Market

BRIDGE_S = BRIDGE_MS // 1_000


@pytest_asyncio.fixture
async def past(clean_redis_url: str, postgres_url: str) -> AsyncIterator[Market]:
    """Stripe's clock begins 40 days ago, so that a renewal lies behind us; there is no dunning."""
    never = DunningRules(None, None, None, None)
    async with opened_market(
        clean_redis_url, postgres_url, ago_s=40 * DAY_S, dunning=never
    ) as opened:
        yield opened


async def test_a_subscription_gives_its_plan_credits_and_period_once_it_is_paid(
    market: Market,
) -> None:
    subscription = await market.subscribe("pro")
    await market.catch_up()
    assert await market.balance() == 1_000
    item = subscription.to_dict()["items"]["data"][0]
    start_s, end_s = item["current_period_start"], item["current_period_end"]
    assert await market.lots("plan") == [Lot("plan", 1_000, start_s, end_s + BRIDGE_S)]
    assert await market.lots("overage") == [Lot("overage", 200, start_s, end_s + BRIDGE_S)]
    assert await market.standing() == ("pro", "subscription", False)
    assert await market.row(
        "SELECT to_ms(period_start_at) / 1000, to_ms(period_end_at) / 1000 FROM accounts"
        " WHERE id = $1",
        market.account_id,
    ) == (start_s, end_s)
    assert await market.payments() == [("subscription", "succeeded", 2_000)]
    assert await market.findings() == []


async def test_an_invoice_that_is_paid_before_checkout_is_completed_gives_all_there_is(
    market: Market,
) -> None:
    await market.customer()
    await market.shop.subscribe(market.prices["pro", "month"], customer=market.customer_id)
    events = market.waiting()
    assert await market.handle(e for e in events if e["type"] == "invoice.paid") == 1
    assert await market.balance() == 1_000
    assert await market.standing() == ("pro", "subscription", False)
    await market.handle(e for e in events if e["type"].startswith("checkout.session."))
    await market.handle(events)
    assert await market.balance() == 1_000
    assert len(await market.lots("plan")) == 1
    assert await market.findings() == []


async def test_who_bought_by_a_link_is_known_from_the_session_and_its_invoice_waits_for_that(
    market: Market,
) -> None:
    await market.shop.buy(
        market.prices["pro", "month"],
        mode="subscription",
        customer=await market.shop.customer(),
        client_reference_id=str(market.account_id),
        metadata={"tollkeeper_platform": "demo"},
    )
    events = market.waiting()
    paid = [event for event in events if event["type"] == "invoice.paid"]
    with pytest.raises(NeedsMendingError, match="nobody knows whose"):
        await market.handle(paid)
    assert await market.balance() == 0
    await market.handle(e for e in events if e["type"] == "checkout.session.completed")
    assert await market.balance() == 1_000
    await market.handle(paid)
    assert await market.balance() == 1_000


async def test_a_reference_that_anybody_could_have_written_is_not_believed(market: Market) -> None:
    await market.shop.buy(
        market.prices["pro", "month"],
        mode="subscription",
        customer=await market.shop.customer(),
        client_reference_id=str(market.account_id),
    )
    events = market.waiting()
    with pytest.raises(NeedsMendingError):
        await market.handle(e for e in events if e["type"] == "checkout.session.completed")
    assert await market.lots("plan") == []


@pytest.mark.parametrize("thin", [False, True])
async def test_events_that_come_twice_give_once(market: Market, *, thin: bool) -> None:
    await market.subscribe("pro")
    events = market.waiting()
    await market.handle(events)
    await market.handle(events + events, thin=thin)
    assert await market.balance() == 1_000
    assert len(await market.lots("plan", "overage")) == 2
    assert await market.findings() == []


@pytest.mark.parametrize("order", ["reversed", 1, 2, 3])
async def test_any_order_of_a_history_ends_in_the_same_books(
    past: Market, order: str | int
) -> None:
    subscription = await past.subscribe("pro")
    await past.fake.advance(days=10)
    await past.change(subscription.id, "max")
    await past.advance_to_now()
    events = past.waiting()
    if order == "reversed":
        events.reverse()
    else:
        random.Random(order).shuffle(events)
    await past.handle(events, thin=True)
    assert await past.balance() == 5_000
    assert [lot.credits for lot in await past.lots("plan")] == [1_000, 4_000, 5_000]
    assert await past.standing() == ("max", "subscription", False)
    assert await past.payments() == [
        ("subscription", "succeeded", 2_000),
        ("change", "succeeded", (await past.payments())[1][2]),
        ("renewal", "succeeded", 9_000),
    ]
    await past.handle(events)
    assert await past.balance() == 5_000
    await past.expire()
    assert await past.findings() == []


async def test_what_was_paid_for_stays_after_the_subscription_and_its_customer_are_deleted(
    market: Market,
) -> None:
    subscription = await market.subscribe("pro")
    events = market.waiting()
    await market.shop.v1.subscriptions.cancel_async(subscription.id)
    await market.shop.v1.customers.delete_async(market.customer_id)
    # Nothing of it was seen while it lasted, and the last comes first.
    await market.handle(reversed(market.waiting()), thin=True)
    assert await market.balance() == 0
    await market.handle(reversed(events), thin=True)
    assert await market.balance() == 1_000
    # It never served here, so the account was never taken off the plan that it had: none.
    assert await market.standing() == (None, "clock", False)
    assert await market.sql(
        "SELECT deleted_at IS NOT NULL FROM stripe_customers WHERE customer_id = $1",
        market.customer_id,
    )
    assert await market.findings() == []


async def test_an_account_whose_subscription_ends_falls_back_and_keeps_what_it_paid_for(
    market: Market,
) -> None:
    subscription = await market.subscribe("pro")
    await market.catch_up()
    await market.shop.v1.subscriptions.cancel_async(subscription.id)
    await market.catch_up()
    assert await market.standing() == ("free", "clock", False)
    assert await market.balance() == 1_010
    assert await market.events() == ["subscription_ended"]
    assert await market.findings() == []


async def test_a_period_that_has_begun_and_is_not_paid_gives_nothing(past: Market) -> None:
    await past.subscribe("pro")
    await past.catch_up()
    past.fake.set_card(past.customer_id, "fails")
    await past.advance_to_now()
    await past.catch_up()
    await past.expire()
    assert await past.balance() == 0
    assert [lot.credits for lot in await past.lots("plan")] == [1_000]
    assert len(await past.lots("overage")) == 1
    start_ms = await past.sql(
        "SELECT to_ms(period_start_at) FROM subscriptions WHERE account_id = $1", past.account_id
    )
    assert start_ms > (time.time() - 20 * DAY_S) * 1_000  # the period has moved on


async def test_a_late_payment_gives_its_period_once(past: Market) -> None:
    await past.subscribe("pro")
    await past.catch_up()
    past.fake.set_card(past.customer_id, "fails")
    await past.fake.advance(days=33)
    await past.catch_up()
    past.fake.set_card(past.customer_id, "works")
    await past.advance_to_now()  # Stripe tries again
    events = past.waiting()
    await past.handle(events + events)
    await past.expire()
    assert await past.balance() == 1_000
    lots = await past.lots("plan")
    assert len(lots) == 2
    assert lots[1].begins_s == lots[0].ends_s - BRIDGE_S  # its own period's, not from the payment
    assert len(await past.lots("overage")) == 2
    assert await past.standing() == ("pro", "subscription", False)
    assert await past.findings() == []


async def test_a_trial_gives_trial_credits_and_a_coupon_of_all_gives_the_plan(
    market: Market,
) -> None:
    await market.subscribe("try", trial_period_days=14)
    await market.catch_up()
    assert await market.balance() == 50
    (trial,) = await market.lots("trial")
    assert trial.ends_s - trial.begins_s == 14 * DAY_S + BRIDGE_S
    assert await market.payments() == [("subscription", "succeeded", 0)]
    assert await market.standing() == ("try", "subscription", False)


async def test_an_invoice_of_nothing_because_of_a_coupon_gives_the_whole_plan(
    market: Market,
) -> None:
    coupon = await market.shop.v1.coupons.create_async({"percent_off": 100, "duration": "forever"})
    await market.subscribe("try", discounts=[{"coupon": coupon.id}])
    await market.catch_up()
    assert await market.balance() == 1_000
    assert await market.lots("trial") == []
    assert await market.payments() == [("subscription", "succeeded", 0)]
    assert await market.findings() == []


async def test_the_first_payment_after_a_trial_gives_the_plan(past: Market) -> None:
    await past.subscribe("try", trial_period_days=14)
    await past.advance_to_now()
    await past.catch_up()
    await past.expire()
    assert await past.balance() == 1_000
    assert [lot.credits for lot in await past.lots("trial", "plan")] == [50, 1_000]
    assert await past.findings() == []


async def test_a_trial_that_ends_without_a_card_pauses_and_serves_no_more(past: Market) -> None:
    await past.customer(None)
    subscription = await past.subscribe(
        "try",
        trial_period_days=14,
        trial_settings={"end_behavior": {"missing_payment_method": "pause"}},
    )
    await past.catch_up()
    assert (await past.standing())[0] == "try"
    await past.advance_to_now()
    await past.catch_up()
    await past.expire()
    assert await past.standing() == ("free", "clock", False)
    assert await past.balance() == 10
    past.fake.set_card(past.customer_id, "works")
    await past.shop.v1.subscriptions.resume_async(subscription.id)
    await past.catch_up()
    assert await past.standing() == ("try", "subscription", False)
    assert await past.balance() == 1_010
    assert await past.findings() == []


@pytest.mark.parametrize("behavior", ["void", "keep_as_draft", "mark_uncollectible"])
async def test_while_collection_is_paused_nothing_new_is_given_and_the_plan_stays(
    past: Market, behavior: str
) -> None:
    subscription = await past.subscribe("pro")
    await past.shop.v1.subscriptions.update_async(
        subscription.id, {"pause_collection": {"behavior": behavior}}
    )
    await past.advance_to_now()
    await past.catch_up()
    await past.expire()
    assert await past.balance() == 0
    assert len(await past.lots("plan")) == 1
    assert await past.standing() == ("pro", "subscription", False)
    assert await past.findings() == []


async def test_an_invoice_that_was_voided_gives_nothing_and_one_paid_out_of_band_gives_once(
    past: Market,
) -> None:
    await past.subscribe("pro")
    past.fake.set_card(past.customer_id, "fails")
    await past.fake.advance(days=32)
    await past.catch_up()
    invoice = await past.open_invoice()
    await past.shop.v1.invoices.void_invoice_async(invoice.id)
    await past.catch_up()
    await past.expire()
    assert await past.balance() == 0
    assert await past.payments() == [
        ("subscription", "succeeded", 2_000),
        ("renewal", "cancelled", 2_000),
    ]
    item = await past.shop.v1.invoice_items.create_async(
        {
            "customer": past.customer_id,
            "pricing": {"price": past.prices["small", ""]},
        }
    )
    assert item.amount == 1_500
    again = await past.shop.v1.invoices.create_async(
        {"customer": past.customer_id, "pending_invoice_items_behavior": "include"}
    )
    await past.shop.v1.invoices.finalize_invoice_async(again.id)
    await past.catch_up()
    assert await past.balance() == 0
    await past.shop.v1.invoices.pay_async(again.id, {"paid_out_of_band": True})
    events = past.waiting()
    await past.handle(events + events)
    assert await past.balance() == 300
    assert await past.findings() == []


async def test_a_renewal_paid_out_of_band_gives_its_period_once(past: Market) -> None:
    await past.subscribe("pro")
    past.fake.set_card(past.customer_id, "fails")
    await past.advance_to_now()
    await past.catch_up()
    invoice = await past.open_invoice()
    await past.shop.v1.invoices.pay_async(invoice.id, {"paid_out_of_band": True})
    events = past.waiting()
    await past.handle(events + events)
    await past.expire()
    assert await past.balance() == 1_000
    assert await past.findings() == []


async def test_a_plan_edited_in_mid_cycle_counts_from_the_next_payment(past: Market) -> None:
    await past.subscribe("pro")
    events = past.waiting()
    await past.handle(events)
    await past.sql(
        "UPDATE plans SET spec = jsonb_set(spec, '{credits_microcredits}', '\"7000000\"')"
        " WHERE slug = 'pro'"
    )
    await past.handle(events)
    assert [lot.credits for lot in await past.lots("plan")] == [1_000]
    await past.advance_to_now()
    await past.catch_up()
    await past.expire()
    assert await past.balance() == 7
    assert [lot.credits for lot in await past.lots("plan")] == [1_000, 7]
    assert await past.findings() == []


async def test_what_is_parked_gives_nothing_until_it_is_mended_and_never_zero(
    market: Market,
) -> None:
    await market.sql("UPDATE stripe_products SET problem = 'credits: no number'")
    await market.subscribe("pro")
    events = market.waiting()
    paid = [event for event in events if event["type"] == "invoice.paid"]
    with pytest.raises(NeedsMendingError, match="credits: no number"):
        await market.handle(paid)
    assert await market.lots("plan") == []
    assert await market.payments() == []
    await market.sql("UPDATE stripe_products SET problem = NULL")
    await market.handle(events)
    assert await market.balance() == 1_000


async def test_a_product_that_nobody_has_told_of_yet_is_looked_at_first(market: Market) -> None:
    await market.sql("DELETE FROM stripe_products WHERE slug = 'pro'")
    await market.sql("DELETE FROM stripe_prices WHERE product_id = $1", market.products["pro"])
    await market.subscribe("pro")
    await market.catch_up()
    assert await market.balance() == 1_000


async def test_a_plan_that_says_nothing_of_its_credits_gives_nothing_and_waits(
    market: Market,
) -> None:
    await market.customer()
    price = await market.shop.price(
        700, "month", metadata={"tollkeeper": "demo", "plan": "unheard-of"}
    )
    await market.shop.v1.subscriptions.create_async(
        {"customer": market.customer_id, "items": [{"price": price}]}
    )
    with pytest.raises(NeedsMendingError, match="unheard-of"):
        await market.handle(e for e in market.waiting() if e["type"] == "invoice.paid")
    assert await market.payments() == []


async def test_what_somebody_else_sells_is_left_alone(market: Market) -> None:
    stranger = await market.shop.customer("works")
    price = await market.shop.price(700, "month")
    await market.shop.v1.subscriptions.create_async(
        {"customer": stranger, "items": [{"price": price}]}
    )
    await market.catch_up()
    assert await market.sql("SELECT count(*) FROM billing_transactions") == 0
    assert await market.sql("SELECT count(*) FROM subscriptions") == 0
    assert await market.sql("SELECT count(*) FROM stripe_customers") == 0


async def test_none_of_a_plan_is_paid_with_nothing_and_gives_nothing(market: Market) -> None:
    await market.subscribe("pro", quantity=0)
    await market.catch_up()
    assert await market.payments() == [("subscription", "succeeded", 0)]
    assert await market.lots("plan", "overage") == []
    assert await market.balance() == 0
    assert await market.findings() == []
