"""A pack whose owner has Checkout draw up an invoice is given by that alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from tests.support.market import DAY_S, PACK, opened_market

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.fake_stripe.payment_methods import Behaviour
    from tests.support.market import Market


@pytest_asyncio.fixture
async def market(clean_redis_url: str, postgres_url: str) -> AsyncIterator[Market]:
    async with opened_market(clean_redis_url, postgres_url, ago_s=2 * DAY_S) as opened:
        yield opened


async def bought_before_its_invoice_was_there(
    market: Market, card: Behaviour, **session: Any
) -> None:
    """Stripe draws it up once it is paid; the fake does so at once, and so it is hidden."""
    made = await market.shop.session(
        market.prices[PACK.slug, ""], invoice_creation={"enabled": True}, **session
    )
    market.fake.complete_checkout(made, card)
    stored = market.fake.store.get("checkout.session", made)
    events = market.waiting()
    invoice, stored["invoice"] = stored["invoice"], None
    await market.handle((e for e in events if e["type"] == "checkout.session.completed"), thin=True)
    stored["invoice"] = invoice
    await market.handle(events, thin=True)
    await market.fake.advance(days=5)
    await market.catch_up()


@pytest.mark.parametrize("card", ["works", "async"])
async def test_it_is_given_and_booked_once(market: Market, card: Behaviour) -> None:
    await bought_before_its_invoice_was_there(market, card, customer=await market.customer())

    assert [lot.credits for lot in await market.lots("pack")] == [300]
    assert await market.payments() == [("other", "succeeded", 1_500)]
    assert await market.findings() == []


async def test_whose_it_is_the_session_says(market: Market) -> None:
    await bought_before_its_invoice_was_there(
        market,
        "works",
        customer=await market.shop.customer(),
        client_reference_id=str(market.account_id),
        metadata={"tollkeeper_platform": "demo"},
    )

    assert [lot.credits for lot in await market.lots("pack")] == [300]
