"""Reading receipts."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from gateway.control.api.endpoint import Endpoint
from gateway.control.api.problems import not_found
from gateway.control.api.roles import MEMBERS, VIEWERS
from gateway.control.receipts.models import Posting, Receipt, ReceiptKey
from gateway.control.settlements.endpoints import document as call_document
from gateway.operations.receipts import show_receipt

if TYPE_CHECKING:
    from typing import Literal

    from gateway.control.api.ask import Ask
    from gateway.ledger.inquiries import ReceiptEntry

    Kind = Literal["settle", "late", "refund", "grant"]


async def read(ask: Ask) -> Receipt:
    """The receipt of one call, of the platform or of the caller's own account."""
    found = await show_receipt(
        ask.ledger, ask.platform_id, ask.path["call_id"], account_id=ask.caller.account_id
    )
    if found is None:
        raise not_found("settled call")
    call = found.call
    shown = None if call.key_prefix is None else f"{call.key_prefix}…{call.key_last4}"
    return Receipt(
        call=call_document(call.settlement),
        account=call.account_name,
        route=call.route_name,
        key=ReceiptKey(id=call.settlement.key_id, name=call.key_name, shown=shown),
        price=None if call.price is None else dict(call.price),
        postings=[_posting(entry) for entry in call.entries],
        charged_credits=found.charged_microcredits,
        corrected_credits=found.corrected_microcredits,
        refunded_credits=found.refunded_microcredits,
        net_credits=found.net_microcredits,
    )


def _posting(entry: ReceiptEntry) -> Posting:
    return Posting(
        kind=cast("Kind", entry.kind),
        grant_id=entry.grant_id,
        source=entry.source,
        credits=entry.microcredits,
        at=entry.created_ms,
        note=entry.note,
    )


_DESCRIPTION = "A call that still runs, or is on its way to the books, has no receipt yet."
ENDPOINTS = (
    Endpoint(
        "GET", "/v1/receipts/{call_id}", "Read a call's receipt", VIEWERS, read,
        answers=Receipt, description=_DESCRIPTION,
    ),
    Endpoint(
        "GET", "/v1/me/receipts/{call_id}", "Read my call's receipt", MEMBERS, read,
        answers=Receipt, description=_DESCRIPTION,
    ),
)  # fmt: skip
