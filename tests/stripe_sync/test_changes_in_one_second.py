"""Changes of one second are told apart: each gives what it gives after those before it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from tests.support.market import DAY_S, opened_market

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.market import Market


@pytest_asyncio.fixture
async def market(clean_redis_url: str, postgres_url: str) -> AsyncIterator[Market]:
    async with opened_market(clean_redis_url, postgres_url, ago_s=DAY_S) as opened:
        yield opened


@pytest.mark.parametrize("first", ["roll to pro", "pro to max"])
async def test_whichever_of_two_is_heard_of_first_both_give_their_difference(
    market: Market, first: str
) -> None:
    made = await market.subscribe("roll")
    one = await market.change(made.id, "pro")
    two = await market.change(made.id, "max")
    paid = {
        event["data"]["object"]["id"]: event
        for event in market.waiting()
        if event["type"] == "invoice.paid"
    }
    order = [one.latest_invoice, two.latest_invoice]
    if first == "pro to max":
        order.reverse()

    await market.handle(paid[invoice] for invoice in order)

    assert sorted(lot.credits for lot in await market.lots("plan")) == [100, 900, 4_000]
    assert await market.balance() == 5_000
    assert await market.findings() == []
