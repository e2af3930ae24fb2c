"""Whoever pays for a plan gets it, whatever its owner does with it meanwhile."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from gateway.operations.errors import ConflictError
from gateway.operations.plans import delete_plan
from gateway.stripe_sync.products import sync_catalogue
from policies.catalog import Platform
from tests.support.market import DAY_S, ONE_FAILURE, PLANS, PRO, opened_market

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.market import Market

A_MONTH_DAYS = 32


@pytest_asyncio.fixture
async def past(clean_redis_url: str, postgres_url: str) -> AsyncIterator[Market]:
    """Stripe's clock begins a month ago; the first failure downgrades."""
    async with opened_market(
        clean_redis_url, postgres_url, ago_s=(A_MONTH_DAYS + 1) * DAY_S, dunning=ONE_FAILURE
    ) as opened:
        yield opened


async def test_a_plan_that_gives_nothing_any_more_is_still_paid_for_in_the_books(
    past: Market,
) -> None:
    await past.subscribe("pro")
    await past.catch_up()
    bare = replace(PRO, credits_microcredits=0, overage_cap_microcredits=0)
    plans = [bare if plan is PRO else plan for plan in PLANS]
    await past.ledger.apply_catalog(Platform("demo", signup_plan="free"), plans, [])
    assert (await sync_catalogue(past.sync)).parked == {}
    await past.fake.advance(days=A_MONTH_DAYS)
    await past.catch_up()
    assert await past.payments() == [
        ("subscription", "succeeded", 2_000),
        ("renewal", "succeeded", 2_000),
    ]
    assert await past.standing() == ("pro", "subscription", False)


async def test_a_plan_that_somebody_may_still_pay_for_can_not_be_deleted(past: Market) -> None:
    subscription = await past.subscribe("pro")
    await past.catch_up()
    past.fake.set_card(past.customer_id, "fails")
    await past.fake.advance(days=A_MONTH_DAYS)
    await past.catch_up()
    assert (await past.standing())[0] == "free"  # downgraded, and free to pay
    plans = [plan for plan in PLANS if plan is not PRO]
    await past.ledger.apply_catalog(Platform("demo", signup_plan="free"), plans, [])
    platform_id = past.deployment.platform_id
    with pytest.raises(ConflictError, match="subscriptions that are not over"):
        await delete_plan(past.ledger, platform_id, "pro")

    past.fake.set_card(past.customer_id, "works")
    unpaid = await past.open_invoice()
    await past.shop.v1.invoices.pay_async(unpaid.id)
    await past.catch_up()
    assert await past.standing() == ("pro", "subscription", False)
    await past.shop.v1.subscriptions.cancel_async(subscription.id)
    await past.catch_up()
    await delete_plan(past.ledger, platform_id, "pro")
