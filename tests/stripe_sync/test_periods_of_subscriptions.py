"""Quotas, overage, rollover, thresholds and renewal for accounts that a subscription renews."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from gateway.jobs.dunning import look_at_platform
from gateway.jobs.renewal import Renewal
from gateway.ledger.periods import AccountChange
from gateway.operations.accounts import change_account
from gateway.operations.errors import ConflictError
from gateway.operations.publish import publisher
from policies.billing_options import DunningRules
from tests.support.deployment import CREDIT
from tests.support.market import BRIDGE_MS, DAY_S, HOUR_S, opened_market

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.market import Market


@pytest_asyncio.fixture
async def market(clean_redis_url: str, postgres_url: str) -> AsyncIterator[Market]:
    never = DunningRules(None, None, None, None)
    async with opened_market(
        clean_redis_url, postgres_url, ago_s=40 * DAY_S, dunning=never
    ) as opened:
        yield opened


async def period(market: Market) -> tuple[int, int]:
    start_ms, end_ms = await market.row(
        "SELECT to_ms(period_start_at), to_ms(period_end_at) FROM accounts WHERE id = $1",
        market.account_id,
    )
    return start_ms, end_ms


async def test_the_clock_renews_no_account_that_a_subscription_does(market: Market) -> None:
    await market.advance_to_now()
    await market.subscribe("pro")
    await market.catch_up()
    renewal = Renewal(market.ledger, publisher(market.ledger, market.deployment.counters))
    for change in ("+ interval '30 minutes'", "- interval '30 minutes'"):
        await market.sql(
            "UPDATE accounts SET period_start_at = now() - interval '30 days',"
            f" period_end_at = now() {change} WHERE id = $1",
            market.account_id,
        )
        assert await renewal.renew() == (0, 0)
    _, end_ms = await period(market)
    assert not await market.ledger.renew(market.account_id, end_ms)
    assert not await market.ledger.prepare_period(market.account_id, end_ms)
    assert await market.balance() == 1_000


async def test_what_the_clock_gave_ahead_does_not_come_once_a_subscription_serves(
    market: Market,
) -> None:
    await market.ledger.change_account(
        market.deployment.platform_id, market.account_id, AccountChange(plan_slug="pro")
    )
    _, end_ms = await period(market)
    assert await market.ledger.prepare_period(market.account_id, end_ms)
    await market.advance_to_now()
    await market.subscribe("max")
    await market.catch_up()
    assert await market.balance() == 6_000
    assert (
        await market.sql(
            "SELECT count(*) FROM grants WHERE effective_at > now() AND revoked_at IS NULL"
        )
        == 0
    )
    assert (
        await market.sql(
            "SELECT count(*) FROM grants WHERE source = 'overage' AND expires_at > now()"
        )
        == 0
    )
    await market.expire()
    assert await market.findings() == []


async def test_the_account_has_the_period_of_its_subscription_and_redis_counts_by_it(
    market: Market,
) -> None:
    await market.sql(
        'UPDATE plans SET spec = spec || \'{"requests_per_month": 50,'
        ' "quota_window": "billing"}\' WHERE slug = \'pro\''
    )
    await market.subscribe("pro")
    await market.advance_to_now()
    await market.catch_up()
    start_ms, end_ms = await period(market)
    (item,) = (await market.shop.v1.subscriptions.list_async({})).data[0].to_dict()["items"]["data"]
    assert start_ms == item["current_period_start"] * 1_000
    assert end_ms == item["current_period_end"] * 1_000
    rules = (await market.deployment.counters.inspect(market.caller.keys)).fields["rules"]
    assert f":{end_ms}:" in f":{rules.replace(' ', ':')}:"


async def test_each_paid_period_has_one_lot_of_overage_and_a_trial_has_none(
    market: Market,
) -> None:
    await market.subscribe("pro", trial_end=market.fake.clock.now_s + 5 * DAY_S)
    await market.catch_up()
    assert await market.lots("overage") == []
    await market.advance_to_now()
    events = market.waiting()
    await market.handle(events + events)
    lots = await market.lots("overage")
    start_ms, end_ms = await period(market)
    assert [(lot.credits, lot.begins_s, lot.ends_s) for lot in lots] == [
        (200, start_ms // 1_000, (end_ms + BRIDGE_MS) // 1_000)
    ]


async def test_another_plan_ends_the_overage_of_the_one_before(market: Market) -> None:
    await market.advance_to_now()
    subscription = await market.subscribe("pro")
    await market.catch_up()
    await market.change(subscription.id, "max")
    await market.catch_up()
    assert (
        await market.sql(
            "SELECT count(*) FROM grants WHERE source = 'overage' AND expires_at > now()"
        )
        == 0
    )
    assert await market.findings() == []


async def test_what_rolls_over_begins_when_its_lot_ends_and_ends_with_the_next_period(
    market: Market,
) -> None:
    await market.subscribe("roll")
    await market.catch_up()
    await market.advance_to_now()
    await market.catch_up()
    await market.expire()
    (rolled,) = await market.lots("rollover")
    first, _ = await market.lots("plan")
    _, end_ms = await period(market)
    assert rolled.credits == 100
    assert rolled.begins_s == first.ends_s
    assert rolled.ends_s == end_ms // 1_000
    assert await market.balance() == 200
    assert await market.findings() == []


async def test_thresholds_go_by_all_that_a_period_has_and_by_its_own_period(
    market: Market,
) -> None:
    await market.advance_to_now()
    subscription = await market.subscribe("pro")
    await market.catch_up()
    await market.deployment.call(market.caller, 900 * CREDIT)
    await market.deployment.carry()
    told = await market.ledger.detect_thresholds()
    start_ms, end_ms = await period(market)
    assert [event.detail["percent"] for event in told] == [70, 90]
    assert {event.detail["period_end_ms"] for event in told} == {end_ms}
    assert told[0].detail["amount_microcredits"] == str(1_000 * CREDIT)
    await market.change(subscription.id, "max")
    await market.catch_up()
    await market.deployment.call(market.caller, 3_000 * CREDIT)
    await market.deployment.carry()
    assert await market.ledger.detect_thresholds() == []  # 3 900 of 5 000
    await market.deployment.call(market.caller, 1_100 * CREDIT)
    await market.deployment.carry()
    (event,) = await market.ledger.detect_thresholds()
    assert event.detail["percent"] == 100
    assert event.detail["amount_microcredits"] == str(5_000 * CREDIT)
    assert start_ms < event.created_ms


async def test_the_last_use_of_a_period_is_told_after_it_was_renewed(market: Market) -> None:
    await market.subscribe("pro", trial_end=market.fake.clock.now_s + 9 * DAY_S)
    await market.advance_to_now()
    await market.catch_up()
    await market.deployment.call(market.caller, 1_000 * CREDIT)
    await market.deployment.carry()
    # The period before, as it is an hour after its end.
    await market.sql(
        "UPDATE accounts SET period_start_at = now() - interval '1 hour' WHERE id = $1",
        market.account_id,
    )
    await market.sql(
        "UPDATE grants SET expires_at = now() + interval '1 hour' WHERE source = 'plan'"
    )
    told = await market.ledger.detect_thresholds()
    assert [event.detail["percent"] for event in told] == [70, 90, 100]
    start_ms, _ = await period(market)
    assert {event.detail["period_end_ms"] for event in told} == {start_ms}


async def test_the_months_of_a_year_follow_each_other_without_an_event(market: Market) -> None:
    await market.subscribe("pro", "year")
    await market.advance_to_now()
    await market.catch_up()
    start_ms, end_ms = await period(market)
    assert start_ms <= time.time() * 1_000 < end_ms
    lots = await market.lots("plan")
    assert lots[1].begins_s * 1_000 == start_ms
    await market.expire()
    assert await market.balance() == 1_000

    # A month ago: the first one was the account's period, and nothing has happened since.
    await market.sql(
        "UPDATE accounts SET period_start_at = from_ms($2), period_end_at = from_ms($3)"
        " WHERE id = $1",
        market.account_id,
        lots[0].begins_s * 1_000,
        start_ms,
    )
    requests = len(market.fake.requests)
    assert await look_at_platform(market.sync) == 1
    assert await period(market) == (start_ms, end_ms)
    assert len(market.fake.requests) == requests  # the books know it
    assert await look_at_platform(market.sync) == 0


async def test_a_period_whose_event_was_lost_is_found_at_stripe(market: Market) -> None:
    await market.subscribe("pro")
    await market.catch_up()
    await market.advance_to_now()
    market.waiting()  # lost
    assert await look_at_platform(market.sync) == 1
    start_ms, end_ms = await period(market)
    assert start_ms <= time.time() * 1_000 < end_ms
    assert await look_at_platform(market.sync) == 0


async def test_the_plan_of_a_subscription_is_not_changed_by_hand(market: Market) -> None:
    await market.advance_to_now()
    await market.subscribe("pro")
    await market.catch_up()
    account = await market.ledger.find_account(market.deployment.platform_id, "alice")
    assert account is not None
    with pytest.raises(ConflictError) as refused:
        await change_account(
            market.ledger, market.deployment.counters, account, AccountChange(plan_slug="max")
        )
    assert refused.value.code == "plan_follows_subscription"
    same = AccountChange(plan_slug="pro", name="alicia")
    changed = await change_account(market.ledger, market.deployment.counters, account, same)
    assert (changed.name, changed.renewed_by) == ("alicia", "subscription")


async def test_a_trial_that_will_end_is_told_once(market: Market) -> None:
    await market.advance_to_now()
    await market.subscribe("try", trial_end=market.fake.clock.now_s + 2 * DAY_S + HOUR_S)
    events = market.waiting()
    await market.handle(events + events)
    assert await market.events() == ["trial_will_end"]
