"""Packs that were bought at Checkout are given once they are paid, and outlive every renewal."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest_asyncio

from tests.support.market import DAY_S, PACK, opened_market

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.market import Market


@pytest_asyncio.fixture
async def market(clean_redis_url: str, postgres_url: str) -> AsyncIterator[Market]:
    async with opened_market(clean_redis_url, postgres_url, ago_s=40 * DAY_S) as opened:
        await opened.customer()
        yield opened


async def test_a_pack_is_given_once_for_its_days(market: Market) -> None:
    await market.advance_to_now()
    await market.shop.buy(market.prices["small", ""], customer=market.customer_id)
    events = market.waiting()
    await market.handle(events + events, thin=True)
    assert await market.balance() == 300
    (lot,) = await market.lots("pack")
    assert lot.ends_s - lot.begins_s == (PACK.validity_days or 0) * DAY_S
    assert await market.payments() == [("pack", "succeeded", 1_500)]
    assert await market.findings() == []


async def test_several_of_a_pack_are_given_together(market: Market) -> None:
    await market.advance_to_now()
    session = await market.shop.session(
        market.prices["small", ""], quantity=3, customer=market.customer_id
    )
    market.fake.complete_checkout(session)
    await market.catch_up()
    assert await market.balance() == 900


async def test_a_pack_paid_by_a_debit_is_given_when_the_money_is_there(market: Market) -> None:
    await market.fake.advance(days=30)
    await market.shop.buy(market.prices["small", ""], "async", customer=market.customer_id)
    await market.catch_up()
    assert await market.balance() == 0
    assert await market.payments() == [("pack", "processing", 1_500)]
    await market.advance_to_now()
    await market.catch_up()
    assert await market.balance() == 300
    assert await market.payments() == [("pack", "succeeded", 1_500)]
    assert await market.findings() == []


async def test_a_debit_that_is_returned_gives_nothing(market: Market) -> None:
    await market.shop.buy(market.prices["small", ""], "async fails", customer=market.customer_id)
    await market.advance_to_now()
    await market.catch_up()
    assert await market.balance() == 0
    assert await market.payments() == [("pack", "cancelled", 1_500)]
    assert await market.sql("SELECT failure IS NOT NULL FROM billing_transactions")


async def test_a_session_that_expires_is_a_payment_that_does_not_come(market: Market) -> None:
    await market.shop.session(market.prices["small", ""], customer=market.customer_id)
    await market.advance_to_now()
    await market.catch_up()
    assert await market.payments() == [("pack", "cancelled", 1_500)]
    assert await market.sql("SELECT failure FROM billing_transactions") is None
    assert await market.lots("pack") == []


async def test_a_renewal_adds_and_touches_no_other_lot(market: Market) -> None:
    await market.shop.buy(market.prices["small", ""], customer=market.customer_id)
    await market.subscribe("pro")
    await market.catch_up()
    before = await market.lots("pack")
    await market.advance_to_now()
    await market.catch_up()
    await market.expire()
    assert await market.lots("pack") == before
    assert await market.balance() == 1_300
    assert await market.findings() == []
