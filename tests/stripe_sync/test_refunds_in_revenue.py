"""What goes back at Stripe counts in the month in which it does, as events tell of it."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import pytest_asyncio

from gateway.operations.revenue import month_span, revenue_query
from tests.support.market import DAY_S, opened_market

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.ledger.revenue import ProductRevenue, RevenuePoint
    from tests.support.market import Market

AGO_DAYS = 120
A_MONTH_LATER_DAYS = 32  # never in the same month
PAID_MINOR = 20_000


@pytest_asyncio.fixture
async def market(clean_redis_url: str, postgres_url: str) -> AsyncIterator[Market]:
    async with opened_market(clean_redis_url, postgres_url, ago_s=AGO_DAYS * DAY_S) as opened:
        yield opened


class Paid:
    """A year that was paid for, months ago, and its platform's revenue."""

    def __init__(self, market: Market, charge_id: str) -> None:
        self.market = market
        self.charge_id = charge_id

    @property
    def month(self) -> str:
        """Stripe's, now."""
        return dt.datetime.fromtimestamp(self.market.fake.clock.now_s, dt.UTC).strftime("%Y-%m")

    async def in_a_month(self) -> str:
        """Let more than a month go by; the month then."""
        await self.market.fake.advance(days=A_MONTH_LATER_DAYS)
        return self.month

    async def points(self, first: str, last: str) -> list[RevenuePoint]:
        """Month by month."""
        (from_ms, _), (last_ms, _) = month_span(first), month_span(last)
        query = revenue_query("month", from_ms, last_ms + 1, now_ms=0, livemode=False)
        ledger, platform_id = self.market.ledger, self.market.sync.platform_id
        return list((await ledger.revenue_series(platform_id, query, unit="month", limit=9)).rows)

    async def refunds(self, *months: str) -> list[tuple[int, int]]:
        """Gross and refunds of these months."""
        return [
            (point.gross_minor, point.refunds_minor)
            for month in months
            for point in await self.points(month, month)
        ]

    async def products(self, month: str) -> list[ProductRevenue]:
        """By product."""
        from_ms, _ = month_span(month)
        query = revenue_query("month", from_ms, from_ms + 1, now_ms=0, livemode=False)
        ledger, platform_id = self.market.ledger, self.market.sync.platform_id
        return list((await ledger.revenue_products(platform_id, query, limit=9)).rows)


async def subscribed(market: Market, slug: str) -> str:
    """A year of a plan is paid for; by which charge."""
    subscription = await market.subscribe(slug, "year")
    payments = await market.shop.v1.invoice_payments.list_async(
        {"invoice": subscription.latest_invoice}
    )
    intent = await market.shop.v1.payment_intents.retrieve_async(
        payments.data[0].payment.payment_intent
    )
    return str(intent.latest_charge)


@pytest_asyncio.fixture
async def paid(market: Market) -> Paid:
    return Paid(market, await subscribed(market, "pro"))


async def test_a_refund_leaves_the_month_of_its_payment_as_it_was(paid: Paid) -> None:
    market, first = paid.market, paid.month
    await market.catch_up()
    closed = await paid.points(first, first), await paid.products(first)
    assert [point.net_minor for point in closed[0]] == [PAID_MINOR]

    second = await paid.in_a_month()
    await market.shop.v1.refunds.create_async({"charge": paid.charge_id, "amount": 5_000})
    await market.catch_up()
    third = await paid.in_a_month()
    await market.shop.v1.refunds.create_async({"charge": paid.charge_id})
    events = market.waiting()
    await market.handle([*events, *events])

    assert (await paid.points(first, first), await paid.products(first)) == closed
    assert await paid.refunds(second, third) == [(0, 5_000), (0, 15_000)]
    assert [(one.slug, one.net_minor) for one in await paid.products(third)] == [("pro", -15_000)]
    assert await market.findings() == []


async def test_a_refund_that_is_heard_of_before_its_payment_counts_where_it_was_made(
    paid: Paid,
) -> None:
    market, first = paid.market, paid.month
    second = await paid.in_a_month()
    await market.shop.v1.refunds.create_async({"charge": paid.charge_id, "amount": 5_000})
    events = market.waiting()
    await market.handle(reversed(events), thin=True)
    await market.handle(events)

    assert await paid.refunds(first, second) == [(PAID_MINOR, 0), (0, 5_000)]


async def test_a_dispute_counts_when_it_is_drawn_and_comes_again_when_it_is_won(
    paid: Paid,
) -> None:
    market, first = paid.market, paid.month
    await market.catch_up()
    second = await paid.in_a_month()
    dispute = market.fake.dispute(paid.charge_id, 8_000)
    await market.catch_up()
    third = await paid.in_a_month()
    market.fake.close_dispute(dispute["id"], "won")
    await market.catch_up()

    assert await paid.refunds(first, second, third) == [
        (PAID_MINOR, 0),
        (0, 8_000),
        (0, -8_000),
    ]


async def test_a_refund_that_fails_leaves_the_month_in_which_it_was(paid: Paid) -> None:
    market = paid.market
    market.fake.set_card(market.customer_id, "refund fails")
    second = await paid.in_a_month()
    charge_id = await subscribed(market, "max")
    await market.shop.v1.refunds.create_async({"charge": charge_id})
    await market.catch_up()
    assert await paid.refunds(second) == [(90_000, 90_000)]

    await paid.in_a_month()
    await market.catch_up()

    assert await paid.refunds(second) == [(90_000, 0)]
