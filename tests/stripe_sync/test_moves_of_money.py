"""Each move of a payment's money is kept with its time, as Stripe has it now."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import asyncpg

from gateway.stripe_sync.charges import look_at_charge, sync_charge, sync_refund
from gateway.stripe_sync.events import Hint
from gateway.stripe_sync.refunds import paid_back_before, take_back_of
from policies.money_back import PaidBack
from tests.support.deployment import CREDIT

if TYPE_CHECKING:
    from tests.support.fake_stripe.store import Object
    from tests.support.payments_made import Bought, Till

GIVES = {"microcredits": 100 * CREDIT}


async def moves(till: Till) -> list[tuple[int, int]]:
    """When all moves were made, in Stripe's seconds, and how much; they add up to what is gone."""
    connection = await asyncpg.connect(till.deployment.postgres_url)
    try:
        found = await connection.fetch(
            "SELECT to_ms(made_at) / 1000, amount_minor FROM billing_returns"
            " ORDER BY made_at, amount_minor DESC"
        )
        gone = await connection.fetchval(
            "SELECT sum(refunded_minor + disputed_minor)::bigint FROM billing_transactions"
        )
    finally:
        await connection.close()
    assert sum(row[1] for row in found) == gone
    return [tuple(row) for row in found]


async def later(till: Till, days: int = 40) -> int:
    """Let Stripe's time go on; it then."""
    await till.shop.fake.advance(days=days)
    return till.shop.fake.clock.now_s


def dispute_of(till: Till, dispute_id: str) -> Object:
    return till.shop.fake.store.get("dispute", dispute_id)


async def disputed(till: Till, amount: int | None = None) -> tuple[Bought, Object]:
    """A payment that a bank has drawn; the dispute as Stripe has it."""
    bought = await till.buy(GIVES.copy())
    await later(till)
    dispute = till.shop.fake.dispute(bought.charge_id, amount)
    return bought, dispute_of(till, dispute["id"])


async def test_each_refund_counts_when_it_was_made_however_often_and_late_it_is_heard_of(
    till: Till,
) -> None:
    bought = await till.buy(GIVES.copy())
    first_s = await later(till)
    first = await till.refund(bought, 300)
    second_s = await later(till)
    second = await till.refund(bought, 400)
    await later(till)

    for refund_id in (second, first, second):
        await sync_refund(till.sync, Hint("refund.created", refund_id, 0))
        assert await moves(till) == [(first_s, 300), (second_s, 400)]
    await sync_charge(till.sync, Hint("charge.refunded", bought.charge_id, 0))
    await asyncio.gather(
        *(take_back_of(till.sync, bought.transaction_id) for _ in range(4)),
        return_exceptions=True,  # one who finds another at it comes again
    )
    assert await moves(till) == [(first_s, 300), (second_s, 400)]


async def test_a_refund_that_failed_is_no_move(till: Till) -> None:
    bought = await till.buy(GIVES.copy(), card="refund fails")
    refund_id = await till.refund(bought, 300)
    await look_at_charge(till.sync, bought.charge_id)
    assert [amount for _, amount in await moves(till)] == [300]

    await later(till)
    await sync_refund(till.sync, Hint("refund.failed", refund_id, 0))

    assert await moves(till) == []


async def test_a_dispute_draws_when_it_draws_and_comes_again_when_it_is_won(till: Till) -> None:
    bought, dispute = await disputed(till, 600)
    drawn_s = till.shop.fake.clock.now_s
    await look_at_charge(till.sync, bought.charge_id)
    assert await moves(till) == [(drawn_s, 600)]

    won_s = await later(till)
    till.shop.fake.close_dispute(dispute["id"], "won")
    await look_at_charge(till.sync, bought.charge_id)

    assert await moves(till) == [(drawn_s, 600), (won_s, -600)]
    payment = await till.sync.ledger.payment(
        till.sync.platform_id, bought.transaction_id, livemode=False
    )
    assert payment is not None
    before = [
        await paid_back_before(till.sync, payment, moment_s * 1_000)
        for moment_s in (drawn_s, drawn_s + 1, won_s, won_s + 1)
    ]
    assert before == [PaidBack(), PaidBack(0, 600), PaidBack(0, 600), PaidBack()]


async def test_a_dispute_that_is_lost_and_an_inquiry_move_nothing_more(till: Till) -> None:
    bought, dispute = await disputed(till)
    drawn_s = till.shop.fake.clock.now_s
    other = await till.buy(GIVES.copy())
    till.shop.fake.dispute(other.charge_id, inquiry=True)
    await later(till)
    till.shop.fake.close_dispute(dispute["id"], "lost")
    for charge_id in (bought.charge_id, other.charge_id):
        await look_at_charge(till.sync, charge_id)

    assert await moves(till) == [(drawn_s, 1_000)]


async def test_amounts_are_the_payments_whatever_currency_the_balance_is_in(till: Till) -> None:
    bought, dispute = await disputed(till)
    till.shop.fake.close_dispute(dispute["id"], "won")
    for one, amount in zip(dispute["balance_transactions"], (-873, 871), strict=True):
        one |= {"amount": amount, "currency": "eur"}
    await look_at_charge(till.sync, bought.charge_id)

    assert [amount for _, amount in await moves(till)] == [1_000, -1_000]


async def test_what_a_bank_has_drawn_counts_with_its_dispute_where_no_drawing_is_listed(
    till: Till,
) -> None:
    bought, dispute = await disputed(till)
    drawn_s = till.shop.fake.clock.now_s
    listed = dispute["balance_transactions"].pop()
    await later(till)
    await look_at_charge(till.sync, bought.charge_id)
    assert await moves(till) == [(drawn_s, 1_000)]

    dispute["balance_transactions"].append(listed | {"created": drawn_s + 60})
    await look_at_charge(till.sync, bought.charge_id)
    assert await moves(till) == [(drawn_s + 60, 1_000)]

    dispute |= {"status": "won", "balance_transactions": []}
    await look_at_charge(till.sync, bought.charge_id)
    assert await moves(till) == []


async def test_a_dispute_that_was_won_comes_to_nothing_also_while_that_is_not_listed(
    till: Till,
) -> None:
    """It comes again when that is first seen, and the drawing stays where it is."""
    bought, dispute = await disputed(till)
    drawn_s = till.shop.fake.clock.now_s
    won_s = await later(till)
    till.shop.fake.close_dispute(dispute["id"], "won")
    listed = dispute["balance_transactions"].pop()
    await look_at_charge(till.sync, bought.charge_id)
    seen = await undated(till, dispute["id"])
    await look_at_charge(till.sync, bought.charge_id)

    assert seen == await undated(till, dispute["id"])
    found = await moves(till)
    assert (drawn_s, 1_000) in found
    assert (drawn_s, -1_000) not in found
    assert sorted(amount for _, amount in found) == [-1_000, 1_000]

    dispute["balance_transactions"].append(listed)
    await look_at_charge(till.sync, bought.charge_id)
    assert await moves(till) == [(drawn_s, 1_000), (won_s, -1_000)]


async def undated(till: Till, name: str) -> str:
    """When a move that Stripe does not date is said to have been made."""
    return str(
        await till.sql("SELECT made_at::text FROM billing_returns WHERE stripe_id = $1", name)
    )


async def test_a_payment_that_is_written_late_has_all_its_moves(till: Till) -> None:
    session = await till.shop.buy(await till.shop.price(1_000), customer=till.customer_id)
    charge_id = await till.shop.charge_of(session)
    refunded_s = await later(till)
    await till.shop.v1.refunds.create_async({"charge": charge_id, "amount": 400})
    assert await look_at_charge(till.sync, charge_id) is None  # nobody knows the payment yet
    await later(till)

    transaction_id = await till.rows.transaction(
        till.account_id,
        business_key=f"checkout:{session['id']}",
        payment_intent_id=session["payment_intent"],
    )
    await take_back_of(till.sync, transaction_id)

    assert await moves(till) == [(refunded_s, 400)]


async def test_moves_that_were_not_written_take_the_place_of_what_stands_for_them(
    till: Till,
) -> None:
    """As books have it that were kept before moves were: one row, at the payment."""
    bought = await till.buy(GIVES.copy())
    refunded_s = await later(till)
    await till.refund(bought, 300)
    await look_at_charge(till.sync, bought.charge_id)
    await till.sql("DELETE FROM billing_returns")
    await till.rows.moved(bought.transaction_id, 300, "2026-01-01", stripe_id="")

    await look_at_charge(till.sync, bought.charge_id)

    assert await moves(till) == [(refunded_s, 300)]
