"""What is done when Stripe says that something happened. A new type of event is one line here.

What an event says is a hint: which object to look at. It is looked at as it is now.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gateway.stripe_sync import charges, disputes

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
    "charge.dispute.created": disputes.sync_dispute,
    "charge.dispute.updated": disputes.sync_dispute,
    "charge.dispute.closed": disputes.sync_dispute,
    "charge.dispute.funds_withdrawn": disputes.sync_dispute,
    "charge.dispute.funds_reinstated": disputes.sync_dispute,
}
