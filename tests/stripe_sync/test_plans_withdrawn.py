"""What was pushed goes with what it was pushed for: nothing comes back, nobody buys it any more."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from gateway.ledger.periods import AccountChange
from gateway.operations.accounts import create_account
from gateway.operations.documents import Written
from gateway.operations.errors import ConflictError, UnknownError
from gateway.operations.plans import create_plan, delete_plan
from gateway.stripe_sync.choosing import plan_offer
from gateway.stripe_sync.offers import offers_of
from gateway.stripe_sync.products import sync_catalogue, sync_product
from gateway.stripe_sync.push import push
from gateway.stripe_sync.shelf import LEFT_OVER
from policies.catalog import Plan, PlanPrice
from tests.support.deployment import CREDIT
from tests.support.stripe_stand import PRO, Stand, hint, running_stand

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PLAN = Plan("pro", 1000 * CREDIT, prices=(PlanPrice(1, "usd", 1900),))
FREE = Plan("free", 5 * CREDIT)
TEAM = Written(
    {
        "slug": "team",
        "credits": "1000",
        "requests_per_minute": 60,
        "price_per_month": "19.00 usd",
    }
)


@pytest_asyncio.fixture
async def stand(postgres_url: str, clean_redis_url: str) -> AsyncIterator[Stand]:
    async with running_stand(postgres_url, clean_redis_url) as running:
        yield running


async def pushed(stand: Stand) -> list[str]:
    """What a push does, of products."""
    done = await push(stand.sync, dry_run=False)
    return [f"{one.action} {one.object} {one.slug}" for one in done.steps if one.object != "price"]


async def pushed_product(stand: Stand, slug: str = "pro") -> str:
    """The product of a plan that was pushed, once it is known here."""
    await pushed(stand)
    await sync_catalogue(stand.sync)
    (product,) = await stand.ledger.stripe_products(
        stand.platform_id, stand.sync.livemode, kind="plan", slug=slug
    )
    return product.product_id


async def sold(stand: Stand) -> list[str]:
    """The plans that accounts can buy."""

    async def settings(_platform_id: int) -> Any:
        return stand.sync.settings

    billing: Any = SimpleNamespace(source=SimpleNamespace(settings=settings))
    offers = await offers_of(stand.ledger, billing, stand.platform_id)
    return [offer.what.slug for offer in offers.plans]


async def test_a_plan_that_was_deleted_stays_away_and_its_product_is_archived(
    stand: Stand,
) -> None:
    """What a push made says what was described here, so it must not describe that in turn."""
    await create_plan(stand.ledger, stand.platform_id, TEAM)
    product = await pushed_product(stand, "team")
    assert await sold(stand) == ["team"]
    await delete_plan(stand.ledger, stand.platform_id, "team")
    synced = await sync_catalogue(stand.sync)
    assert (synced.plans_changed, synced.parked) == ((), {product: LEFT_OVER})
    assert (await stand.plan("team"), await sold(stand)) == (None, [])
    assert await pushed(stand) == ["archive product team"]
    assert await pushed(stand) == []
    await sync_product(stand.sync, hint(product))
    assert (await stand.plan("team"), await stand.problem(product)) == (None, None)
    with pytest.raises(UnknownError):
        await delete_plan(stand.ledger, stand.platform_id, "team")
    await create_plan(stand.ledger, stand.platform_id, TEAM)
    assert await pushed(stand) == ["update product team"], "the same is sold again"


async def test_a_plan_that_leaves_the_config_is_not_sold_any_more_and_keeps_its_accounts(
    stand: Stand,
) -> None:
    await stand.apply(PLAN, FREE)
    product = await pushed_product(stand)
    account = await create_account(stand.ledger, stand.platform_id, "acme", plan="pro")
    await stand.apply(FREE)
    assert await pushed(stand) == ["archive product pro"]
    assert await pushed(stand) == []
    synced = await sync_catalogue(stand.sync)
    assert (synced.plans_changed, synced.parked) == ((), {})
    assert await sold(stand) == []
    assert await stand.plan() == replace(PLAN, prices=()), "its accounts have it as it was"
    with pytest.raises(ConflictError, match='accounts have the plan "pro"'):
        await delete_plan(stand.ledger, stand.platform_id, "pro")
    change = AccountChange(plan_slug="free")
    await stand.ledger.change_account(stand.platform_id, account.account.account_id, change)
    await delete_plan(stand.ledger, stand.platform_id, "pro")
    await stand.apply(FREE, PLAN)
    assert await pushed(stand) == ["update product pro"]
    assert (await stand.v1.products.retrieve_async(product)).active


async def test_a_plan_whose_prices_are_taken_out_is_not_sold_any_more(stand: Stand) -> None:
    await stand.apply(PLAN)
    await pushed_product(stand)
    await stand.apply(replace(PLAN, prices=()))
    assert await pushed(stand) == ["archive product pro"]
    assert await pushed(stand) == []


async def test_a_product_made_by_hand_describes_its_plan_again_when_nobody_else_does(
    stand: Stand,
) -> None:
    product, _ = await stand.sold({**PRO, "plan": "team"})
    await create_plan(stand.ledger, stand.platform_id, TEAM)
    assert await pushed(stand) == ["update product team"]
    await delete_plan(stand.ledger, stand.platform_id, "team")
    assert await pushed(stand) == []
    assert (await sync_catalogue(stand.sync)).plans_changed == ("team",)
    with pytest.raises(ConflictError, match=f'at Stripe {product} says the plan "team"') as caught:
        await delete_plan(stand.ledger, stand.platform_id, "team")
    assert "accounts" not in str(caught.value)


async def test_a_plan_that_gives_nothing_is_not_sold_by_whatever_product(stand: Stand) -> None:
    await stand.sold({"plan": "bare"})
    await stand.apply(Plan("bare", 0))
    assert (await sync_catalogue(stand.sync)).parked == {}  # who has it goes on paying for it
    assert await sold(stand) == []
    with pytest.raises(ConflictError, match="it gives no credits") as caught:
        await plan_offer(stand.sync, "bare", 1)
    assert caught.value.code == "not_for_sale"
    await stand.apply(Plan("bare", 0, overage_cap_microcredits=CREDIT))
    assert (await sync_catalogue(stand.sync)).parked == {}
    assert await sold(stand) == ["bare"]
