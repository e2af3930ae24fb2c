"""How a platform wants its billing done. Every choice has a default that needs no thought."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from policies.spans import HOUR_MS


class UpgradeCredits(StrEnum):
    """What an upgrade in the middle of a period gives at once."""

    DIFFERENCE = "difference"  # of the two plans' credits, whole
    PRORATED = "prorated"  # the part of it that the rest of the period is


class OlderSubscription(StrEnum):
    """What becomes of a subscription whose account has a newer one."""

    FLAG = "flag"  # it goes on, and is shown as superseded
    CANCEL = "cancel"  # it is cancelled, and what it has not served is paid back


class OverageBy(StrEnum):
    """How overage comes to Stripe."""

    INVOICE_ITEMS = "invoice_items"
    METER_EVENTS = "meter_events"


@dataclass(frozen=True, slots=True)
class DunningRules:
    """When a subscription that is not paid for loses what. None: never."""

    notify_after_failures: int | None = 2
    downgrade_after_failures: int | None = 3
    grace_days: int | None = 7  # then it is downgraded, however few attempts have failed
    suspend_after_days: int | None = 14


@dataclass(frozen=True, slots=True)
class BillingOptions:
    """A platform's choices. URLs None: the caller must give one, or Stripe's own page is used."""

    automatic_tax: bool = False
    promotion_codes: bool = True
    success_url: str | None = None
    cancel_url: str | None = None
    portal_return_url: str | None = None
    upgrade_credits: UpgradeCredits = UpgradeCredits.DIFFERENCE
    older_subscription: OlderSubscription = OlderSubscription.FLAG
    # How long a period's credits outlast it: the invoice for the next one is paid about an hour
    # after it has begun.
    bridge_ms: int = 2 * HOUR_MS
    overage_by: OverageBy = OverageBy.INVOICE_ITEMS
    meter_event_name: str | None = None
    dunning: DunningRules = field(default_factory=DunningRules)
    api_base: str | None = None  # None: Stripe's own
