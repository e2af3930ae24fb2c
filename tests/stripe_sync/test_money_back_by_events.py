"""Refunds, disputes and overage by their events alone, with everything else that they are among."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest_asyncio

from gateway.stripe_sync.overage import bill_overage
from policies.catalog import Platform
from policies.money import OveragePrice
from tests.support.deployment import CREDIT
from tests.support.market import PLANS, PRO, opened_market

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.market import Market

PRICE = OveragePrice(20_000_000)  # 0.02 of a dollar: a credit is two cents


@pytest_asyncio.fixture
async def market(clean_redis_url: str, postgres_url: str) -> AsyncIterator[Market]:
    async with opened_market(clean_redis_url, postgres_url) as opened:
        priced = [replace(plan, overage_price=PRICE) if plan is PRO else plan for plan in PLANS]
        platform = Platform("demo", signup_plan="free")
        await opened.ledger.apply_catalog(platform, priced, [])
        yield opened


async def spend(market: Market, credits_: int) -> None:
    await market.deployment.call(market.caller, credits_ * CREDIT)
    await market.deployment.carry()


async def charge_of(market: Market, invoice_id: str) -> str:
    payments = await market.shop.v1.invoice_payments.list_async({"invoice": invoice_id})
    intent = payments.data[0].payment.payment_intent
    found = await market.shop.v1.payment_intents.retrieve_async(intent)
    return str(found.latest_charge)


async def owed(market: Market) -> int:
    return await market.ledger.owed(market.account_id) // CREDIT


async def overage_lines(market: Market) -> list[str]:
    found = await market.sql(
        "SELECT string_agg(slug || ' ' || amount_minor, ', ' ORDER BY amount_minor)"
        " FROM billing_lines WHERE kind = 'overage'"
    )
    return [] if found is None else str(found).split(", ")


async def test_a_subscription_that_is_refunded_leaves_what_was_spent_as_a_debt(
    market: Market,
) -> None:
    subscription = await market.subscribe("pro")
    await market.catch_up()
    await spend(market, 400)
    charge_id = await charge_of(market, subscription.latest_invoice)
    await market.shop.v1.refunds.create_async({"charge": charge_id})
    await market.catch_up()

    assert (await market.balance(), await owed(market)) == (0, 400)
    assert await market.payments() == [("subscription", "refunded", 2_000)]
    assert "credits_taken_back" in await market.events()
    assert await market.findings() == []


async def test_a_refund_that_is_heard_of_before_its_payment_takes_the_same(market: Market) -> None:
    subscription = await market.subscribe("pro")
    charge_id = await charge_of(market, subscription.latest_invoice)
    await market.shop.v1.refunds.create_async({"charge": charge_id, "amount": 500})
    events = market.waiting()
    await market.handle(reversed(events), thin=True)
    await market.handle(events)

    assert (await market.balance(), await owed(market)) == (750, 0)
    assert await market.findings() == []


async def test_a_payment_that_only_its_checkout_tells_of_is_taken_back_as_far_as_it_was(
    market: Market,
) -> None:
    await market.customer()
    await market.shop.subscribe(market.prices["pro", "month"], customer=market.customer_id)
    completed = [e for e in market.waiting() if e["type"] == "checkout.session.completed"]
    (invoice,) = (await market.shop.v1.invoices.list_async()).data
    await market.shop.v1.refunds.create_async({"charge": await charge_of(market, invoice.id)})
    await market.handle(completed)

    assert (await market.balance(), await owed(market)) == (0, 0)
    assert await market.payments() == [("subscription", "refunded", 2_000)]
    assert await market.findings() == []


async def test_the_next_period_pays_what_a_dispute_left_owed(market: Market) -> None:
    subscription = await market.subscribe("pro")
    await market.catch_up()
    await spend(market, 1_000)
    dispute = market.fake.dispute(await charge_of(market, subscription.latest_invoice))
    await market.catch_up()
    assert await owed(market) == 1_000

    item = subscription.to_dict()["items"]["data"][0]
    await market.fake.advance_to(item["current_period_end"])
    await market.fake.advance(hours=2)
    await market.catch_up()
    assert await owed(market) == 0

    market.fake.close_dispute(dispute["id"], "won")
    await market.catch_up()
    assert [lot.credits for lot in await market.lots("refund")] == [1_000]
    assert await market.findings() == []


async def test_a_periods_overage_is_paid_with_its_renewal(market: Market) -> None:
    subscription = await market.subscribe("pro")
    await market.catch_up()
    await spend(market, 1_000)
    await market.deployment.call(market.caller, 100_300_000)
    await market.deployment.carry()
    item = subscription.to_dict()["items"]["data"][0]
    await market.fake.advance_to(item["current_period_end"])
    await market.catch_up()
    await market.fake.advance(hours=2)
    await market.catch_up()

    assert await market.payments() == [
        ("subscription", "succeeded", 2_000),
        ("renewal", "succeeded", 2_000 + 201),  # 200.6 cents
    ]
    assert await overage_lines(market) == ["pro 201"]
    assert [lot.credits for lot in await market.lots("plan")] == [1_000, 1_000]
    assert await market.findings() == []


async def test_overage_of_a_subscription_that_was_cancelled_is_a_payment_of_its_own(
    market: Market,
) -> None:
    subscription = await market.subscribe("pro")
    await market.catch_up()
    await spend(market, 1_000)
    await spend(market, 100)
    await market.shop.v1.subscriptions.cancel_async(subscription.id)
    await market.catch_up()
    for _ in range(2):  # what is left of the lot is taken, then it is closed
        await market.expire()

    await bill_overage(market.sync, market.account_id)
    await market.fake.advance(hours=2)
    await market.catch_up()

    assert sorted(await market.payments()) == [
        ("overage", "succeeded", 200),
        ("subscription", "succeeded", 2_000),
    ]
    assert await overage_lines(market) == ["pro 200"]
    assert await market.findings() == []


async def test_overage_that_is_refunded_takes_no_credits(market: Market) -> None:
    subscription = await market.subscribe("pro")
    await market.catch_up()
    await spend(market, 1_000)
    await spend(market, 100)
    await market.shop.v1.subscriptions.cancel_async(subscription.id)
    await market.catch_up()
    for _ in range(2):
        await market.expire()
    await bill_overage(market.sync, market.account_id)
    await market.fake.advance(hours=2)
    (invoice,) = (i for i in market.fake.store.all("invoice") if i["billing_reason"] == "manual")
    await market.shop.v1.refunds.create_async({"charge": await charge_of(market, invoice["id"])})
    await market.catch_up()

    assert sorted(await market.payments()) == [
        ("overage", "refunded", 200),
        ("subscription", "succeeded", 2_000),
    ]
    assert await owed(market) == 0
