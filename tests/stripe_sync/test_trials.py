"""A trial gives what it is to give, once for an account, whenever it is heard of."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from gateway.stripe_sync.checkout import Order, subscribe
from policies.catalog import Platform
from tests.support.fake_stripe.errors import StripeError
from tests.support.market import DAY_S, PLANS, TRY, opened_market

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.stripe_sync.checkout import Checkout
    from tests.support.market import Market

THANKS = "https://shop.example/thanks"


@pytest_asyncio.fixture
async def market(clean_redis_url: str, postgres_url: str) -> AsyncIterator[Market]:
    async with opened_market(
        clean_redis_url, postgres_url, ago_s=DAY_S, success_url=THANKS
    ) as opened:
        yield opened


async def page(market: Market, once: str) -> Checkout:
    order = Order(slug=TRY.slug, quantity=1, once=once, months=1)
    return await subscribe(market.sync, market.caller.account, order)


@pytest.mark.parametrize("is_late", [False, True])
async def test_a_trial_that_is_ended_early_gives_its_trial_credits_however_late_it_is_heard_of(
    market: Market, *, is_late: bool
) -> None:
    made = await market.subscribe(TRY.slug, trial_period_days=14)
    trial = market.waiting()
    if not is_late:
        await market.handle(trial)
    await market.fake.advance(hours=1)
    await market.shop.v1.subscriptions.update_async(made.id, {"trial_end": "now"})
    await market.catch_up()
    await market.handle(trial)

    assert [lot.credits for lot in await market.lots("trial")] == [50]
    assert [lot.credits for lot in await market.lots("plan")] == [1_000]
    assert await market.findings() == []


async def test_of_many_pages_that_were_opened_one_trial_can_be_had(market: Market) -> None:
    plans = [replace(plan, trial_days=14) if plan == TRY else plan for plan in PLANS]
    await market.ledger.apply_catalog(Platform("demo", signup_plan="free"), plans, [])
    first, second, last = [await page(market, once) for once in "abc"]

    for gone in (first, second):
        with pytest.raises(StripeError):
            market.fake.complete_checkout(gone.session_id)
    market.fake.complete_checkout(last.session_id)
    await market.catch_up()

    assert await market.balance() == 50
    assert len(market.fake.store.all("subscription")) == 1
