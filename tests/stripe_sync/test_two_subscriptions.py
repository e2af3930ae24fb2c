"""The newer of two subscriptions serves; the older is flagged, or cancelled and paid back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from gateway.jobs.dunning import look_at_platform
from policies.billing_options import OlderSubscription
from tests.support.billing_calendar import Died
from tests.support.market import DAY_S, opened_market

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

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
