"""The catalogue at Stripe becomes plans and packs: exactly what it says, or nothing and why."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from gateway.ledger.database import Session
from gateway.ledger.rows import BY_CONFIG, BY_STRIPE
from gateway.operations.accounts import create_account
from gateway.operations.keys import create_key
from gateway.stripe_sync.client import StripeApi
from gateway.stripe_sync.errors import StripeUnavailableError
from gateway.stripe_sync.products import sync_catalogue, sync_price, sync_product
from gateway.stripe_sync.push import push
from policies.catalog import Pack, Plan
from tests.support.deployment import CREDIT, Caller
from tests.support.stripe_stand import BIG, PRO, Stand, hint, running_stand

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from gateway.stripe_sync.sync import Sync

LIVE = True
PRO_PLAN = Plan("pro", 1000 * CREDIT, requests_per_minute=60)


@pytest_asyncio.fixture
async def stand(postgres_url: str, clean_redis_url: str) -> AsyncIterator[Stand]:
    async with running_stand(postgres_url, clean_redis_url) as running:
        yield running


async def test_tagged_products_become_plans_and_packs_with_their_prices(stand: Stand) -> None:
    product, monthly = await stand.sold(PRO)
    yearly = await stand.price(product, "year", unit_amount=19_000)
    pack, once = await stand.sold(BIG, None)
    synced = await sync_catalogue(stand.sync)
    assert synced == (False, 2, ("pro",), ("big",), {})
    assert await stand.plan() == PRO_PLAN
    assert await stand.pack() == Pack("big", "Ours", 500 * CREDIT, 90)
    stored = await stand.ledger.plan(stand.platform_id, "pro")
    assert stored is not None
    assert stored.managed_by == BY_STRIPE
    known = await stand.known(product)
    assert known is not None
    assert [(one.price_id, one.months, one.unit_amount, one.problem) for one in known.prices] == [
        (monthly, 1, 1900, None),
        (yearly, 12, 19_000, None),
    ]
    known = await stand.known(pack)
    assert known is not None
    assert [(one.price_id, one.months, one.problem) for one in known.prices] == [(once, None, None)]
    again = await sync_catalogue(stand.sync)
    assert again == (False, 2, (), (), {})


@pytest.mark.parametrize(
    "look", [sync_catalogue, partial(push, dry_run=True)], ids=["sync", "push"]
)
async def test_however_long_a_catalogue_is_its_transaction_is_not_idle_meanwhile(
    stand: Stand, monkeypatch: pytest.MonkeyPatch, look: Callable[[Sync], Awaitable[object]]
) -> None:
    """Postgres ends one that asks nothing for a minute; some owners have 100 000 prices."""
    for _ in range(3):
        await stand.sold(PRO)
    monkeypatch.setattr("gateway.stripe_sync.client.PAGE_MAX", 1)
    monkeypatch.setattr("gateway.stripe_sync.products.PAGE_MAX", 1)
    asked = []
    at_stripe, of_postgres = StripeApi.ask, Session.value

    async def ask(api: StripeApi, request: Any) -> Any:
        asked.append("Stripe")
        return await at_stripe(api, request)

    async def value(session: Session, query: str, *arguments: object) -> Any:
        asked.append("Postgres")
        return await of_postgres(session, query, *arguments)

    monkeypatch.setattr(StripeApi, "ask", ask)
    monkeypatch.setattr(Session, "value", value)
    await look(stand.sync)
    assert asked.count("Stripe") == 6
    assert ("Stripe", "Stripe") not in pairwise(asked)


async def test_what_is_not_tagged_or_of_another_platform_is_not_looked_at(stand: Stand) -> None:
    await stand.product(PRO, tag=None)
    await stand.product(PRO, tag="other")
    foreign = await stand.product(PRO, tag=None)
    await sync_product(stand.sync, hint(foreign))
    await sync_price(stand.sync, hint(await stand.price(foreign)))
    assert (await sync_catalogue(stand.sync)).products == 0
    assert await stand.plan() is None


async def test_all_pages_are_read(stand: Stand) -> None:
    for number in range(105):
        await stand.product({"plan": f"p{number}", "credits": "1"}, active=number % 2 == 0)
    assert (await sync_catalogue(stand.sync)).products == 105
    assert len(await stand.ledger.plans_page(stand.platform_id, limit=200)) == 105 + 1


@pytest.mark.parametrize(
    ("change", "reads"),
    [
        ({"credits": "abc"}, 'metadata credits: "abc" is not a plain decimal number of credits'),
        ({"credits": ""}, "metadata credits: is missing"),
        ({"credits": "0"}, "metadata credits: gives nothing"),
        ({"credits": "0.00"}, "metadata credits: gives nothing"),
        ({"period": "week"}, 'metadata period: "week" is not a period'),
        ({"burst": "many"}, "metadata burst: must be a whole number, not a text"),
        ({"cap_day": "9", "cap_month": "5"}, 'metadata cap_day: is above month, "5"'),
        ({"rollver": "all"}, 'metadata rollver: unknown key; did you mean "rollover"?'),
        ({"overage": "bill"}, "metadata overage_cap: is missing"),
        ({"overage_price": "0.002"}, "metadata overage_price: is of no use"),
        ({"trial_credits": "5"}, "metadata trial_credits: is of no use without trial_days"),
        ({"pack": "big"}, "metadata has both a plan and a pack"),
        ({"plan": ""}, "metadata says neither plan nor pack"),
        ({"plan": "No Slug"}, 'metadata plan: "No Slug" must be'),
    ],
)
async def test_invalid_metadata_parks_the_product_and_the_plan_stays_as_it_was(
    stand: Stand, change: dict[str, str], reads: str
) -> None:
    product, _ = await stand.sold(PRO)
    await sync_catalogue(stand.sync)
    await stand.edit(product, metadata=change)
    await sync_product(stand.sync, hint(product))
    assert (await stand.problem(product) or "").startswith(reads)
    assert await stand.plan() == PRO_PLAN
    assert list((await sync_catalogue(stand.sync)).parked) == [product]
    await stand.edit(product, metadata={**dict.fromkeys(change, ""), **PRO, "credits": "7"})
    await sync_product(stand.sync, hint(product))
    assert await stand.problem(product) is None
    plan = await stand.plan()
    assert plan is not None
    assert plan.credits_microcredits == 7 * CREDIT


async def test_a_plan_that_was_never_known_is_not_made_of_nonsense(stand: Stand) -> None:
    product, _ = await stand.sold({**PRO, "credits": "1e6"})
    pack, _ = await stand.sold({"pack": "big", "credits": "0"}, None)
    synced = await sync_catalogue(stand.sync)
    assert set(synced.parked) == {product, pack}
    assert await stand.plan() is None
    assert await stand.pack() is None


async def test_everything_that_a_plan_can_say_is_read(stand: Stand) -> None:
    await stand.product(
        {
            **PRO,
            "period": "year",
            "requests_per_second": "5",
            "burst": "9",
            "requests_per_month": "100",
            "concurrency": "3",
            "quota_window": "billing",
            "cap_day": "1",
            "cap_session": "2",
            "overage": "bill",
            "overage_cap": "50",
            "overage_price": "0.002",
            "rollover": "all",
            "rollover_periods": "2",
            "low_credits": "5",
            "refund_expired": "nothing",
            "discount": "12.5",
            "trial_days": "14",
            "trial_credits": "20",
            "features": "Priority; 5 seats",
            "internal_code": "of somebody else",
        }
    )
    synced = await sync_catalogue(stand.sync)
    assert synced.parked == {}
    plan = await stand.plan()
    assert plan is not None
    assert (plan.period, plan.limits.burst, plan.caps.session) == ("year", 9, 2 * CREDIT)
    assert (plan.trial_days, plan.trial_microcredits) == (14, 20 * CREDIT)
    assert plan.features == ("Priority", "5 seats")
    assert plan.overage_price is not None


@pytest.mark.parametrize(
    ("metadata", "price", "reads"),
    [
        (PRO, {"recurring": None}, "it is paid once"),
        (PRO, {"recurring": {"interval": "week"}}, "it is paid by the week"),
        ({**PRO, "period": "year"}, {}, "it is paid for less than the plan's period"),
        (BIG, {}, "it recurs"),
    ],
)
async def test_a_price_that_nothing_can_be_bought_at_says_why(
    stand: Stand, metadata: dict[str, str], price: dict[str, Any], reads: str
) -> None:
    product = await stand.product(metadata)
    more = {key: value for key, value in price.items() if value is not None}
    await stand.price(product, None if "recurring" in price else "month", **more)
    await sync_catalogue(stand.sync)
    known = await stand.known(product)
    assert known is not None
    assert (known.prices[0].problem or "").startswith(reads)
    assert not known.prices[0].is_sold
    assert known.problem is None


async def test_a_price_fits_again_when_the_plans_period_does(stand: Stand) -> None:
    product, price = await stand.sold({**PRO, "period": "year"})
    await sync_catalogue(stand.sync)
    await stand.edit(product, metadata={"period": "month"})
    await sync_product(stand.sync, hint(product))
    known = await stand.known(product)
    assert known is not None
    assert (known.prices[0].price_id, known.prices[0].problem) == (price, None)


async def test_a_plan_of_the_config_keeps_what_the_config_says(stand: Stand) -> None:
    ours = Plan("pro", 7 * CREDIT)
    pack = Pack("big", "Big", 3 * CREDIT)
    await stand.apply(ours, packs=(pack,))
    product, _ = await stand.sold({**PRO, "credits": "nonsense"})
    bare = await stand.product({"plan": "pro"})
    other = await stand.product(BIG)
    synced = await sync_catalogue(stand.sync)
    assert synced == (False, 3, (), (), {})
    assert await stand.plan() == ours
    assert await stand.pack() == pack
    assert [await stand.problem(one) for one in (product, bare, other)] == [None] * 3


async def test_what_the_config_begins_to_describe_is_the_configs(stand: Stand) -> None:
    product, _ = await stand.sold(PRO)
    await sync_catalogue(stand.sync)
    ours = Plan("pro", 7 * CREDIT)
    await stand.apply(ours)
    await stand.edit(product, metadata={"credits": "2000"})
    await sync_product(stand.sync, hint(product))
    stored = await stand.ledger.plan(stand.platform_id, "pro")
    assert stored is not None
    assert (stored.plan, stored.managed_by) == (ours, BY_CONFIG)


async def test_a_second_product_can_not_change_what_was_bought(stand: Stand) -> None:
    first, _ = await stand.sold(PRO)
    await sync_catalogue(stand.sync)
    same = await stand.product(PRO)
    other = await stand.product({**PRO, "credits": "1"})
    synced = await sync_catalogue(stand.sync)
    assert list(synced.parked) == [other]
    assert "sells the same plan and says otherwise" in synced.parked[other]
    assert await stand.plan() == PRO_PLAN
    await stand.edit(first, active=False)
    await stand.edit(same, active=False)
    await sync_product(stand.sync, hint(first))
    assert await stand.plan() == PRO_PLAN
    await stand.edit(first, metadata={"credits": "1"})
    await stand.edit(same, metadata={"credits": "1"})
    assert (await sync_catalogue(stand.sync)).parked == {}
    plan = await stand.plan()
    assert plan is not None
    assert plan.credits_microcredits == CREDIT


async def test_a_product_that_is_not_tagged_any_more_is_parked_and_still_known(
    stand: Stand,
) -> None:
    product, _ = await stand.sold(PRO)
    await sync_catalogue(stand.sync)
    await stand.edit(product, metadata={"tollkeeper": "", "plan": ""})
    for look in (sync_product(stand.sync, hint(product)), sync_catalogue(stand.sync)):
        await look
        known = await stand.known(product)
        assert known is not None
        assert (known.kind, known.slug) == ("plan", "pro")
        assert "not tagged" in (known.problem or "")
    assert await stand.plan() == PRO_PLAN


async def test_a_deleted_product_or_price_is_forgotten_and_its_plan_stays(stand: Stand) -> None:
    product = await stand.product(PRO)
    pack = await stand.product(BIG)
    await sync_catalogue(stand.sync)
    assert await stand.pack() is not None
    for one in (product, pack):
        await stand.v1.products.delete_async(one)
    await sync_product(stand.sync, hint(product, "product.deleted"))
    assert await stand.known(product) is None
    await sync_catalogue(stand.sync)
    assert await stand.known(pack) is None
    assert await stand.plan() == PRO_PLAN
    assert await stand.pack() is None


async def test_an_archived_pack_is_not_sold_and_sold_again(stand: Stand) -> None:
    product, _ = await stand.sold(BIG, None)
    await sync_catalogue(stand.sync)
    await stand.edit(product, active=False)
    await sync_product(stand.sync, hint(product))
    assert await stand.pack() is None
    await stand.edit(product, active=True)
    await sync_product(stand.sync, hint(product))
    assert await stand.pack() is not None


async def test_an_event_of_a_price_brings_its_product_up_to_date(stand: Stand) -> None:
    product = await stand.product(PRO)
    price = await stand.price(product)
    await sync_price(stand.sync, hint(price, "price.created"))
    known = await stand.known(product)
    assert known is not None
    assert [one.price_id for one in known.prices] == [price]
    await stand.v1.prices.update_async(price, {"active": False})
    await sync_price(stand.sync, hint(price, "price.updated"))
    known = await stand.known(product)
    assert known is not None
    assert not known.prices[0].active
    await sync_price(stand.sync, hint("price_gone", "price.deleted"))


async def test_accounts_follow_changed_limits_on_their_next_call(stand: Stand) -> None:
    product, _ = await stand.sold(PRO)
    await sync_catalogue(stand.sync)
    made = await create_account(stand.ledger, stand.platform_id, "carol", plan="pro")
    key = await create_key(
        stand.ledger, stand.deployment.counters, made.account, stand.deployment.maker
    )
    keys = stand.deployment.counters.keys(made.account.account_id)
    caller = Caller(made.account, key.key_id, keys)
    await stand.deployment.call(caller)
    fields = (await stand.deployment.counters.inspect(caller.keys)).fields
    assert fields["rpm"] == "60"
    await stand.edit(product, metadata={"requests_per_minute": "6"})
    await sync_product(stand.sync, hint(product))
    fields = (await stand.deployment.counters.inspect(caller.keys)).fields
    assert fields["rpm"] == "6"


async def test_trouble_in_the_middle_changes_nothing(stand: Stand) -> None:
    await stand.sold(PRO)
    stand.fake.fail_next(20)
    with pytest.raises(StripeUnavailableError):
        await sync_catalogue(stand.sync)
    assert await stand.plan() is None


async def test_each_mode_is_a_world_of_its_own(postgres_url: str, clean_redis_url: str) -> None:
    async with running_stand(postgres_url, clean_redis_url, live=LIVE) as live:
        product, _ = await live.sold(PRO)
        synced = await sync_catalogue(live.sync)
        assert (synced.livemode, synced.products) == (True, 1)
        assert await live.ledger.stripe_products(live.platform_id, not LIVE) == []
        (row,) = await live.ledger.stripe_products(live.platform_id, LIVE)
        assert row.product_id == product
