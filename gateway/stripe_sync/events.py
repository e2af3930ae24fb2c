"""What is done when Stripe says that something happened. A new type of event is one line here.

What an event says is a hint: which object to look at. It is looked at as it is now.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gateway.stripe_sync import (
    charges,
    checkout_sessions,
    customers,
    disputes,
    invoices,
    overage,
    products,
    subscriptions,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from gateway.stripe_sync.sync import Sync

    Handler = Callable[["Sync", "Hint"], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Hint:
    """What an event says, of either shape.

    `object` is the payload's, as it was then; {} where the event is thin: only its id is sure.
    """

    type: str
    object_id: str
    created_ms: int
    object: Mapping[str, Any] = field(default_factory=dict)


# Whoever handles a type of event adds it here: "invoice.paid": invoices.sync_invoice.
HANDLERS: Mapping[str, Handler] = {
    "charge.succeeded": charges.sync_charge,
    "charge.failed": charges.sync_charge,
    "charge.refunded": charges.sync_charge,
    "charge.updated": charges.sync_charge,
    "charge.refund.updated": charges.sync_refund,
    "refund.created": charges.sync_refund,
    "refund.updated": charges.sync_refund,
    "refund.failed": charges.sync_refund,
    "payment_intent.processing": charges.sync_intent,
    "payment_intent.payment_failed": charges.sync_intent,
    "charge.dispute.created": disputes.sync_dispute,
    "charge.dispute.updated": disputes.sync_dispute,
    "charge.dispute.closed": disputes.sync_dispute,
    "charge.dispute.funds_withdrawn": disputes.sync_dispute,
    "charge.dispute.funds_reinstated": disputes.sync_dispute,
    "checkout.session.completed": checkout_sessions.sync_session,
    "checkout.session.expired": checkout_sessions.sync_session,
    "checkout.session.async_payment_succeeded": checkout_sessions.sync_session,
    "checkout.session.async_payment_failed": checkout_sessions.sync_session,
    "invoice.created": overage.sync_new_invoice,
    "invoice.paid": invoices.sync_invoice,
    "invoice.payment_failed": invoices.sync_invoice,
    "invoice.finalized": invoices.sync_invoice,
    "invoice.voided": invoices.sync_invoice,
    "invoice.marked_uncollectible": invoices.sync_invoice,
    "invoice.updated": invoices.sync_invoice,
    "customer.subscription.created": subscriptions.sync_subscription,
    "customer.subscription.updated": subscriptions.sync_subscription,
    "customer.subscription.deleted": subscriptions.sync_subscription,
    "customer.subscription.paused": subscriptions.sync_subscription,
    "customer.subscription.resumed": subscriptions.sync_subscription,
    "customer.subscription.trial_will_end": subscriptions.sync_subscription,
    "customer.subscription.pending_update_applied": subscriptions.sync_subscription,
    "customer.subscription.pending_update_expired": subscriptions.sync_subscription,
    "subscription_schedule.created": subscriptions.sync_schedule,
    "subscription_schedule.updated": subscriptions.sync_schedule,
    "subscription_schedule.released": subscriptions.sync_schedule,
    "subscription_schedule.canceled": subscriptions.sync_schedule,
    "subscription_schedule.completed": subscriptions.sync_schedule,
    "customer.deleted": customers.sync_customer,
    "product.created": products.sync_product,
    "product.updated": products.sync_product,
    "product.deleted": products.sync_product,
    "price.created": products.sync_price,
    "price.updated": products.sync_price,
    "price.deleted": products.sync_price,
}
