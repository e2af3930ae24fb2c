"""Payers who ask their bank for the money: their credits go at once, and come again if we win."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.ledger.billing import Notice, note_event
from gateway.stripe_sync.charges import look_at_charge
from gateway.stripe_sync.errors import StripeMissingError

if TYPE_CHECKING:
    from gateway.ledger.clawbacks import Payment
    from gateway.stripe_sync.events import Hint
    from gateway.stripe_sync.sync import Sync

CLOSED = ("won", "lost", "warning_closed", "prevented")


async def sync_dispute(sync: Sync, hint: Hint) -> None:
    """A dispute was opened, has changed, or was decided; or its money moved.

    Raises: as `take_back_of`.
    """
    try:
        dispute = await sync.api.ask(lambda v1: v1.disputes.retrieve_async(hint.object_id))
    except StripeMissingError:
        return
    transaction_id = await look_at_charge(sync, dispute["charge"])
    if transaction_id is None:
        return
    payment = await sync.ledger.payment(sync.platform_id, transaction_id, livemode=sync.livemode)
    if payment is None:
        return
    told = ["dispute_opened"]
    if dispute["status"] in CLOSED:
        told.append("dispute_closed")
    async with sync.ledger.transaction() as session:
        for kind in told:
            notice = Notice(kind, (dispute["id"],), _detail(payment, dispute))
            await note_event(session, sync.mode, payment.account_id, notice)


def _detail(payment: Payment, dispute: dict[str, Any]) -> dict[str, object]:
    return {
        "transaction_id": payment.transaction_id,
        "dispute": dispute["id"],
        "status": dispute["status"],
        "reason": dispute["reason"],
        "amount_minor": str(dispute["amount"]),
        "currency": dispute["currency"],
    }
