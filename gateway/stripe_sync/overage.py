"""Bills what accounts used beyond their grants: on the invoice that follows the period.

docs/money-back.md has the steps. A part is in our books, with its name, before Stripe is asked; the
name is Stripe's idempotency key, and stands in the item's metadata: whoever finishes what somebody
else began looks for the item first.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, NamedTuple

from gateway.ledger.overage import note_billed, open_overage, put_on_invoice
from gateway.stripe_sync.client import KEY_REUSED
from gateway.stripe_sync.errors import StripeMissingError, StripeRefusedError
from gateway.stripe_sync.invoices import OVERAGE_KEY, sync_invoice
from policies.billing_options import OverageBy
from policies.spans import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS
from policies.units import MICROCREDITS_PER_CREDIT, format_credits

if TYPE_CHECKING:
    from gateway.ledger.database import Session
    from gateway.ledger.overage import BillingSubscription, OverageCharge
    from gateway.stripe_sync.events import Hint
    from gateway.stripe_sync.sync import Sync

    Document = dict[str, Any]

RENEWAL = "subscription_cycle"
LIVING = ("trialing", "active", "past_due")
# Our clocks and Stripe's differ.
CLOCKS_MS = MINUTE_MS
# A lot whose calls go on when it is over is billed without them after this.
WAIT_MS = HOUR_MS
# No invoice of a subscription for longer than a month: overage then has an invoice of its own.
NEXT_INVOICE_MS_MAX = 32 * DAY_MS
# Somebody else may be asking Stripe for a part this long: the client's timeouts and repetitions.
ASKING_MS_MAX = 2 * MINUTE_MS
# A meter forgets which events it has counted after a day.
METER_MEMORY_MS = 23 * HOUR_MS
METER_KNOWS = "duplicate_meter_event"
NOT_EDITABLE = "invoice_not_editable"

log = logging.getLogger("tollkeeper.stripe")


class Target(NamedTuple):
    """Where overage goes: on a draft, on the next invoice, or on one of its own (`is_own`)."""

    subscription: BillingSubscription
    draft: Document | None
    is_own: bool


async def sync_new_invoice(sync: Sync, hint: Hint) -> None:
    """An invoice was drawn up: the period's overage goes on it, while it is a draft."""
    account_id = await _renewed(sync, hint)
    if account_id is not None:
        await bill_overage(sync, account_id)
    await sync_invoice(sync, hint)


async def _renewed(sync: Sync, hint: Hint) -> int | None:
    """Whose subscription a draft renews; None: it is no such draft, or of nobody we know."""
    if hint.object and hint.object.get("billing_reason") != RENEWAL:
        return None
    try:
        invoice = await sync.api.ask(lambda v1: v1.invoices.retrieve_async(hint.object_id))
    except StripeMissingError:
        return None
    if invoice["status"] != "draft" or invoice["billing_reason"] != RENEWAL:
        return None
    stripe_id = invoice["parent"]["subscription_details"]["subscription"]
    return await sync.ledger.account_of_subscription(
        sync.platform_id, stripe_id, livemode=sync.livemode
    )


async def bill_overage(sync: Sync, account_id: int) -> None:
    """Bill what an account owes for periods that are over, and what of it was begun before.

    Idempotent. An account that never had a subscription can't be billed.

    Raises: StripeUnavailableError, StripeRefusedError, LedgerUnavailable; what was begun is
    finished by whoever comes next.
    """
    found = await sync.ledger.billing_subscription(account_id, livemode=sync.livemode)
    if found is None or found.currency is None:
        return
    async with sync.customer_locked(found.customer_id) as session:
        target = await _target(sync, found)
        begun = await sync.ledger.open_overage_charges(account_id, livemode=sync.livemode)
        until_ms = found.now_ms - WAIT_MS
        if target.draft is not None:
            drawn_up_ms = target.draft["created"] * SECOND_MS
            until_ms = max(found.now_ms, drawn_up_ms) + sync.options.bridge_ms + CLOCKS_MS
        await open_overage(session, account_id, found.currency, until_ms, livemode=sync.livemode)
    before = {charge.charge_id for charge in begun}
    for charge in await sync.ledger.open_overage_charges(account_id, livemode=sync.livemode):
        is_resumed = charge.charge_id in before
        if is_resumed and charge.now_ms - charge.created_ms < ASKING_MS_MAX:
            continue
        async with sync.ledger.overage_charge_locked(charge.charge_id) as locked:
            if locked is not None:
                await _bill(sync, locked, charge, target, is_resumed=is_resumed)


async def _target(sync: Sync, subscription: BillingSubscription) -> Target:
    async for invoice in sync.api.pages(
        lambda v1, params: v1.invoices.list_async(params),
        subscription=subscription.stripe_id,
        status="draft",
    ):
        if invoice["billing_reason"] == RENEWAL:
            return Target(subscription, invoice, is_own=False)
    left_ms = subscription.period_end_ms - subscription.now_ms
    is_own = subscription.status not in LIVING or subscription.ends or left_ms > NEXT_INVOICE_MS_MAX
    return Target(subscription, None, is_own=is_own)


async def _bill(
    sync: Sync, session: Session, charge: OverageCharge, target: Target, *, is_resumed: bool
) -> None:
    """Have Stripe bill a part, unless it has it."""
    if sync.options.overage_by is OverageBy.METER_EVENTS and not target.is_own:
        await _tell_meter(sync, session, charge, target)
        return
    item = await _known(sync, charge, target) if is_resumed else None
    if item is None:
        invoice_id = target.draft["id"] if target.draft else None
        if target.is_own:
            invoice_id = await _own_invoice(sync, charge, target)
            await put_on_invoice(session, charge.charge_id, invoice_id)
        item = await _make_item(sync, charge, target, invoice_id)
    await _collect(sync, item["invoice"])
    await note_billed(session, charge.charge_id, item["id"], item["invoice"])


async def _known(sync: Sync, charge: OverageCharge, target: Target) -> Document | None:
    """The item that somebody made of a part and did not live to write down."""
    async for item in sync.api.pages(
        lambda v1, params: v1.invoice_items.list_async(params),
        customer=target.subscription.customer_id,
        created={"gte": (charge.created_ms - HOUR_MS) // SECOND_MS},
    ):
        if (item["metadata"] or {}).get(OVERAGE_KEY) == charge.business_key:
            return item
    return None


async def _own_invoice(sync: Sync, charge: OverageCharge, target: Target) -> str:
    """An invoice for this alone. Stripe does nothing with it before it is let go (`_collect`).

    It is paid as the subscription was: Checkout gives the card to that, not to the customer.
    """
    stripe_id = target.subscription.stripe_id
    subscription = await sync.api.ask(lambda v1: v1.subscriptions.retrieve_async(stripe_id))
    params: Document = {
        "customer": target.subscription.customer_id,
        "currency": charge.currency,
        "collection_method": "charge_automatically",
        "auto_advance": False,
        "pending_invoice_items_behavior": "exclude",
        "metadata": _metadata(sync, charge),
    }
    if subscription["default_payment_method"]:
        params["default_payment_method"] = subscription["default_payment_method"]
    if sync.options.automatic_tax:
        params["automatic_tax"] = {"enabled": True}
    options = {"idempotency_key": f"{charge.business_key}:invoice"}
    made = await sync.api.ask(lambda v1: v1.invoices.create_async(params, options))  # type: ignore[arg-type] # a dict of them
    return str(made["id"])


async def _make_item(
    sync: Sync, charge: OverageCharge, target: Target, invoice_id: str | None
) -> Document:
    """Put a part on a draft, or on what follows. Sold as the plan's product, if Stripe lets us."""
    product_id = target.subscription.product_id
    if product_id is not None:
        priced = {
            "price_data": {
                "currency": charge.currency,
                "product": product_id,
                "unit_amount": charge.amount_minor,
            }
        }
        try:
            return await _ask_item(sync, charge, target, invoice_id, priced)
        except StripeRefusedError as error:
            if error.code in {NOT_EDITABLE, KEY_REUSED}:  # the latter may have made it before
                raise
    plain = {"amount": charge.amount_minor, "currency": charge.currency}
    return await _ask_item(sync, charge, target, invoice_id, plain)


async def _ask_item(
    sync: Sync, charge: OverageCharge, target: Target, invoice_id: str | None, priced: Document
) -> Document:
    credits_ = format_credits(charge.to_microcredits - charge.from_microcredits)
    params: Document = {
        "customer": target.subscription.customer_id,
        "description": f"{credits_} credits beyond the plan {charge.plan_slug}",
        "discountable": False,
        "metadata": _metadata(sync, charge),
        "period": {
            "start": charge.effective_ms // SECOND_MS,
            # Not by now: what is sent with a key must be the same each time.
            "end": max(charge.effective_ms, min(charge.expires_ms, charge.created_ms)) // SECOND_MS,
        },
        **priced,
    }
    if invoice_id is not None:
        params["invoice"] = invoice_id
    else:
        params["subscription"] = target.subscription.stripe_id
    key = f"{charge.business_key}:{invoice_id or 'next'}:{next(iter(priced))}"
    options = {"idempotency_key": key}
    return await sync.api.ask(lambda v1: v1.invoice_items.create_async(params, options))  # type: ignore[arg-type] # a dict of them


async def _collect(sync: Sync, invoice_id: str | None) -> None:
    """Let an invoice of overage alone go: Stripe finalises it within an hour, and has it paid."""
    if invoice_id is None:
        return
    invoice = await sync.api.ask(lambda v1: v1.invoices.retrieve_async(invoice_id))
    is_own = OVERAGE_KEY in (invoice["metadata"] or {})
    if is_own and invoice["status"] == "draft" and not invoice["auto_advance"]:
        await sync.api.ask(lambda v1: v1.invoices.update_async(invoice_id, {"auto_advance": True}))


async def _tell_meter(sync: Sync, session: Session, charge: OverageCharge, target: Target) -> None:
    """Tell Stripe's meter of whole credits, rounded up once for the lot."""
    if charge.now_ms - charge.created_ms > METER_MEMORY_MS:
        log.error(
            "overage %s may have been told to the meter, or not: look there",
            charge.business_key,
        )
        return
    value = _whole(charge.to_microcredits) - _whole(charge.from_microcredits)
    if value:
        params: Document = {
            "event_name": sync.options.meter_event_name or "",
            "identifier": charge.business_key,
            "payload": {
                "stripe_customer_id": target.subscription.customer_id,
                "value": str(value),
            },
        }
        if target.draft is not None:  # what is told for a period that is over goes on its draft
            params["timestamp"] = target.draft["period_end"] - 1
        try:
            await sync.api.ask(lambda v1: v1.billing.meter_events.create_async(params))  # type: ignore[arg-type] # a dict of them
        except StripeRefusedError as error:
            if error.code != METER_KNOWS:
                raise
    await note_billed(session, charge.charge_id, charge.business_key, None)


def _whole(microcredits: int) -> int:
    return -(-microcredits // MICROCREDITS_PER_CREDIT)


def _metadata(sync: Sync, charge: OverageCharge) -> dict[str, str]:
    return {OVERAGE_KEY: charge.business_key, "tollkeeper_platform": sync.settings.slug}
