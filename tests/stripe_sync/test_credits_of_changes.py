"""A change in mid-period gives the difference only; years and quantities give what they are."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from policies.billing_options import UpgradeCredits
from tests.support.deployment import CREDIT
from tests.support.market import BRIDGE_MS, DAY_S, opened_market

if TYPE_CHECKING:
    from tests.support.market import Market

BRIDGE_S = BRIDGE_MS // 1_000


async def test_an_upgrade_gives_the_difference_only(market: Market) -> None:
    subscription = await market.subscribe("pro")
    await market.catch_up()
    await market.change(subscription.id, "max")
    await market.catch_up()
    assert await market.balance() == 5_000
    assert [lot.credits for lot in await market.lots("plan")] == [1_000, 4_000]
    assert await market.standing() == ("max", "subscription", False)
    assert await market.findings() == []


async def test_going_up_and_down_again_gives_nothing_new(market: Market) -> None:
    subscription = await market.subscribe("pro")
    for slug in ("max", "pro", "max", "pro"):
        await market.change(subscription.id, slug)
        await market.catch_up()
    assert await market.balance() == 5_000
    assert await market.standing() == ("pro", "subscription", False)
    assert await market.findings() == []


async def test_more_of_a_plan_gives_the_difference(market: Market) -> None:
    subscription = await market.subscribe("pro", quantity=3)
    await market.catch_up()
    assert await market.balance() == 3_000
    await market.change(subscription.id, "pro", quantity=5)
    await market.catch_up()
    assert await market.balance() == 5_000
    await market.change(subscription.id, "pro", quantity=1)
    await market.catch_up()
    assert await market.balance() == 5_000
    assert await market.findings() == []


async def test_a_prorated_upgrade_gives_the_part_that_the_rest_of_the_period_is(
    clean_redis_url: str, postgres_url: str
) -> None:
    async with opened_market(
        clean_redis_url,
        postgres_url,
        ago_s=10 * DAY_S,
        upgrade_credits=UpgradeCredits.PRORATED,
    ) as market:
        subscription = await market.subscribe("pro")
        await market.fake.advance(days=10)
        await market.change(subscription.id, "max")
        await market.catch_up()
        item = subscription.to_dict()["items"]["data"][0]
        start_s, end_s = item["current_period_start"], item["current_period_end"]
        whole = end_s - start_s
        changed_s = start_s + 10 * DAY_S
        parts = [
            5_000 * CREDIT * (end_s - changed_s) // whole,
            -1_000 * CREDIT * (end_s - changed_s) // whole,
        ]
        assert await market.sql(
            "SELECT amount_microcredits FROM grants WHERE business_key LIKE '%:change'"
        ) == sum(parts)


async def test_a_change_from_months_to_years_gives_the_new_months_less_what_is_left_unused(
    market: Market,
) -> None:
    subscription = await market.subscribe("pro", "month")
    await market.catch_up()
    await market.change(subscription.id, "max", "year")
    await market.catch_up()
    # At once: of the old month all is left, so the first new one gives the difference.
    assert await market.balance() == 5_000
    credits_ = [lot.credits for lot in await market.lots("plan")]
    assert sorted(credits_) == [1_000, 4_000] + [5_000] * 11
    assert await market.findings() == []


async def test_three_of_a_plan_at_a_yearly_price_give_twelve_months_of_three(
    market: Market,
) -> None:
    subscription = await market.subscribe("pro", "year", quantity=3)
    events = market.waiting()
    await market.handle(events + events)
    assert await market.balance() == 3_000
    lots = await market.lots("plan")
    assert [lot.credits for lot in lots] == [3_000] * 12
    item = subscription.to_dict()["items"]["data"][0]
    assert lots[0].begins_s == item["current_period_start"]
    assert lots[-1].ends_s == item["current_period_end"] + BRIDGE_S
    assert [lot.ends_s - BRIDGE_S for lot in lots[:-1]] == [lot.begins_s for lot in lots[1:]]
    assert [lot.credits for lot in await market.lots("overage")] == [600]
    end_s = await market.sql(
        "SELECT to_ms(period_end_at) / 1000 FROM accounts WHERE id = $1", market.account_id
    )
    assert end_s == lots[1].begins_s  # a month of it
    assert await market.findings() == []


async def test_a_yearly_plan_at_a_yearly_price_gives_a_year(market: Market) -> None:
    await market.subscribe("year", "year")
    await market.catch_up()
    assert await market.balance() == 20_000
    assert len(await market.lots("plan")) == 1


async def test_a_change_within_a_year_changes_this_month_and_those_to_come(
    market: Market,
) -> None:
    subscription = await market.subscribe("pro", "year")
    await market.catch_up()
    await market.change(subscription.id, "max", "year")
    await market.catch_up()
    assert await market.balance() == 5_000
    months: dict[int, int] = {}
    for lot in await market.lots("plan"):
        months[lot.ends_s] = months.get(lot.ends_s, 0) + lot.credits
    assert list(months.values()) == [5_000] * 12

    await market.change(subscription.id, "pro", "year")
    await market.catch_up()
    await market.expire()
    assert await market.balance() == 5_000  # nothing is taken of a month that has begun
    later = await market.sql(
        "SELECT array_agg(sum ORDER BY expires_at) FROM (SELECT expires_at, sum("
        "amount_microcredits)::bigint / 1000000 AS sum FROM grants WHERE source = 'plan'"
        " AND effective_at > now() GROUP BY expires_at) AS months"
    )
    assert later == [1_000] * 11
    assert await market.findings() == []


@pytest.mark.parametrize("order", ["as made", "reversed", 1, 2])
async def test_what_changes_give_does_not_depend_on_which_is_heard_of_first(
    market: Market, order: str | int
) -> None:
    subscription = await market.subscribe("pro", "year")
    for slug in ("max", "pro", "max"):
        await market.fake.advance(hours=1)
        await market.change(subscription.id, slug, "year")
    events = [event for event in market.waiting() if event["type"] == "invoice.paid"]
    if order == "reversed":
        events.reverse()
    elif isinstance(order, int):
        random.Random(order).shuffle(events)
    await market.handle(events)
    assert len(events) == 4
    await market.expire()
    assert await market.balance() == 5_000
    # By which payment each credit was given is what a refund goes by.
    given = await market.sql(
        "SELECT array_agg(in_all ORDER BY created_at) FROM ("
        "SELECT payments.created_at, sum(paid_lots.microcredits)::bigint / 1000000 AS in_all"
        " FROM billing_transactions AS payments LEFT JOIN paid_lots"
        " ON paid_lots.transaction_id = payments.id GROUP BY payments.id) AS payments"
    )
    assert given == [12_000, 48_000, 11_000, 44_000]
    assert await market.findings() == []
