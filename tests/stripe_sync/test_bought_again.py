"""What was paid for, given back and bought again is given again, whenever it is heard of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from tests.support.market import DAY_S, opened_market

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.market import Market

GAP_S = 600
HEARD = ("in time", "late", "reversed")


@pytest_asyncio.fixture
async def market(clean_redis_url: str, postgres_url: str) -> AsyncIterator[Market]:
    async with opened_market(clean_redis_url, postgres_url, ago_s=DAY_S) as opened:
        yield opened


class Hearer:
    """Hears of what happens at once, or of all of it at the end."""

    def __init__(self, market: Market, heard: str) -> None:
        self._market = market
        self._heard = heard

    async def deed_done(self) -> None:
        """Some time passes after each deed."""
        if self._heard == "in time":
            await self._market.catch_up()
        await self._market.fake.advance(seconds=GAP_S)

    async def all_done(self) -> None:
        """Nothing more happens."""
        events = self._market.waiting()
        if self._heard == "reversed":
            events.reverse()
        # What could not be told yet comes again.
        await self._market.handle(events)
        await self._market.handle(events)


async def intent_of(market: Market, invoice_id: str) -> str:
    """The payment of an invoice."""
    made = await market.shop.v1.invoice_payments.list_async({"invoice": invoice_id})
    return str(made.data[0].to_dict()["payment"]["payment_intent"])


async def give_back(market: Market, invoice_id: str, amount: int | None = None) -> None:
    """The owner refunds an invoice, all or some of it."""
    params: dict[str, Any] = {"payment_intent": await intent_of(market, invoice_id)}
    if amount is not None:
        params["amount"] = amount
    await market.shop.v1.refunds.create_async(params)


async def dispute(market: Market, invoice_id: str) -> str:
    """The payer's bank draws an invoice's money; the dispute's id."""
    intent = await market.shop.v1.payment_intents.retrieve_async(
        await intent_of(market, invoice_id)
    )
    return str(market.fake.dispute(str(intent.latest_charge))["id"])


async def put_down(market: Market, subscription_id: str, interval: str = "month") -> None:
    """The owner sets the plan back to the cheaper one, and no money moves."""
    whole = await market.shop.v1.subscriptions.retrieve_async(subscription_id)
    item = whole.to_dict()["items"]["data"][0]["id"]
    await market.shop.v1.subscriptions.update_async(
        subscription_id,
        {
            "items": [{"id": item, "price": market.prices["pro", interval]}],
            "proration_behavior": "none",
        },
    )


async def upgraded(market: Market, heard: str, interval: str = "month") -> tuple[Hearer, Any, Any]:
    """Who hears of it; a new subscription, and as it was after its first upgrade."""
    hearer = Hearer(market, heard)
    made = await market.subscribe("pro", interval)
    await hearer.deed_done()
    first = await market.change(made.id, "max", interval)
    await hearer.deed_done()
    return hearer, made, first


@pytest.mark.parametrize("heard", HEARD)
async def test_an_upgrade_that_was_given_back_is_bought_again(market: Market, heard: str) -> None:
    hearer, made, first = await upgraded(market, heard)
    await give_back(market, first.latest_invoice)
    await hearer.deed_done()
    await put_down(market, made.id)
    await hearer.deed_done()
    await market.change(made.id, "max")
    await hearer.all_done()
    assert await market.balance() == 5_000
    assert sorted(lot.credits for lot in await market.lots("plan")) == [1_000, 4_000, 4_000]
    assert await market.findings() == []


@pytest.mark.parametrize("heard", HEARD)
async def test_of_an_upgrade_that_was_given_back_by_half_only_that_is_given_again(
    market: Market, heard: str
) -> None:
    hearer, made, first = await upgraded(market, heard)
    invoice = await market.shop.v1.invoices.retrieve_async(first.latest_invoice)
    assert invoice.total % 2 == 0
    await give_back(market, first.latest_invoice, invoice.total // 2)
    await hearer.deed_done()
    await put_down(market, made.id)
    await hearer.deed_done()
    await market.change(made.id, "max")
    await hearer.all_done()
    assert await market.balance() == 5_000
    assert sorted(lot.credits for lot in await market.lots("plan")) == [1_000, 2_000, 4_000]
    assert await market.findings() == []


@pytest.mark.parametrize("heard", HEARD)
async def test_what_goes_back_after_it_was_bought_again_is_taken_and_not_given_again(
    market: Market, heard: str
) -> None:
    hearer, made, first = await upgraded(market, heard)
    await put_down(market, made.id)
    await hearer.deed_done()
    await market.change(made.id, "max")
    await hearer.deed_done()
    await give_back(market, first.latest_invoice)
    await hearer.all_done()
    assert await market.balance() == 1_000
    assert sorted(lot.credits for lot in await market.lots("plan")) == [1_000, 4_000]
    assert await market.findings() == []


@pytest.mark.parametrize("heard", HEARD)
async def test_an_upgrade_whose_money_the_bank_had_drawn_is_given_again(
    market: Market, heard: str
) -> None:
    hearer, made, first = await upgraded(market, heard)
    dispute_id = await dispute(market, first.latest_invoice)
    await hearer.deed_done()
    await put_down(market, made.id)
    await hearer.deed_done()
    await market.change(made.id, "max")
    await hearer.deed_done()
    # What was bought again stays bought: whoever paid twice has it twice.
    market.fake.close_dispute(dispute_id, "won")
    await hearer.all_done()
    assert await market.balance() == 9_000
    assert await market.findings() == []


@pytest.mark.parametrize("heard", HEARD)
async def test_a_year_that_was_given_back_by_half_gives_again_the_months_that_were_taken(
    market: Market, heard: str
) -> None:
    hearer, made, first = await upgraded(market, heard, "year")
    invoice = await market.shop.v1.invoices.retrieve_async(first.latest_invoice)
    await give_back(market, first.latest_invoice, invoice.total // 2)
    await hearer.deed_done()
    await put_down(market, made.id, "year")
    await hearer.deed_done()
    await market.change(made.id, "max", "year")
    await hearer.all_done()
    assert await market.balance() == 5_000
    months = await market.sql(
        "SELECT array_agg(sum ORDER BY expires_at) FROM (SELECT expires_at, sum("
        "amount_microcredits - revoked_microcredits)::bigint / 1000000 AS sum FROM grants"
        " WHERE source = 'plan' GROUP BY expires_at) AS months"
    )
    assert months == [5_000] * 12
    assert await market.findings() == []


async def test_who_hears_of_the_last_payment_only_gives_and_takes_all_that_was_before_it(
    market: Market,
) -> None:
    made = await market.subscribe("pro")
    await market.fake.advance(seconds=GAP_S)
    first = await market.change(made.id, "max")
    await market.fake.advance(seconds=GAP_S)
    await give_back(market, first.latest_invoice)
    await market.fake.advance(seconds=GAP_S)
    await put_down(market, made.id)
    await market.fake.advance(seconds=GAP_S)
    last = await market.change(made.id, "max")
    events = [
        event
        for event in market.waiting()
        if event["type"] == "invoice.paid" and event["data"]["object"]["id"] == last.latest_invoice
    ]
    # Of all others, that of the refund too, we never hear.
    assert await market.handle(events) == 1
    assert await market.balance() == 5_000
    assert sorted(lot.credits for lot in await market.lots("plan")) == [1_000, 4_000, 4_000]
    assert await market.findings() == []
