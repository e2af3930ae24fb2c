"""A receipt says what a call cost, who paid by which price, and what came back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gateway.ledger import Ledger, Scope, Tenancy
from gateway.operations.receipts import show_receipt
from policies.catalog import Platform, RefundExpired
from policies.settlement import correction_id
from tests.support.settlements import account_with_grants, ledger_change, new_call_id, settlement

if TYPE_CHECKING:
    from policies.settlement import Settlement


async def sold(ledger: Ledger) -> Settlement:
    """A call of 100 from two lots, with a key and a route that have names."""
    platform_id, account_id, grants = await account_with_grants(ledger, 30, 1_000)
    key_id = await ledger.create_key(
        account_id, name="ci", prefix="tk_live_Ab", last4="wxyz", pepper_version=1, digest=b"d"
    )
    assert key_id is not None
    call = settlement(
        ((grants[0], 30), (grants[1], 70)),
        platform_id=platform_id,
        account_id=account_id,
        key_id=key_id,
    )
    await ledger.record_settlements([call])
    return call


async def test_a_receipt_shows_who_paid_what(postgres_url: str) -> None:
    async with Ledger(postgres_url) as ledger:
        call = await sold(ledger)

        receipt = await show_receipt(ledger, call.platform_id, call.call_id)

        assert receipt is not None
        found = receipt.call
        assert found.settlement.call_id == call.call_id
        assert (found.account_name, found.key_name) == ("alice", "ci")
        assert (found.key_prefix, found.key_last4) == ("tk_live_Ab", "wxyz")
        assert (found.route_name, found.price) == (None, None), "there are no such rows"
        assert [(e.kind, e.source, e.microcredits) for e in found.entries] == [
            ("settle", "manual", -30),
            ("settle", "manual", -70),
        ]
        assert (receipt.charged_microcredits, receipt.net_microcredits) == (100, 100)


async def test_corrections_and_refunds_count_in_what_a_call_costs(postgres_url: str) -> None:
    async with Ledger(postgres_url) as ledger:
        call = await sold(ledger)
        late = ledger_change(
            "late",
            (call.postings[1].grant_id, 25),
            change_id=correction_id(call.call_id),
            call_id=call.call_id,
            platform_id=call.platform_id,
            account_id=call.account_id,
            at_ms=call.settled_ms + 5_000,
        )
        await ledger.record_changes([late])

        receipt = await show_receipt(ledger, call.platform_id, call.call_id)
        assert receipt is not None
        assert (receipt.corrected_microcredits, receipt.net_microcredits) == (25, 125)

        await ledger.refund_call(
            call.platform_id, call.call_id, "wrong answer", RefundExpired.GRANT
        )
        receipt = await show_receipt(ledger, call.platform_id, call.call_id)
        assert receipt is not None
        assert (receipt.refunded_microcredits, receipt.net_microcredits) == (125, 0)
        assert {entry.kind for entry in receipt.call.entries} == {"settle", "late", "refund"}
        assert {e.note for e in receipt.call.entries if e.kind == "refund"} == {"wrong answer"}


@pytest.mark.parametrize(
    ("policy", "refunded"), [(RefundExpired.GRANT, 100), (RefundExpired.NOTHING, 70)]
)
async def test_what_is_forfeited_did_not_come_back(
    postgres_url: str, policy: RefundExpired, refunded: int
) -> None:
    async with Ledger(postgres_url) as ledger:
        call = await sold(ledger)
        await ledger.revoke_grant(call.postings[0].grant_id)
        await ledger.refund_call(call.platform_id, call.call_id, "", policy)

        receipt = await show_receipt(ledger, call.platform_id, call.call_id)

        assert receipt is not None
        assert receipt.refunded_microcredits == refunded
        assert receipt.net_microcredits == 100 - refunded


async def test_a_foreign_receipt_is_none(postgres_url: str) -> None:
    async with Ledger(postgres_url) as ledger, Tenancy(postgres_url) as tenancy:
        call = await sold(ledger)
        platform_id, account_id = call.platform_id, call.account_id
        other = (await ledger.apply_catalog(Platform("other"), (), ())).platform_id
        bob = await ledger.create_account(platform_id, "bob")
        assert bob is not None

        assert await show_receipt(ledger, other, call.call_id) is None
        assert await show_receipt(ledger, platform_id, call.call_id, account_id=bob) is None
        assert await show_receipt(ledger, platform_id, new_call_id()) is None
        assert await show_receipt(ledger, platform_id, "' OR 1=1") is None

        for scope, expected in (
            (Scope(platform_id, None, "token:1"), True),
            (Scope(platform_id, account_id, "key:1"), True),
            (Scope(platform_id, bob, "key:2"), False),
            (Scope(other, None, "token:2"), False),
        ):
            receipt = await show_receipt(tenancy.ledger(scope), platform_id, call.call_id)
            assert (receipt is not None) == expected, scope
            if receipt is not None:
                assert len(receipt.call.entries) == 2
                assert receipt.call.entries[0].source == "manual"
                assert receipt.call.key_last4 == "wxyz"
