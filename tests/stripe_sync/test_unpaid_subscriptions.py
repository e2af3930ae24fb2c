"""What an account loses for want of payment, stage by stage, and that it gets all of it back."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from gateway.jobs.dunning import look_at_platform
from policies.billing_options import DunningRules
from tests.support.market import DAY_S, HOUR_S, opened_market

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tests.support.market import Market

    Unpaid = Callable[..., AbstractAsyncContextManager[Market]]


@pytest_asyncio.fixture
async def unpaid(clean_redis_url: str, postgres_url: str) -> Unpaid:
    @asynccontextmanager
    async def opened(days: int, **options: Any) -> AsyncIterator[Market]:
        """A subscription to pro whose renewal failed first so many days ago; not looked at yet."""
        async with opened_market(
            clean_redis_url, postgres_url, ago_s=(days + 40) * DAY_S, **options
        ) as market:
            # The end of a trial is set to the hour, unlike that of a month.
            await market.subscribe("pro", trial_end=market.fake.clock.now_s + 40 * DAY_S - HOUR_S)
            market.fake.set_card(market.customer_id, "fails")
            await market.catch_up()
            await market.advance_to_now()
            yield market

    return opened


@pytest.mark.parametrize(
    ("days", "plan", "suspended", "events"),
    [
        (1, "pro", False, ["payment_failed"]),
        (4, "pro", False, ["payment_failed", "payment_overdue"]),
        (8, "free", False, ["payment_failed", "payment_overdue", "plan_downgraded"]),
        (
            14,
            "free",
            True,
            ["payment_failed", "payment_overdue", "plan_downgraded", "account_suspended"],
        ),
    ],
)
async def test_each_stage_is_reached_in_its_time_told_once_and_recovered_from(
    unpaid: Unpaid, days: int, plan: str, events: list[str], *, suspended: bool
) -> None:
    async with unpaid(days) as market:
        history = market.waiting()
        await market.handle(history)
        await market.handle(reversed(history))
        await look_at_platform(market.sync)
        assert (await market.standing())[::2] == (plan, suspended)
        assert await market.status_in_redis() == ("suspended" if suspended else "active")
        told = [kind for kind in await market.events() if kind != "trial_will_end"]
        assert told == events
        before = await market.balance()

        market.fake.set_card(market.customer_id, "works")
        invoice = await market.open_invoice()
        await market.shop.v1.invoices.pay_async(invoice.id)
        await market.catch_up()
        assert await market.standing() == ("pro", "subscription", False)
        assert await market.status_in_redis() == "active"
        assert await market.balance() == before + 1_000
        told = [kind for kind in await market.events() if kind != "trial_will_end"]
        assert told == [*events, "payment_recovered"]
        assert await market.findings() == []


async def test_failures_downgrade_before_the_grace_is_over(unpaid: Unpaid) -> None:
    async with unpaid(4, dunning=DunningRules(1, 2, 7, 14)) as market:
        await market.catch_up()  # on day 0 and on day 3
        assert await market.standing() == ("free", "clock", False)
        assert "plan_downgraded" in await market.events()


async def test_stages_that_are_set_to_never_are_not_reached(unpaid: Unpaid) -> None:
    rules = DunningRules(2, None, None, None)
    async with unpaid(14, dunning=rules) as market:
        await market.catch_up()
        assert await market.standing() == ("pro", "subscription", False)
        assert "payment_overdue" in await market.events()


async def test_time_alone_moves_a_stage_and_stripe_is_asked_before(unpaid: Unpaid) -> None:
    async with unpaid(6) as market:
        await market.catch_up()
        assert (await market.standing())[0] == "pro"
        await _age(market, days=2)
        # It was paid meanwhile, and nobody has told us.
        market.fake.set_card(market.customer_id, "works")
        invoice = await market.open_invoice()
        await market.shop.v1.invoices.pay_async(invoice.id)
        assert await look_at_platform(market.sync) == 1
        assert await market.standing() == ("pro", "subscription", False)
        assert "plan_downgraded" not in await market.events()


async def test_a_job_downgrades_and_suspends_when_nothing_happens(unpaid: Unpaid) -> None:
    rules = DunningRules(2, None, grace_days=7, suspend_after_days=8)
    async with unpaid(7, dunning=rules) as market:
        await market.handle(
            event for event in market.waiting() if event["type"] != "invoice.payment_failed"
        )
        await look_at_platform(market.sync)
        assert await market.standing() == ("free", "clock", False)
        assert await look_at_platform(market.sync) == 0


async def test_an_operators_suspension_stays_when_the_payment_is_there(unpaid: Unpaid) -> None:
    async with unpaid(14) as market:
        await market.catch_up()
        await market.sql(
            "UPDATE accounts SET status = 'suspended' WHERE id = $1", market.account_id
        )
        invoice = await market.open_invoice()
        await market.shop.v1.invoices.void_invoice_async(invoice.id)
        await market.catch_up()
        assert not (await market.standing())[2]
        assert await market.status_in_redis() == "suspended"


async def test_a_new_subscription_lifts_the_suspension_of_the_old_ones_debt(
    unpaid: Unpaid,
) -> None:
    async with unpaid(14) as market:
        await market.catch_up()
        assert (await market.standing())[2]
        market.fake.set_card(market.customer_id, "works")
        await market.subscribe("max")
        await market.catch_up()
        assert await market.standing() == ("max", "subscription", False)
        assert await look_at_platform(market.sync) == 0
        assert await market.status_in_redis() == "active"


async def test_a_debit_that_is_on_its_way_is_no_failure(
    clean_redis_url: str, postgres_url: str
) -> None:
    async with opened_market(clean_redis_url, postgres_url, ago_s=33 * DAY_S) as market:
        await market.subscribe("pro", trial_end=market.fake.clock.now_s + 32 * DAY_S)
        market.fake.set_card(market.customer_id, "async")
        await market.advance_to_now()
        await market.catch_up()
        assert (await market.payments())[-1] == ("renewal", "processing", 2_000)
        assert await market.standing() == ("pro", "subscription", False)
        assert [kind for kind in await market.events() if kind.startswith("payment_")] == []
        assert await market.lots("plan") == []


async def _age(market: Market, *, days: int) -> None:
    """Let so many days pass for what is unpaid, in our books alone."""
    await market.sql(
        "UPDATE subscriptions SET unpaid_since = unpaid_since - $1 * interval '1 day'", days
    )
