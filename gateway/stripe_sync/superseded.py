"""Cancels subscriptions that a newer one has taken the place of, where the platform says so.

First what the current period has left is refunded, once: the refund's metadata says what it was
for, and is looked for before. Only then the subscription is cancelled. Whoever dies in between
leaves it live, and so it is found again. What a refund means for credits is for its own event.

Payments that Stripe won't refund, as one that is disputed, are a person's to see to: the
subscription is cancelled all the same, for it would be paid again and again.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from gateway.stripe_sync.client import KEY_REUSED
from gateway.stripe_sync.customers import id_of
from gateway.stripe_sync.errors import StripeMissingError, StripeRefusedError
from gateway.stripe_sync.refunds import NOT_REFUNDED
from policies.billing import ENTITLING
from policies.billing_options import OlderSubscription
from policies.spans import SECOND_MS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.stripe_sync.sync import Sync

    Document = dict[str, Any]

log = logging.getLogger("tollkeeper.stripe")

REASON_KEY = "tollkeeper_superseded"  # the id of the subscription


async def cancel_superseded(sync: Sync, account_id: int | None = None) -> int:
    """Cancel those of an account, or of all; how many there were."""
    if sync.options.older_subscription is not OlderSubscription.CANCEL:
        return 0
    found = await sync.ledger.superseded_subscriptions(sync.mode, account_id)
    for row in found:
        # Of two at once the second finds what the first has refunded.
        async with sync.customer_locked(f"superseded {row.stripe_id}"):
            try:
                await _cancel(sync, row.stripe_id, row.now_ms)
            except StripeRefusedError as error:
                log.warning("%s is superseded and can't be cancelled: %s", row.stripe_id, error)
    return len(found)


async def _cancel(sync: Sync, subscription_id: str, now_ms: int) -> None:
    try:
        subscription = await sync.api.ask(
            lambda v1: v1.subscriptions.retrieve_async(subscription_id)
        )
    except StripeMissingError:
        return
    if subscription["status"] not in ENTITLING:
        return
    periods = [
        (item["current_period_start"], item["current_period_end"])
        for item in subscription["items"]["data"]
    ]
    start_s, end_s = min(periods)[0], max(end for _, end in periods)
    async for invoice in sync.api.pages(
        lambda v1, params: v1.invoices.list_async(params),
        subscription=subscription_id,
        status="paid",
        created={"gte": start_s},
    ):
        await _refund_rest(sync, subscription_id, invoice, end_s, now_ms)
    await sync.api.ask(
        lambda v1: v1.subscriptions.cancel_async(
            subscription_id,
            {"invoice_now": False, "prorate": False},
            {"idempotency_key": f"tollkeeper:superseded:{subscription_id}"},
        )
    )


async def _refund_rest(
    sync: Sync, subscription_id: str, invoice: Mapping[str, Any], end_s: int, now_ms: int
) -> None:
    """Give back what of an invoice is for time that is still to come."""
    rest = 0
    async for line in sync.api.pages(
        lambda v1, params: v1.invoices.line_items.list_async(str(invoice["id"]), params)
    ):
        period = line["period"]
        span_ms = (period["end"] - period["start"]) * SECOND_MS
        left_ms = period["end"] * SECOND_MS - max(now_ms, period["start"] * SECOND_MS)
        if period["end"] == end_s and span_ms > 0 and left_ms > 0:
            rest += _paid_for(line) * left_ms // span_ms
    rest = min(rest, invoice["amount_paid"])
    if rest <= 0:
        return
    async for payment in sync.api.pages(
        lambda v1, params: v1.invoice_payments.list_async(params),
        invoice=invoice["id"],
        status="paid",
    ):
        intent_id = id_of(payment["payment"].get("payment_intent"))
        if intent_id is None or rest <= 0:
            continue
        amount = min(rest, payment["amount_paid"])
        await _refund(sync, subscription_id, intent_id, amount, payment["amount_paid"])
        rest -= amount


def _paid_for(line: Mapping[str, Any]) -> int:
    """What was paid for a line: less its discounts, with the tax that came on top."""
    off = sum(discount["amount"] for discount in line["discount_amounts"] or ())
    tax = sum(tax["amount"] for tax in line["taxes"] or () if tax["tax_behavior"] == "exclusive")
    return int(line["amount"] - off + tax)


async def _refund(sync: Sync, subscription_id: str, intent_id: str, amount: int, paid: int) -> None:
    """Give back a part of what was paid: of what nobody has given back before, the same share."""
    left = paid
    async for refund in sync.api.pages(
        lambda v1, params: v1.refunds.list_async(params), payment_intent=intent_id
    ):
        if (refund["metadata"] or {}).get(REASON_KEY) == subscription_id:
            return
        if refund["status"] not in NOT_REFUNDED:
            left -= refund["amount"]
    amount = amount * max(left, 0) // paid
    if not amount:
        return
    try:
        await sync.api.ask(
            lambda v1: v1.refunds.create_async(
                {
                    "payment_intent": intent_id,
                    "amount": amount,
                    "metadata": {REASON_KEY: subscription_id},
                },
                {"idempotency_key": f"tollkeeper:superseded:{subscription_id}:{intent_id}"},
            )
        )
    except StripeRefusedError as error:
        if error.code == KEY_REUSED:  # nobody knows what came of another try: Stripe's list will
            raise
        log.error(  # noqa: TRY400 - the text says it all
            "%d of %s can't be given back for %s: %s", amount, intent_id, subscription_id, error
        )
