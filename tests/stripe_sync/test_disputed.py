"""Disputes take credits at once; one that is won gives them again, one that is lost does not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.stripe_sync.disputes import sync_dispute
from gateway.stripe_sync.events import Hint
from tests.support.deployment import CREDIT

if TYPE_CHECKING:
    from tests.support.payments_made import Bought, Till


async def told(till: Till, dispute_id: str, kind: str = "updated") -> None:
    """An event of the dispute comes."""
    await sync_dispute(till.sync, Hint(f"charge.dispute.{kind}", dispute_id, 0))


async def disputed(till: Till, bought: Bought, amount: int | None = None) -> str:
    """A payment is disputed, and we hear of it; the dispute's id."""
    dispute_id = till.shop.fake.dispute(bought.charge_id, amount)["id"]
    await told(till, dispute_id, "created")
    return str(dispute_id)


async def events(till: Till) -> list[str]:
    """Kinds of events of the account, in their order."""
    return [event.kind for event in await till.deployment.ledger.events(till.account_id)]


async def test_a_dispute_that_is_lost_stays_taken(till: Till) -> None:
    bought = await till.buy({"microcredits": 100 * CREDIT})
    await till.spend(30 * CREDIT)
    dispute_id = await disputed(till, bought)
    assert (await till.balance(), await till.owed()) == (0, 30 * CREDIT)

    till.shop.fake.close_dispute(dispute_id, "lost")
    await told(till, dispute_id, "closed")
    await told(till, dispute_id, "funds_withdrawn")

    assert (await till.balance(), await till.owed()) == (0, 30 * CREDIT)
    assert await till.payment(bought) == ("succeeded", 0, 1_000)
    assert await events(till) == ["credits_taken_back", "dispute_opened", "dispute_closed"]
    assert await till.findings() == []


async def test_a_dispute_that_is_won_gives_all_of_it_again(till: Till) -> None:
    bought = await till.buy({"microcredits": 100 * CREDIT})
    await till.spend(30 * CREDIT)
    dispute_id = await disputed(till, bought)

    till.shop.fake.close_dispute(dispute_id, "won")
    await told(till, dispute_id, "funds_reinstated")
    await told(till, dispute_id, "closed")

    assert (await till.balance(), await till.owed()) == (70 * CREDIT, 0)
    assert await till.left(bought.grant_ids[0]) == 70 * CREDIT
    assert await till.payment(bought) == ("succeeded", 0, 0)
    assert await till.findings() == []


async def test_what_a_later_grant_paid_for_comes_again_as_a_lot(till: Till) -> None:
    bought = await till.buy({"microcredits": 100 * CREDIT})
    await till.spend(30 * CREDIT)
    dispute_id = await disputed(till, bought)
    later = await till.buy({"microcredits": 50 * CREDIT})
    assert await till.left(later.grant_ids[0]) == 20 * CREDIT

    till.shop.fake.close_dispute(dispute_id, "won")
    await told(till, dispute_id, "closed")

    assert (await till.balance(), await till.owed()) == (120 * CREDIT, 0)
    assert await till.left(bought.grant_ids[0]) == 70 * CREDIT
    assert (await till.grants())[-1] == ("refund", 30 * CREDIT)
    assert await till.findings() == []


async def test_a_lot_that_has_ended_meanwhile_is_given_anew(till: Till) -> None:
    bought = await till.buy({"microcredits": 100 * CREDIT})
    dispute_id = await disputed(till, bought)
    await till.deployment.ledger.revoke_grant(bought.grant_ids[0])
    till.shop.fake.close_dispute(dispute_id, "won")

    await told(till, dispute_id, "closed")

    assert (await till.grants())[-1] == ("refund", 100 * CREDIT)
    assert await till.balance() == 100 * CREDIT
    assert await till.findings() == []


async def test_what_is_owed_for_another_payment_is_forgiven_first(till: Till) -> None:
    first = await till.buy({"microcredits": 100 * CREDIT})
    dispute_id = await disputed(till, first)
    second = await till.buy({"microcredits": 60 * CREDIT})
    await till.spend(60 * CREDIT)
    await disputed(till, second)
    assert (await till.balance(), await till.owed()) == (0, 60 * CREDIT)

    till.shop.fake.close_dispute(dispute_id, "won")
    await told(till, dispute_id, "closed")

    assert (await till.balance(), await till.owed()) == (40 * CREDIT, 0)
    assert await till.findings() == []


async def test_part_of_it_was_refunded_before(till: Till) -> None:
    bought = await till.buy({"microcredits": 100 * CREDIT})
    await till.refund(bought, 400)
    dispute_id = await disputed(till, bought, 600)
    assert (await till.balance(), await till.payment(bought)) == (0, ("succeeded", 400, 600))

    till.shop.fake.close_dispute(dispute_id, "won")
    await told(till, dispute_id, "closed")

    assert await till.balance() == 60 * CREDIT
    assert await till.findings() == []


async def test_an_inquiry_takes_nothing(till: Till) -> None:
    bought = await till.buy({"microcredits": 100 * CREDIT})
    inquiry = till.shop.fake.dispute(bought.charge_id, inquiry=True)["id"]

    await told(till, inquiry, "created")

    assert await till.balance() == 100 * CREDIT
    assert await events(till) == ["dispute_opened"]


async def test_a_payment_that_is_taken_again_takes_what_was_given_again(till: Till) -> None:
    bought = await till.buy({"microcredits": 100 * CREDIT})
    await till.spend(20 * CREDIT)
    dispute_id = await disputed(till, bought)
    await till.deployment.ledger.revoke_grant(bought.grant_ids[0])
    till.shop.fake.close_dispute(dispute_id, "won")
    await told(till, dispute_id, "closed")
    assert (await till.balance(), await till.owed()) == (80 * CREDIT, 0)

    await till.shop.v1.disputes.retrieve_async(dispute_id)
    till.shop.fake.store.get("charge", bought.charge_id)["_refundable"] = True
    await till.refund(bought)
    await told(till, dispute_id)

    assert (await till.balance(), await till.owed()) == (0, 20 * CREDIT)
    assert await till.findings() == []


async def test_a_dispute_of_something_else_is_left_alone(till: Till) -> None:
    session = await till.shop.buy(await till.shop.price(1_000))
    charge_id = await till.shop.charge_of(session)
    await told(till, till.shop.fake.dispute(charge_id)["id"])
    await told(till, "du_unknown")

    assert await events(till) == []
