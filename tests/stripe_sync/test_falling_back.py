"""Who falls back to the signup plan has each of its periods, and what that gives, once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from gateway.jobs.renewal import Renewal
from gateway.ledger.periods import AccountChange
from gateway.operations.publish import publisher
from policies.catalog import Plan, Platform
from tests.support.deployment import CREDIT
from tests.support.market import DAY_S, FREE, ONE_FAILURE, PLANS, opened_market

if TYPE_CHECKING:
    from tests.support.market import Market

HALF_AN_HOUR_MS = 1_800_000


async def put_on(market: Market, plan: str) -> None:
    """By an operator's hand."""
    platform_id = market.deployment.platform_id
    await market.ledger.change_account(
        platform_id, market.account_id, AccountChange(plan_slug=plan)
    )


async def period(market: Market) -> tuple[int, int, int]:
    """The account's period, after its anchor."""
    anchor_ms, start_ms, end_ms = await market.row(
        "SELECT to_ms(period_anchor_at), to_ms(period_start_at), to_ms(period_end_at)"
        " FROM accounts WHERE id = $1",
        market.account_id,
    )
    return anchor_ms, start_ms, end_ms


async def end_period_of_free_in(market: Market, ms: int) -> int:
    """As if it had begun a month ago: the period that is in force ends so soon; when that is."""
    return int(
        await market.sql(
            "WITH moved AS (UPDATE grants SET effective_at = now() - interval '30 days',"
            " expires_at = now() + $2 * interval '1 ms' WHERE account_id = $1 AND source = 'plan'"
            " AND business_key LIKE 'plan:%')"
            " UPDATE accounts SET period_anchor_at = now() - interval '30 days',"
            " period_start_at = now() - interval '30 days',"
            " period_end_at = now() + $2 * interval '1 ms' WHERE id = $1"
            " RETURNING to_ms(period_end_at)",
            market.account_id,
            ms,
        )
    )


async def given_by_free(market: Market) -> list[int]:
    """The credits of each lot that the clock gave and nobody took."""
    return [
        row.amount_microcredits // CREDIT
        for row in await market.ledger.grants(market.account_id)
        if row.source == "plan" and row.priority == 0 and not row.revoked_ms
        and row.amount_microcredits == FREE.credits_microcredits
    ]  # fmt: skip


async def subscribe_and_end(market: Market, **params: Any) -> None:
    """At once; its events come twice, and late ones before early ones."""
    subscription = await market.subscribe("pro", **params)
    begun = market.waiting()
    await market.handle(begun)
    assert (await market.standing())[:2] == ("pro", "subscription")
    await market.shop.v1.subscriptions.cancel_async(subscription.id)
    ended = market.waiting()
    await market.handle(reversed(ended))
    await market.handle(begun + ended)


@pytest.mark.parametrize("params", [{}, {"trial_period_days": 7}])
async def test_whoever_subscribes_and_cancels_again_and_again_has_the_signup_credits_once(
    market: Market, params: dict[str, int]
) -> None:
    await put_on(market, "free")
    began = await period(market)
    for _ in range(3):
        await subscribe_and_end(market, **params)
        assert await market.standing() == ("free", "clock", False)
        assert await period(market) == began
    assert await given_by_free(market) == [10]
    assert await market.findings() == []


async def test_who_had_never_had_the_signup_plan_gets_it_once(market: Market) -> None:
    await put_on(market, "roll")
    await subscribe_and_end(market)
    began = await period(market)
    assert await market.standing() == ("free", "clock", False)
    await subscribe_and_end(market)
    assert await period(market) == began
    assert await given_by_free(market) == [10]


async def test_another_plan_by_hand_in_between_gives_nothing_of_the_signup_plan_again(
    market: Market,
) -> None:
    await put_on(market, "free")
    began = await period(market)
    await put_on(market, "roll")
    await subscribe_and_end(market)
    assert await period(market) == began
    assert await given_by_free(market) == [10]


async def test_whom_an_operator_puts_on_the_signup_plan_begins_a_period_of_it(
    market: Market,
) -> None:
    await put_on(market, "free")
    await put_on(market, "roll")
    await put_on(market, "free")
    assert await given_by_free(market) == [10, 10]


@pytest.mark.parametrize("times", [1, 2])
async def test_downgrades_for_want_of_payment_give_the_signup_credits_once(
    clean_redis_url: str, postgres_url: str, *, times: int
) -> None:
    async with opened_market(
        clean_redis_url, postgres_url, ago_s=(32 * times + 1) * DAY_S, dunning=ONE_FAILURE
    ) as market:
        await put_on(market, "free")
        began = await period(market)
        await market.subscribe("pro")
        await market.catch_up()
        for _ in range(times):
            market.fake.set_card(market.customer_id, "fails")
            await market.fake.advance(days=32)
            await market.catch_up()
            assert await market.standing() == ("free", "clock", False)
            assert await period(market) == began
            market.fake.set_card(market.customer_id, "works")
            invoice = await market.open_invoice()
            await market.shop.v1.invoices.pay_async(invoice.id)
            await market.catch_up()
            assert (await market.standing())[0] == "pro"
        assert await given_by_free(market) == [10]
        assert await market.findings() == []


async def test_a_period_that_is_over_is_followed_by_a_new_one_with_its_credits(
    market: Market,
) -> None:
    await put_on(market, "free")
    before_ms = await end_period_of_free_in(market, HALF_AN_HOUR_MS)
    subscription = await market.subscribe("pro")
    await market.catch_up()
    await market.sql("UPDATE clock_periods SET end_at = now() - interval '1 ms'")

    await market.shop.v1.subscriptions.cancel_async(subscription.id)
    await market.catch_up()

    anchor_ms, start_ms, end_ms = await period(market)
    assert anchor_ms == start_ms
    assert end_ms > before_ms
    assert await given_by_free(market) == [10, 10]
    await subscribe_and_end(market)
    assert await period(market) == (anchor_ms, start_ms, end_ms)
    assert await given_by_free(market) == [10, 10]


async def test_the_next_period_comes_although_what_was_given_ahead_for_it_went(
    market: Market,
) -> None:
    await put_on(market, "free")
    over_ms = await end_period_of_free_in(market, HALF_AN_HOUR_MS)
    renewal = Renewal(market.ledger, publisher(market.ledger, market.deployment.counters))
    assert await renewal.renew() == (1, 0)

    await subscribe_and_end(market)

    assert (await period(market))[2] == over_ms
    assert await renewal.renew() == (1, 0)
    assert await renewal.renew() == (0, 0)
    ahead = [
        (row.amount_microcredits // CREDIT, row.effective_ms)
        for row in await market.ledger.grants(market.account_id)
        if row.effective_ms > over_ms - 1 and not row.revoked_ms
    ]
    assert ahead == [(10, over_ms)]
    await market.expire()
    assert await market.findings() == []


async def test_another_signup_plan_begins_its_own_period(market: Market) -> None:
    await put_on(market, "free")
    plans = [*PLANS, Plan("start", credits_microcredits=7 * CREDIT)]
    await market.ledger.apply_catalog(Platform("demo", signup_plan="start"), plans, [])
    await subscribe_and_end(market)
    assert await market.standing() == ("start", "clock", False)
    assert sum(lot.credits == 7 for lot in await market.lots("plan")) == 1


async def test_who_leaves_between_a_period_s_end_and_its_renewal_is_given_the_next_once(
    market: Market,
) -> None:
    await put_on(market, "free")
    await end_period_of_free_in(market, HALF_AN_HOUR_MS)
    renewal = Renewal(market.ledger, publisher(market.ledger, market.deployment.counters))
    assert await renewal.renew() == (1, 0)  # the next period's lot, ahead
    await half_an_hour_later(market)
    await subscribe_and_end(market, trial_period_days=7)
    await renewal.renew()
    assert await given_by_free(market) == [10, 10]  # that which is over, and one
    assert await market.findings() == []


async def half_an_hour_later(market: Market) -> None:
    """As if it were: everything of the clock's is so much further back."""
    await market.sql(
        "UPDATE grants SET effective_at = effective_at - interval '1801 s',"
        " expires_at = expires_at - interval '1801 s',"
        " business_key = 'plan:' || account_id || ':' || to_ms(effective_at - interval '1801 s')"
        " WHERE account_id = $1 AND source = 'plan' AND business_key LIKE 'plan:%'",
        market.account_id,
    )
    await market.sql(
        "UPDATE accounts SET period_anchor_at = period_anchor_at - interval '1801 s',"
        " period_start_at = period_start_at - interval '1801 s',"
        " period_end_at = period_end_at - interval '1801 s' WHERE id = $1",
        market.account_id,
    )
