"""The newer of two subscriptions serves; the older is flagged, or cancelled and paid back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from gateway.jobs.dunning import look_at_platform
from gateway.stripe_sync import superseded
from gateway.stripe_sync.errors import StripeRefusedError
from policies.billing_options import OlderSubscription
from tests.support.billing_calendar import Died
from tests.support.market import DAY_S, opened_market

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.stripe_sync.sync import Sync
    from tests.support.market import Market


@pytest_asyncio.fixture
async def flagging(clean_redis_url: str, postgres_url: str) -> AsyncIterator[Market]:
    async with opened_market(clean_redis_url, postgres_url, ago_s=DAY_S) as opened:
        yield opened


@pytest_asyncio.fixture
async def cancelling(clean_redis_url: str, postgres_url: str) -> AsyncIterator[Market]:
    async with opened_market(
        clean_redis_url,
        postgres_url,
        ago_s=10 * DAY_S,
        older_subscription=OlderSubscription.CANCEL,
    ) as opened:
        yield opened


async def test_the_newer_serves_and_the_older_is_told_of_once(flagging: Market) -> None:
    older = await flagging.subscribe("max")
    await flagging.advance_to_now()
    newer = await flagging.subscribe("pro")
    events = flagging.waiting()
    await flagging.handle(reversed(events), thin=True)
    await flagging.handle(events)
    assert await flagging.standing() == ("pro", "subscription", False)
    assert await flagging.balance() == 6_000  # both were paid for
    assert await flagging.events() == ["subscription_superseded"]
    assert await flagging.row(
        "SELECT superseded_by, serves FROM subscriptions WHERE stripe_id = $1", older.id
    ) == (newer.id, False)

    await flagging.shop.v1.subscriptions.cancel_async(newer.id)
    await flagging.catch_up()
    assert await flagging.standing() == ("max", "subscription", False)
    assert (
        await flagging.sql("SELECT superseded_by FROM subscriptions WHERE stripe_id = $1", older.id)
        is None
    )
    assert await flagging.findings() == []


async def test_the_older_is_cancelled_and_its_rest_paid_back_once(cancelling: Market) -> None:
    older = await cancelling.subscribe("max")
    await cancelling.advance_to_now()
    await cancelling.subscribe("pro")
    events = cancelling.waiting()
    await cancelling.handle(events)
    await cancelling.handle(events + cancelling.waiting())
    await look_at_platform(cancelling.sync)
    gone = await cancelling.shop.v1.subscriptions.retrieve_async(older.id)
    assert gone.status == "canceled"
    refunds = (await cancelling.shop.v1.refunds.list_async({})).data
    item = older.to_dict()["items"]["data"][0]
    span_s = item["current_period_end"] - item["current_period_start"]
    rest = 9_000 * (span_s - 10 * DAY_S) // span_s
    assert len(refunds) == 1
    assert rest - 5 <= refunds[0].amount <= rest  # some seconds have passed
    assert await cancelling.standing() == ("pro", "subscription", False)
    # The credits of the rest went with it, in proportion.
    taken = 5_000 * 1_000_000 * refunds[0].amount // 9_000
    left = await cancelling.sql(
        "SELECT sum(amount_microcredits - revoked_microcredits)::bigint FROM grants"
        " WHERE source = 'plan' AND amount_microcredits = 5000000000"
    )
    assert left == 5_000 * 1_000_000 - taken
    assert await cancelling.findings() == []


async def test_whoever_dies_between_refund_and_cancellation_refunds_nothing_twice(
    cancelling: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = await cancelling.subscribe("max")
    await cancelling.advance_to_now()
    await cancelling.subscribe("pro")
    ask = cancelling.sync.api.ask

    async def dying(request: object) -> object:
        refunds = len((await cancelling.shop.v1.refunds.list_async({})).data)
        if refunds:
            raise Died
        return await ask(request)  # type: ignore[arg-type] # whatever was asked

    monkeypatch.setattr(cancelling.sync.api, "ask", dying)
    with pytest.raises(Died):
        await cancelling.catch_up()
    monkeypatch.undo()
    assert await look_at_platform(cancelling.sync) == 0
    await cancelling.handle(cancelling.fake.events())
    gone = await cancelling.shop.v1.subscriptions.retrieve_async(older.id)
    assert gone.status == "canceled"
    assert len((await cancelling.shop.v1.refunds.list_async({})).data) == 1
    assert await cancelling.findings() == []


async def test_the_older_is_cancelled_although_most_of_it_was_given_back_by_hand(
    cancelling: Market,
) -> None:
    older = await cancelling.subscribe("max")
    intent = await intent_of(cancelling, older.latest_invoice)
    refunds = cancelling.shop.v1.refunds
    await refunds.create_async({"payment_intent": intent, "amount": 8_000})
    await cancelling.advance_to_now()
    await cancelling.subscribe("pro")

    await cancelling.catch_up()

    gone = await cancelling.shop.v1.subscriptions.retrieve_async(older.id)
    assert gone.status == "canceled"
    given = sorted(refund.amount for refund in (await refunds.list_async({})).data)
    assert len(given) == 2
    assert 600 <= given[0] <= 700  # of the 1000 that are left: 20 or 21 of 30 or 31 days
    assert await cancelling.findings() == []


async def test_the_older_is_cancelled_although_its_payer_asks_the_bank_for_the_money(
    cancelling: Market,
) -> None:
    older = await cancelling.subscribe("max")
    intent = await intent_of(cancelling, older.latest_invoice)
    charge = (await cancelling.shop.v1.payment_intents.retrieve_async(intent)).latest_charge
    cancelling.fake.dispute(charge)
    await cancelling.advance_to_now()
    await cancelling.subscribe("pro")

    await cancelling.catch_up()

    gone = await cancelling.shop.v1.subscriptions.retrieve_async(older.id)
    assert gone.status == "canceled"
    assert (await cancelling.shop.v1.refunds.list_async({})).data == []


async def test_one_that_stripe_will_not_cancel_keeps_no_other_from_it(
    cancelling: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await cancelling.subscribe("max")
    second = await cancelling.subscribe("max")
    await cancelling.advance_to_now()
    await cancelling.subscribe("pro")
    cancel = superseded._cancel

    async def refusing(sync: Sync, subscription_id: str, now_ms: int) -> None:
        if subscription_id == first.id:
            raise StripeRefusedError("this one not")
        await cancel(sync, subscription_id, now_ms)

    monkeypatch.setattr(superseded, "_cancel", refusing)
    await cancelling.catch_up()

    gone = await cancelling.shop.v1.subscriptions.retrieve_async(second.id)
    assert gone.status == "canceled"


async def intent_of(market: Market, invoice: str) -> str:
    """The intent that paid an invoice."""
    made = await market.shop.v1.invoice_payments.list_async({"invoice": invoice})
    return str(made.data[0].payment.payment_intent)
