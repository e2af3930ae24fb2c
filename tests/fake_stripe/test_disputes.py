"""Disputes: the money is gone at once, and comes back only when we win."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import stripe

if TYPE_CHECKING:
    from tests.support.stripe_shop import Shop


async def test_a_dispute_withdraws_the_money_and_winning_it_brings_it_back(shop: Shop) -> None:
    charge = await shop.charge_of(await shop.buy(await shop.price(1000)))

    dispute = shop.fake.dispute(charge)["id"]
    shop.fake.close_dispute(dispute, "won")

    shown = await shop.v1.disputes.retrieve_async(dispute, {"expand": ["charge"]})
    assert (shown.status, shown.amount, shown.charge.disputed) == ("won", 1000, True)
    assert [one.amount for one in shown.balance_transactions] == [-1000, 1000]
    assert shop.happened("charge.dispute") == [
        "charge.dispute.created",
        "charge.dispute.funds_withdrawn",
        "charge.dispute.closed",
        "charge.dispute.funds_reinstated",
    ]


async def test_a_lost_dispute_brings_nothing_back(shop: Shop) -> None:
    charge = await shop.charge_of(await shop.buy(await shop.price(1000)))
    dispute = shop.fake.dispute(charge, 400)["id"]

    closed = await shop.v1.disputes.close_async(dispute)

    assert (closed.status, closed.amount) == ("lost", 400)
    assert [one.amount for one in closed.balance_transactions] == [-400]
    assert shop.happened("charge.dispute")[-1] == "charge.dispute.closed"


async def test_evidence_decides_as_in_test_mode(shop: Shop) -> None:
    charge = await shop.charge_of(await shop.buy(await shop.price(1000)))
    dispute = shop.fake.dispute(charge)["id"]

    staged = await shop.v1.disputes.update_async(
        dispute, {"evidence": {"customer_name": "Pat"}, "submit": False}
    )
    decided = await shop.v1.disputes.update_async(
        dispute, {"evidence": {"uncategorized_text": "winning_evidence"}}
    )

    assert (staged.status, staged.evidence_details.has_evidence) == ("needs_response", True)
    assert (decided.status, decided.evidence_details.submission_count) == ("won", 1)


async def test_an_inquiry_withdraws_nothing_and_may_be_refunded(shop: Shop) -> None:
    charge = await shop.charge_of(await shop.buy(await shop.price(1000)))

    dispute = shop.fake.dispute(charge, inquiry=True)
    await shop.v1.refunds.create_async({"charge": charge})
    shop.fake.close_dispute(dispute["id"], "warning_closed")

    assert dispute["balance_transactions"] == []
    assert shop.happened("charge.dispute") == ["charge.dispute.created", "charge.dispute.closed"]


async def test_a_disputed_charge_is_neither_refunded_nor_disputed_again(shop: Shop) -> None:
    charge = await shop.charge_of(await shop.buy(await shop.price(1000)))
    shop.fake.dispute(charge)

    with pytest.raises(stripe.InvalidRequestError) as caught:
        await shop.v1.refunds.create_async({"charge": charge})
    assert caught.value.code == "charge_disputed"
    with pytest.raises(Exception, match="can't be disputed"):
        shop.fake.dispute(charge)


async def test_a_decided_dispute_stays_decided(shop: Shop) -> None:
    charge = await shop.charge_of(await shop.buy(await shop.price(1000)))
    dispute = shop.fake.dispute(charge)["id"]
    shop.fake.close_dispute(dispute, "lost")

    with pytest.raises(stripe.InvalidRequestError):
        await shop.v1.disputes.update_async(dispute, {"evidence": {"customer_name": "Pat"}})
    with pytest.raises(Exception, match="can't end"):
        shop.fake.close_dispute(dispute, "won")
