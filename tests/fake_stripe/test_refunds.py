"""Refunds: in parts, in full, those that come back, and those that are refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import stripe

if TYPE_CHECKING:
    from tests.support.stripe_shop import Shop


async def test_parts_add_up_until_the_charge_is_refunded(shop: Shop) -> None:
    charge = await shop.charge_of(await shop.buy(await shop.price(1000)))

    await shop.v1.refunds.create_async({"charge": charge, "amount": 300})
    partly = await shop.v1.charges.retrieve_async(charge)
    await shop.v1.refunds.create_async({"charge": charge})
    fully = await shop.v1.charges.retrieve_async(charge, {"expand": ["refunds"]})

    assert (partly.amount_refunded, partly.refunded) == (300, False)
    assert (fully.amount_refunded, fully.refunded) == (1000, True)
    assert [one.amount for one in fully.refunds.data] == [700, 300]
    assert shop.happened("refund", "charge.refund") == ["refund.created", "charge.refunded"] * 2


async def test_the_event_says_what_was_refunded_before(shop: Shop) -> None:
    charge = await shop.charge_of(await shop.buy(await shop.price(1000)))

    await shop.v1.refunds.create_async({"charge": charge, "amount": 300})

    (event,) = shop.fake.events("charge.refunded")
    assert event["data"]["object"]["amount_refunded"] == 300
    assert event["data"]["previous_attributes"] == {"amount_refunded": 0}


async def test_more_than_is_left_is_refused(shop: Shop) -> None:
    charge = await shop.charge_of(await shop.buy(await shop.price(1000)))
    await shop.v1.refunds.create_async({"charge": charge, "amount": 800})

    with pytest.raises(stripe.InvalidRequestError, match="greater than unrefunded amount"):
        await shop.v1.refunds.create_async({"charge": charge, "amount": 201})
    await shop.v1.refunds.create_async({"charge": charge, "amount": 200})
    with pytest.raises(stripe.InvalidRequestError) as caught:
        await shop.v1.refunds.create_async({"charge": charge})

    assert caught.value.code == "charge_already_refunded"


async def test_a_refund_that_fails_counts_no_more(shop: Shop) -> None:
    charge = await shop.charge_of(await shop.buy(await shop.price(1000), "refund fails"))
    refund = await shop.v1.refunds.create_async({"charge": charge})
    assert refund.status == "succeeded"

    await shop.fake.advance(days=1)

    failed = await shop.v1.refunds.retrieve_async(refund.id)
    shown = await shop.v1.charges.retrieve_async(charge)
    assert (failed.status, failed.failure_reason) == ("failed", "lost_or_stolen_card")
    assert (shown.amount_refunded, shown.refunded) == (0, False)
    assert shop.happened("refund") == ["refund.created", "refund.failed", "refund.updated"]


async def test_a_refund_to_a_bank_account_is_pending_for_days(shop: Shop) -> None:
    session = await shop.buy(await shop.price(1000), "async")
    await shop.fake.advance(days=4)

    refund = await shop.v1.refunds.create_async({"payment_intent": session["payment_intent"]})
    assert refund.status == "pending"
    await shop.fake.advance(days=5)

    assert (await shop.v1.refunds.retrieve_async(refund.id)).status == "succeeded"


async def test_a_charge_that_took_nothing_has_nothing_to_refund(shop: Shop) -> None:
    session = await shop.buy(await shop.price(1000), "async")
    charge = await shop.charge_of(session)

    with pytest.raises(stripe.InvalidRequestError):
        await shop.v1.refunds.create_async({"charge": charge})
