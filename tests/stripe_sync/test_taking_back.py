"""Money that goes back takes the credits with it: in proportion, together, and exactly."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from gateway.stripe_sync.charges import look_at_charge, sync_charge, sync_refund
from gateway.stripe_sync.events import Hint
from gateway.stripe_sync.refunds import take_back_of
from tests.support.deployment import CREDIT

if TYPE_CHECKING:
    from tests.support.payments_made import Till

DAY_MS = 86_400_000


def now_ms() -> int:
    return time.time_ns() // 1_000_000


async def test_a_refund_takes_all_that_was_not_used(till: Till) -> None:
    bought = await till.buy({"microcredits": 100 * CREDIT})
    await till.refund(bought)

    await look_at_charge(till.sync, bought.charge_id)

    assert (await till.balance(), await till.owed()) == (0, 0)
    assert await till.payment(bought) == ("refunded", 1_000, 0)
    assert await till.findings() == []


async def test_what_was_spent_is_owed_and_the_next_grant_pays_it(till: Till) -> None:
    bought = await till.buy({"microcredits": 100 * CREDIT})
    await till.spend(70 * CREDIT)
    await till.refund(bought)

    await look_at_charge(till.sync, bought.charge_id)

    assert (await till.balance(), await till.owed()) == (0, 70 * CREDIT)

    again = await till.buy({"microcredits": 100 * CREDIT})
    assert (await till.balance(), await till.owed()) == (30 * CREDIT, 0)
    assert await till.left(again.grant_ids[0]) == 30 * CREDIT
    assert await till.findings() == []


async def test_refunds_in_parts_add_up_without_rounding_twice(till: Till) -> None:
    bought = await till.buy({"microcredits": 100}, amount_minor=900)
    left = []
    for amount in (300, 300, 299, 1):
        await till.refund(bought, amount)
        await look_at_charge(till.sync, bought.charge_id)
        left.append(await till.balance())

    assert left == [100 - 33, 100 - 66, 100 - 99, 0]  # floor(100 x 300/900), 600, 899, 900
    assert await till.owed() == 0
    assert await till.findings() == []


async def test_events_that_come_again_or_late_change_nothing(till: Till) -> None:
    bought = await till.buy({"microcredits": 100 * CREDIT})
    first = await till.refund(bought, 250)
    second = await till.refund(bought, 250)
    hints = [
        Hint("refund.created", second, 0),
        Hint("charge.refunded", bought.charge_id, 0),
        Hint("refund.created", first, 0, {"charge": bought.charge_id}),
    ]
    for hint in [*hints, *hints]:
        handler = sync_charge if hint.type.startswith("charge") else sync_refund
        await handler(till.sync, hint)

    assert await till.balance() == 50 * CREDIT
    assert await till.payment(bought) == ("succeeded", 500, 0)
    assert await till.findings() == []


async def test_many_at_once_take_it_once(till: Till) -> None:
    bought = await till.buy({"microcredits": 100 * CREDIT})
    await till.spend(90 * CREDIT)
    await till.refund(bought, 500)

    await asyncio.gather(
        *(take_back_of(till.sync, bought.transaction_id) for _ in range(6)),
        return_exceptions=True,  # one who finds another at it comes again
    )
    await take_back_of(till.sync, bought.transaction_id)

    assert (await till.balance(), await till.owed()) == (0, 40 * CREDIT)
    assert await till.findings() == []


async def test_a_refund_that_fails_gives_the_credits_again(till: Till) -> None:
    bought = await till.buy({"microcredits": 100 * CREDIT}, card="refund fails")
    await till.spend(30 * CREDIT)
    refund_id = await till.refund(bought)
    await look_at_charge(till.sync, bought.charge_id)
    assert (await till.balance(), await till.owed()) == (0, 30 * CREDIT)

    await till.shop.fake.advance(days=2)
    await sync_refund(till.sync, Hint("refund.failed", refund_id, 0))

    assert (await till.balance(), await till.owed()) == (70 * CREDIT, 0)
    assert await till.left(bought.grant_ids[0]) == 70 * CREDIT
    assert await till.payment(bought) == ("succeeded", 0, 0)
    assert await till.findings() == []


async def test_a_refund_takes_of_the_months_of_a_yearly_price_that_end_last(till: Till) -> None:
    months = [
        {
            "microcredits": 100 * CREDIT,
            "source": "plan",
            "effective_ms": now_ms() + (month * 30 - 1) * DAY_MS,
            "expires_ms": now_ms() + (month * 30 + 29) * DAY_MS,
        }
        for month in range(12)
    ]
    bought = await till.buy(*months, amount_minor=12_000)
    await till.spend(60 * CREDIT)
    await till.refund(bought, 6_500)

    await look_at_charge(till.sync, bought.charge_id)

    left = [await till.left(grant_id) // CREDIT for grant_id in bought.grant_ids]
    assert left == [40, 100, 100, 100, 100, 50, 0, 0, 0, 0, 0, 0]
    assert await till.owed() == 0
    await till.refund(bought)
    await look_at_charge(till.sync, bought.charge_id)
    assert (await till.balance(), await till.owed()) == (0, 60 * CREDIT)
    assert await till.findings() == []


async def test_other_payments_keep_their_credits(till: Till) -> None:
    kept = await till.buy({"microcredits": 50 * CREDIT})
    bought = await till.buy({"microcredits": 100 * CREDIT, "priority": 10})
    await till.refund(bought)

    await look_at_charge(till.sync, bought.charge_id)

    assert await till.balance() == await till.left(kept.grant_ids[0]) == 50 * CREDIT


async def test_what_a_running_call_holds_stays_its_own_and_is_owed(till: Till) -> None:
    bought = await till.buy({"microcredits": 100 * CREDIT})
    call_id = await till.deployment.hold(till.caller, 40 * CREDIT)
    await till.refund(bought)

    await look_at_charge(till.sync, bought.charge_id)
    assert (await till.balance(), await till.owed()) == (0, 40 * CREDIT)

    await till.deployment.settle(till.caller, call_id, 15 * CREDIT)
    assert (await till.balance(), await till.owed()) == (25 * CREDIT, 40 * CREDIT)
    assert await till.findings() == []


async def test_what_had_ended_unused_is_not_owed(till: Till) -> None:
    bought = await till.buy({"microcredits": 100 * CREDIT})
    await till.spend(60 * CREDIT)
    await till.deployment.ledger.revoke_grant(bought.grant_ids[0])
    await till.sync.tell(till.account_id)
    await till.deployment.counters.withdraw(
        till.caller.keys,
        "ab" * 16,
        "revoke",
        bought.grant_ids[0],
        None,
        platform_id=till.deployment.platform_id,
    )

    await till.refund(bought, 500)
    await look_at_charge(till.sync, bought.charge_id)
    assert await till.owed() == 10 * CREDIT  # of 50, 40 had ended unused

    await till.refund(bought)
    await look_at_charge(till.sync, bought.charge_id)
    assert await till.owed() == 60 * CREDIT  # what was spent, and no more
    assert await till.findings() == []


async def test_what_had_ended_but_was_not_withdrawn_yet_does_not_come_again(till: Till) -> None:
    bought = await till.buy(
        {
            "microcredits": 100 * CREDIT,
            "effective_ms": now_ms() - 2 * DAY_MS,
            "expires_ms": now_ms() - DAY_MS,
        }
    )
    before = await till.grants()
    dispute = till.shop.fake.dispute(bought.charge_id)
    await look_at_charge(till.sync, bought.charge_id)
    till.shop.fake.close_dispute(dispute["id"], "won")
    await look_at_charge(till.sync, bought.charge_id)

    assert await till.grants() == before
    assert await till.owed() == 0
    assert await till.payment(bought) == ("succeeded", 0, 0)
    assert await till.findings() == []


async def test_a_payment_is_found_at_stripe_where_its_row_names_no_charge(till: Till) -> None:
    bought = await till.buy({"microcredits": 100 * CREDIT}, known=False)
    await till.refund(bought)

    assert await look_at_charge(till.sync, bought.charge_id) == bought.transaction_id
    assert await till.balance() == 0
    charge_id = await till.sql(
        "SELECT charge_id FROM billing_transactions WHERE id = $1", bought.transaction_id
    )
    assert charge_id == bought.charge_id


async def test_a_refund_that_was_there_first_is_seen_when_the_payment_is_written(
    till: Till,
) -> None:
    session = await till.shop.buy(await till.shop.price(1_000), customer=till.customer_id)
    charge_id = await till.shop.charge_of(session)
    await till.shop.v1.refunds.create_async({"charge": charge_id, "amount": 400})
    assert await look_at_charge(till.sync, charge_id) is None  # nobody knows the payment yet

    transaction_id = await till.rows.transaction(
        till.account_id,
        business_key=f"checkout:{session['id']}",
        payment_intent_id=session["payment_intent"],
        amount_minor=1_000,
    )
    await till.give(transaction_id, {"microcredits": 100 * CREDIT})
    await take_back_of(till.sync, transaction_id)

    assert await till.balance() == 60 * CREDIT


async def test_a_charge_of_something_else_is_left_alone(till: Till) -> None:
    session = await till.shop.buy(await till.shop.price(1_000))
    charge_id = await till.shop.charge_of(session)

    assert await look_at_charge(till.sync, charge_id) is None
    assert await look_at_charge(till.sync, "ch_unknown") is None


@pytest.mark.parametrize("granted", [0, 100 * CREDIT])
async def test_a_payment_that_gave_nothing_is_only_written(till: Till, granted: int) -> None:
    lots = [{"microcredits": granted}] if granted else []
    bought = await till.buy(*lots)
    await till.refund(bought, 100)
    await look_at_charge(till.sync, bought.charge_id)

    assert await till.payment(bought) == ("succeeded", 100, 0)
    assert await till.balance() == granted - granted // 10
