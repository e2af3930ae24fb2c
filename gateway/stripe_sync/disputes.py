"""Payers who ask their bank for the money: their credits go at once, and come again if we win."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.stripe_sync.charges import look_at_charge
from gateway.stripe_sync.errors import StripeMissingError

if TYPE_CHECKING:
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
    kinds = ["dispute_opened"]
    if dispute["status"] in CLOSED:
        kinds.append("dispute_closed")
    for kind in kinds:
        await sync.ledger.note_dispute(
            transaction_id,
            kind,
            dispute["id"],
            status=dispute["status"],
            reason=dispute["reason"],
            amount_minor=dispute["amount"],
        )
