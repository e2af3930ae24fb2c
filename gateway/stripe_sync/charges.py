"""Charges, and what happens to them: which payment of ours they are, and what follows for it.

A charge does not say whether it was for an invoice or a Checkout session, and an event of it may
come before those of them. One that is of no payment we know is left alone: whoever writes the
payment looks at its charges then (`refunds.take_back_of`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from gateway.ledger.clawbacks import Charge
from gateway.stripe_sync.errors import StripeMissingError
from gateway.stripe_sync.invoices import see_to_invoice
from gateway.stripe_sync.refunds import charge_by, charge_of_refund, take_back_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.stripe_sync.events import Hint
    from gateway.stripe_sync.sync import Sync

FAILURE_CHARACTERS_MAX = 500


async def sync_charge(sync: Sync, hint: Hint) -> None:
    """A charge was made, failed, or was refunded."""
    await look_at_charge(sync, hint.object_id)


async def sync_refund(sync: Sync, hint: Hint) -> None:
    """A refund was made, has changed, or failed. Of which charge it is never changes."""
    charge_id = hint.object.get("charge") or await charge_of_refund(sync, hint.object_id)
    if charge_id:
        await look_at_charge(sync, charge_id)


async def sync_intent(sync: Sync, hint: Hint) -> None:
    """A payment is on its way, or failed. Of invoices nothing else says the former."""
    for invoice_id in await _invoices_of(sync, hint.object_id):
        told = replace(hint, type="invoice.updated", object_id=invoice_id, object={})
        await see_to_invoice(sync, invoice_id, told)


async def look_at_charge(sync: Sync, charge_id: str) -> int | None:
    """See to what follows from a charge as it is now; its payment, None: it is of none we know.

    Raises: as `take_back_of`.
    """
    try:
        charge = await charge_by(sync, charge_id)
    except StripeMissingError:
        return None
    transaction_id = await payment_of(sync, charge)
    if transaction_id is None:
        return None
    if charge["status"] in ("succeeded", "failed"):
        failure = _failure(charge) if charge["status"] == "failed" else None
        made = Charge(charge["payment_intent"], charge["id"], failure)
        await sync.ledger.note_charge(transaction_id, made)
    if charge["status"] == "succeeded":
        await take_back_of(sync, transaction_id)
    return transaction_id


async def payment_of(sync: Sync, charge: dict[str, Any]) -> int | None:
    """The payment that a charge is of: as it was written, else as Stripe finds it."""
    intent = charge["payment_intent"]
    found = await sync.ledger.payment_of(
        sync.platform_id, intent, charge["id"], livemode=sync.livemode
    )
    if found is not None or not intent:
        return found
    async for name in _names(sync, intent):
        found = await sync.ledger.payment_named(sync.platform_id, name, livemode=sync.livemode)
        if found is not None:
            return found
    return None


async def _names(sync: Sync, intent_id: str) -> AsyncIterator[str]:
    """What the payment of an intent may be called in our books."""
    for invoice_id in await _invoices_of(sync, intent_id):
        yield f"invoice:{invoice_id}"
    async for session in sync.api.pages(
        lambda v1, params: v1.checkout.sessions.list_async(params), payment_intent=intent_id
    ):
        yield f"checkout:{session['id']}"


async def _invoices_of(sync: Sync, intent_id: str) -> list[str]:
    """The invoices that an intent pays, or was to pay."""
    return [
        made["invoice"]
        async for made in sync.api.pages(
            lambda v1, params: v1.invoice_payments.list_async(params),
            payment={"type": "payment_intent", "payment_intent": intent_id},
        )
    ]


def _failure(charge: dict[str, Any]) -> str:
    text = charge["failure_message"] or charge["failure_code"] or "the payment failed"
    return str(text)[:FAILURE_CHARACTERS_MAX]
