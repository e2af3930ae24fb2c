"""plan-push: Stripe's catalogue becomes the platform's; what it shows before is what it does."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from gateway.stripe_sync.errors import StripeRefusedError, StripeUnavailableError
from gateway.stripe_sync.metadata import difference, pack_metadata, plan_metadata, read_metadata
from gateway.stripe_sync.products import sync_catalogue
from gateway.stripe_sync.push import Pushed, push
from policies.catalog import Caps, Pack, Plan, PlanPrice, QuotaWindow, RefundExpired
from policies.money import Money, OveragePrice
from tests.support.deployment import CREDIT
from tests.support.stripe_stand import PRO, Stand, running_stand

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PLAN = Plan(
    "pro",
    1000 * CREDIT,
    requests_per_minute=60,
    prices=(PlanPrice(1, "usd", 1900), PlanPrice(12, "usd", 19_000)),
)
PACK = Pack("big", "Big pack", 500 * CREDIT, 90, (Money("usd", 1000),))
FREE = Plan("free", 5 * CREDIT)
FULL = Plan(
    *("full", CREDIT, "year", 1, 2, 3, 4, 5),
    quota_window=QuotaWindow.BILLING,
    caps=Caps(1, 2, 4, 3),
    overage_cap_microcredits=6,
    rollover_microcredits_max=None,
    rollover_periods=7,
    low_credits_microcredits=8,
    refund_expired=RefundExpired.NOTHING,
    discount_basis_points=9,
    trial_days=10,
    trial_microcredits=0,
    overage_price=OveragePrice(1),
    features=("größer", "5 seats"),
)


@pytest_asyncio.fixture
async def stand(postgres_url: str, clean_redis_url: str) -> AsyncIterator[Stand]:
    async with running_stand(postgres_url, clean_redis_url) as running:
        yield running


def written(stand: Stand) -> list[tuple[str, str]]:
    """Requests so far that change something."""
    return [(one.method, one.path) for one in stand.fake.requests if one.method != "GET"]


def said(pushed: Pushed) -> list[str]:
    return [
        f"{step.action} {step.object} {step.slug} {step.changes.get('amount', '')}".rstrip()
        for step in pushed.steps
    ]


async def pushed(stand: Stand) -> list[str]:
    """What a push does, after a dry run said the same and did nothing."""
    before = len(written(stand))
    shown = await push(stand.sync, dry_run=True)
    assert len(written(stand)) == before
    done = await push(stand.sync, dry_run=False)
    assert len(written(stand)) == before + len(done.steps)
    assert [step._replace(object_id=None) for step in done.steps] == [
        step._replace(object_id=None) for step in shown.steps
    ]
    assert all(step.object_id for step in done.steps)
    return said(done)


async def active_prices(stand: Stand, product_id: str) -> set[tuple[int, str]]:
    listed = await stand.v1.prices.list_async({"product": product_id, "active": True})
    return {
        (price.unit_amount, price.recurring.interval if price.recurring else "once")
        for price in listed.data
    }


async def test_products_and_prices_are_made_and_linked_and_a_second_push_does_nothing(
    stand: Stand,
) -> None:
    await stand.apply(PLAN, FREE, packs=(PACK,))
    assert await pushed(stand) == [
        "create product pro",
        "create price pro 19.00 usd per month",
        "create price pro 190.00 usd per year",
        "create product big",
        "create price big 10.00 usd",
    ]
    assert await pushed(stand) == []
    assert (await sync_catalogue(stand.sync))[1:] == (2, (), (), {})
    pro, big = await stand.ledger.stripe_products(stand.platform_id, stand.sync.livemode)
    if pro.kind == "pack":
        pro, big = big, pro
    assert (big.name, big.slug) == ("Big pack", "big")
    assert difference(pro.metadata, PLAN) is None
    assert await active_prices(stand, pro.product_id) == {(1900, "month"), (19_000, "year")}
    assert all(price.is_sold for price in (*pro.prices, *big.prices))


async def test_another_price_is_made_and_the_old_one_archived(stand: Stand) -> None:
    await stand.apply(PLAN)
    await pushed(stand)
    dearer = replace(PLAN, prices=(PlanPrice(1, "usd", 2900), PLAN.prices[1]))
    await stand.apply(dearer)
    assert await pushed(stand) == [
        "create price pro 29.00 usd per month",
        "archive price pro 19.00 usd per month",
    ]
    await stand.apply(PLAN)
    assert await pushed(stand) == [
        "update price pro 19.00 usd per month",
        "archive price pro 29.00 usd per month",
    ]
    assert await pushed(stand) == []


async def test_a_price_that_its_product_names_is_archived_after_another_is_named(
    stand: Stand,
) -> None:
    await stand.apply(PLAN)
    await pushed(stand)
    await sync_catalogue(stand.sync)
    (product,) = await stand.ledger.stripe_products(stand.platform_id, stand.sync.livemode)
    default = next(one.price_id for one in product.prices if one.months == 1)
    await stand.edit(product.product_id, default_price=default)
    await stand.apply(replace(PLAN, prices=(PlanPrice(1, "usd", 2900),)))
    assert await pushed(stand) == [
        "create price pro 29.00 usd per month",
        "update product pro",
        "archive price pro 19.00 usd per month",
        "archive price pro 190.00 usd per year",
    ]
    assert await active_prices(stand, product.product_id) == {(2900, "month")}


async def test_changed_limits_and_names_are_told_and_what_is_gone_is_unset(stand: Stand) -> None:
    await stand.apply(PLAN, packs=(PACK,))
    await pushed(stand)
    await stand.apply(
        replace(PLAN, requests_per_minute=0, concurrency=5), packs=(replace(PACK, name="Bigger"),)
    )
    shown = await push(stand.sync, dry_run=True)
    assert [dict(step.changes) for step in shown.steps] == [
        {"metadata.concurrency": "5", "metadata.requests_per_minute": ""},
        {"name": "Bigger"},
    ]
    assert await pushed(stand) == ["update product pro", "update product big"]
    await sync_catalogue(stand.sync)
    (pro,) = await stand.ledger.stripe_products(stand.platform_id, stand.sync.livemode, kind="plan")
    assert "requests_per_minute" not in pro.metadata


async def test_what_is_not_tagged_is_never_touched(stand: Stand) -> None:
    await stand.product(PRO, tag=None)
    await stand.product(PRO, tag="other")
    product = await stand.product({"plan": "pro", "shop_id": "7"}, name="Made by hand")
    by_hand = await stand.price(product, unit_amount=500)
    await stand.apply(PLAN)
    steps = await pushed(stand)
    assert steps == [
        "update product pro",
        "create price pro 19.00 usd per month",
        "create price pro 190.00 usd per year",
    ]
    found = await stand.v1.products.retrieve_async(product)
    assert (found.name, found.metadata["shop_id"]) == ("Made by hand", "7")
    assert (await stand.v1.prices.retrieve_async(by_hand)).active
    await stand.apply(replace(PLAN, prices=(PlanPrice(1, "usd", 500),)))
    assert [step for step in await pushed(stand) if "create" in step] == []
    touched = {path for method, path in written(stand) if method != "GET"}
    assert f"/v1/prices/{by_hand}" not in touched


async def test_prices_of_a_plan_that_names_none_are_let_be(stand: Stand) -> None:
    product, _ = await stand.sold({"plan": "free"})
    await stand.apply(FREE)
    assert await pushed(stand) == ["update product free"]
    assert await active_prices(stand, product) == {(1900, "month")}


async def test_a_pack_that_is_not_sold_any_more_is_archived_and_comes_back(stand: Stand) -> None:
    await stand.apply(packs=(PACK,))
    await pushed(stand)
    await stand.apply()
    assert await pushed(stand) == ["archive product big"]
    assert await pushed(stand) == []
    await stand.apply(packs=(PACK,))
    assert await pushed(stand) == ["update product big"]
    assert await pushed(stand) == []


async def test_what_stripe_describes_is_not_pushed(stand: Stand) -> None:
    await stand.sold(PRO)
    await sync_catalogue(stand.sync)
    assert await pushed(stand) == []


@pytest.mark.parametrize("after", range(5))
async def test_a_push_that_broke_off_anywhere_is_completed_by_the_next(
    stand: Stand, after: int
) -> None:
    await stand.apply(PLAN, packs=(PACK,))
    doing = stand.sync.api.ask
    count = 0

    async def breaks(request: Any) -> Any:
        nonlocal count
        answer = await doing(request)
        count += answer.get("object") in {"product", "price"}
        if count > after:
            raise StripeUnavailableError("broken off")
        return answer

    stand.sync.api.ask = breaks  # type: ignore[method-assign]
    with pytest.raises(StripeUnavailableError):
        await push(stand.sync, dry_run=False)
    stand.sync.api.ask = doing  # type: ignore[method-assign]
    await push(stand.sync, dry_run=False)
    synced = await sync_catalogue(stand.sync)
    assert (synced.products, synced.parked) == (2, {})
    products = await stand.ledger.stripe_products(stand.platform_id, stand.sync.livemode)
    assert sorted(len(one.prices) for one in products) == [1, 2]


async def test_what_is_made_is_made_once_although_its_answer_was_lost(stand: Stand) -> None:
    await stand.apply(PLAN)
    (first, *_) = (await push(stand.sync, dry_run=True)).steps
    for _ in range(2):
        await stand.v1.products.create_async(
            dict(first.params), {"idempotency_key": first.idempotency_key}
        )
    done = await push(stand.sync, dry_run=False)
    assert [step.object for step in done.steps] == ["price", "price"]


async def test_a_refusal_says_what_was_refused(stand: Stand) -> None:
    await stand.apply(PLAN)
    doing = stand.sync.api.ask

    async def refuses(request: Any) -> Any:
        answer = await doing(request)
        if answer["object"] == "price":
            raise StripeRefusedError("no such currency", "parameter_invalid")
        return answer

    stand.sync.api.ask = refuses  # type: ignore[method-assign]
    with pytest.raises(StripeRefusedError, match="refused to create the price of the plan pro"):
        await push(stand.sync, dry_run=False)


async def test_a_plan_that_stripe_has_no_room_for_is_left_with_the_reason(stand: Stand) -> None:
    await stand.apply(replace(PLAN, features=tuple(f"{n:02} {'x' * 70}" for n in range(9))))
    done = await push(stand.sync, dry_run=False)
    assert done.steps == ()
    assert done.left == {"pro": "features is longer than Stripe's 500 characters"}


@pytest.mark.parametrize("plan", [PLAN, FULL, Plan("least", 1)])
def test_a_plans_metadata_are_read_back_as_the_same(plan: Plan) -> None:
    read = read_metadata(plan_metadata("demo", plan), "")
    assert (read.problem, read.what) == (None, replace(plan, prices=()))
    assert difference(plan_metadata("demo", plan), plan) is None


def test_a_packs_metadata_are_read_back_as_the_same() -> None:
    for pack in (PACK, replace(PACK, validity_days=None)):
        read = read_metadata(pack_metadata("demo", pack), pack.name)
        assert (read.problem, read.what) == (None, replace(pack, prices=()))


def test_what_a_linked_product_says_otherwise_is_told() -> None:
    metadata = plan_metadata("demo", PLAN)
    assert difference({**metadata, "credits": "7"}, PLAN) == "metadata say otherwise: credits"
    assert difference({**metadata, "credits": "1000.0"}, PLAN) is None
    assert "credits" in (difference({**metadata, "credits": "x"}, PLAN) or "")
    assert difference({"tollkeeper": "demo", "plan": "pro"}, PLAN) is None


def test_a_product_is_compared_with_a_plan_that_stripe_has_no_room_for() -> None:
    plan = replace(PLAN, features=tuple(f"{n:02} {'x' * 70}" for n in range(9)))
    metadata = plan_metadata("demo", PLAN)
    assert difference(metadata, plan) is None
    told = difference({**metadata, "features": "One"}, plan)
    assert told == "metadata say otherwise: features"
