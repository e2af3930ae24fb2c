"""What of a subscription fell due and is not paid, as Stripe has it now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.stripe_sync.customers import id_of
from policies.dunning import Unpaid
from policies.spans import SECOND_MS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.stripe_sync.sync import Sync

# Stripe's own word for it. An active subscription may have an open invoice for a change that waits
# for it; one that is incomplete never began.
OWING = ("past_due", "unpaid", "canceled")
PROCESSING = "processing"


async def unpaid_of(sync: Sync, subscription: Mapping[str, Any]) -> Unpaid | None:
    """The oldest open invoice of a subscription that was tried in vain, or is overdue.

    None: there is none, or a payment of it is on its way.
    """
    if subscription["status"] not in OWING:
        return None
    owed = [
        invoice
        async for invoice in sync.api.pages(
            lambda v1, params: v1.invoices.list_async(params),
            subscription=subscription["id"],
            status="open",
        )
        if invoice["amount_remaining"] > 0 and _is_due(invoice)
    ]
    if not owed:
        return None
    oldest = min(owed, key=lambda invoice: (invoice["created"], invoice["id"]))
    if await is_processing(sync, oldest["id"]):
        return None
    return Unpaid(oldest["id"], oldest["attempt_count"], _since_s(oldest) * SECOND_MS)


async def is_processing(sync: Sync, invoice_id: str) -> bool:
    """Whether a payment of an invoice is on its way, such as a bank's debit."""
    invoice = await sync.api.ask(
        lambda v1: v1.invoices.retrieve_async(
            invoice_id, {"expand": ["payments.data.payment.payment_intent"]}
        )
    )
    return any(
        intent["status"] == PROCESSING for intent in intents_of(invoice, among=("open", "paid"))
    )


def intents_of(invoice: Mapping[str, Any], *, among: tuple[str, ...]) -> list[Mapping[str, Any]]:
    """The payment intents of an invoice's payments, where they were expanded."""
    payments = (invoice.get("payments") or {}).get("data", [])
    intents = [
        payment["payment"].get("payment_intent")
        for payment in payments
        if payment["status"] in among
    ]
    return [intent for intent in intents if isinstance(intent, dict) and id_of(intent)]


def _is_due(invoice: Mapping[str, Any]) -> bool:
    """Tried; or sent to be paid until a day that has passed: then Stripe calls it past due."""
    if invoice["collection_method"] == "send_invoice":
        return True
    return bool(invoice["attempt_count"] > 0)


def _since_s(invoice: Mapping[str, Any]) -> int:
    if invoice["collection_method"] == "send_invoice" and invoice["due_date"]:
        return int(invoice["due_date"])
    finalized_s = invoice["status_transitions"]["finalized_at"]
    return int(finalized_s or invoice["created"])
