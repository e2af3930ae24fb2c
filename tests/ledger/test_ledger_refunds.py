"""A refund gives back exactly what a call cost, once, to the lots that paid."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from gateway.ledger import Ledger, Refund, RefundRefused
from gateway.ledger.periods import AccountChange
from policies.catalog import Plan, Platform, RefundExpired
from policies.settlement import Posting, correction_id
from tests.support.settlements import (
    account_with_grants,
    assert_books_agree,
    ledger_change,
    new_call_id,
    settlement,
)

if TYPE_CHECKING:
    from policies.settlement import Settlement

GRANT, NOTHING = RefundExpired.GRANT, RefundExpired.NOTHING


async def settled(ledger: Ledger, *amounts: int) -> tuple[Settlement, list[int]]:
    """A call that took these amounts from lots of 1 000 each."""
    platform_id, account_id, grants = await account_with_grants(ledger, *[1_000] * len(amounts))
    call = settlement(
        tuple(zip(grants, amounts, strict=True)), platform_id=platform_id, account_id=account_id
    )
    await ledger.record_settlements([call])
    return call, grants


async def left(ledger: Ledger, account_id: int) -> list[int]:
    (account,) = {row.account_id for row in await ledger.grants(account_id)}
    state = await ledger.account_state(account)
    assert state is not None
    return [int(state[f"a:{lot}"]) for lot in str(state["lots"]).split()]


async def test_a_refund_restores_every_lot_that_paid(ledger: Ledger) -> None:
    call, _ = await settled(ledger, 30, 70)

    refund = await ledger.refund_call(call.platform_id, call.call_id, "outage", GRANT)

    assert refund == Refund(call.account_id, 100, 0, 0, None)
    assert await left(ledger, call.account_id) == [1_000, 1_000]
    found = await ledger.settlement_of(call.call_id)
    assert found is not None
    assert (found.refunded, found.charged_microcredits) == (True, 100)
    await assert_books_agree(ledger)


async def test_a_call_is_refunded_once_however_many_ask(ledger: Ledger, postgres_url: str) -> None:
    call, _ = await settled(ledger, 30)
    async with Ledger(postgres_url) as other:
        answers = await asyncio.gather(
            *(
                store.refund_call(call.platform_id, call.call_id, "", GRANT)
                for store in (ledger, other) * 4
            )
        )
    assert [type(answer) for answer in answers].count(Refund) == 1
    assert answers.count(RefundRefused.REFUNDED) == 7
    assert await left(ledger, call.account_id) == [1_000]
    await assert_books_agree(ledger)


async def test_another_platforms_call_and_one_that_cost_nothing_are_not_refunded(
    ledger: Ledger,
) -> None:
    call, _ = await settled(ledger, 30)
    free = settlement((), platform_id=call.platform_id, account_id=call.account_id)
    await ledger.record_settlements([free])
    ask = ledger.refund_call

    assert await ask(call.platform_id + 1, call.call_id, "", GRANT) is RefundRefused.UNKNOWN
    assert await ask(call.platform_id, new_call_id(), "", GRANT) is RefundRefused.UNKNOWN
    assert await ask(call.platform_id, free.call_id, "", GRANT) is RefundRefused.NOTHING
    assert await left(ledger, call.account_id) == [970]


@pytest.mark.parametrize("correction", [-20, 20])
async def test_a_refund_gives_back_what_the_call_cost_after_its_correction(
    ledger: Ledger, correction: int
) -> None:
    call, (grant,) = await settled(ledger, 50)
    if correction > 0:
        late = ledger_change("late", (grant, correction), change_id=correction_id(call.call_id))
        owner = {"platform_id": call.platform_id, "account_id": call.account_id}
        await ledger.record_changes([late._replace(call_id=call.call_id, **owner)])
    else:
        assert await ledger.credit_call(call.call_id, "late", [Posting(grant, -correction)])

    refund = await ledger.refund_call(call.platform_id, call.call_id, "", GRANT)

    assert refund == Refund(call.account_id, 50 + correction, 0, 0, None)
    assert await left(ledger, call.account_id) == [1_000]
    await assert_books_agree(ledger)


async def test_a_refunded_call_gets_nothing_back_a_second_time_by_a_correction(
    ledger: Ledger,
) -> None:
    call, (grant,) = await settled(ledger, 50)
    await ledger.refund_call(call.platform_id, call.call_id, "", GRANT)
    assert not await ledger.credit_call(call.call_id, "late", [Posting(grant, 20)])
    assert await left(ledger, call.account_id) == [1_000]


async def test_what_an_ended_lot_paid_becomes_a_new_lot(ledger: Ledger) -> None:
    call, (ended, _) = await settled(ledger, 30, 70)
    await ledger.revoke_grant(ended)

    refund = await ledger.refund_call(call.platform_id, call.call_id, "outage", GRANT)

    assert isinstance(refund, Refund)
    assert refund[:4] == (call.account_id, 70, 30, 0)
    (lot,) = [row for row in await ledger.grants(call.account_id) if row.source == "refund"]
    assert (lot.grant_id, lot.amount_microcredits, lot.expires_ms, lot.note, lot.priority) == (
        *(refund.grant_id, 30, 0, "outage"),
        100,
    )
    await assert_books_agree(ledger)


async def test_a_new_lot_of_a_refund_lasts_until_the_period_ends(ledger: Ledger) -> None:
    call, (ended,) = await settled(ledger, 30)
    await ledger.apply_catalog(Platform("demo"), (Plan("pro", 0),), ())
    await ledger.change_account(call.platform_id, call.account_id, AccountChange(plan_slug="pro"))
    await ledger.revoke_grant(ended)

    await ledger.refund_call(call.platform_id, call.call_id, "", GRANT)

    (lot,) = [row for row in await ledger.grants(call.account_id) if row.source == "refund"]
    assert lot.expires_ms > lot.created_ms
    assert len(await ledger.due_renewals(lot.expires_ms)) == 1
    assert await ledger.due_renewals(lot.expires_ms - 1) == []


async def test_where_the_plan_says_so_what_an_ended_lot_paid_is_forfeited(
    ledger: Ledger, postgres_url: str
) -> None:
    call, (ended,) = await settled(ledger, 1_000)
    await ledger.revoke_grant(ended)

    refund = await ledger.refund_call(call.platform_id, call.call_id, "outage", NOTHING)

    assert refund == Refund(call.account_id, 0, 0, 1_000, None)
    assert len(await ledger.grants(call.account_id)) == 1
    again = await ledger.refund_call(call.platform_id, call.call_id, "", GRANT)
    assert again is RefundRefused.REFUNDED
    async with ledger.transaction() as session:
        notes = await session._runner.fetch("SELECT note FROM ledger_changes")
    assert [row["note"] for row in notes] == ["outage; 0.001 credits of ended grants are forfeited"]
    await assert_books_agree(ledger)
