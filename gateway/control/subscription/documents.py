"""What an account is subscribed to, as a document."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.control.api.fields import or_never
from gateway.control.api.money import mode_word
from gateway.control.subscription.models import PaymentProblem, ScheduledChange, Subscription
from policies.dunning import Stage
from policies.money import format_minor

if TYPE_CHECKING:
    from gateway.control.subscription.models import Interval, Renewer
    from gateway.ledger.subscriptions import SubscriptionFacts
    from gateway.operations.subscribed import PaymentTrouble, Subscribed

INTERVALS: dict[int, Interval] = {1: "month", 12: "year"}
WHAT_TO_DO = {
    Stage.FAILED: "The last payment failed. Put another card on file in the portal, or pay the "
    "invoice there: it is also tried again by itself.",
    Stage.NOTIFIED: "Payments have failed several times. Pay the open invoice in the portal, or "
    "the plan will be lost.",
    Stage.DOWNGRADED: "The plan is lost until the open invoice is paid in the portal; then it "
    "comes back.",
    Stage.SUSPENDED: "Calls are refused until the open invoice is paid in the portal; then "
    "everything comes back.",
}


def subscription_document(found: Subscribed, *, livemode: bool) -> Subscription:
    """The document."""
    facts = found.facts
    return Subscription(
        plan=found.plan_slug,
        status=found.status,
        renewed_by=_renewed_by(found),
        mode=None if facts is None else mode_word(livemode),
        subscription_id=facts and facts.stripe_id,
        subscribed_plan=facts and facts.plan_slug,
        interval=_interval(facts and facts.months),
        months=facts and facts.months,
        quantity=facts and facts.quantity,
        price=facts and _price(facts.unit_amount, facts.currency),
        currency=facts and facts.currency,
        credits_total=found.credits.total_microcredits,
        credits_left=found.credits.left_microcredits,
        other_credits_left=found.credits.other_left_microcredits,
        debt_credits=found.debt_microcredits,
        credits_renew_at=or_never(found.credits_renew_ms),
        renews_at=or_never(found.renews_ms),
        cancel_at=facts and facts.cancel_ms,
        trial_end=facts and facts.trial_end_ms,
        scheduled_change=_scheduled(facts),
        payment_problem=found.trouble and _problem(found.trouble),
    )


def _renewed_by(found: Subscribed) -> Renewer | None:
    if found.plan_slug is None:
        return None
    return "clock" if found.by_clock else "subscription"


def _interval(months: int | None) -> Interval | None:
    return INTERVALS.get(months or 0)


def _price(unit_amount: int | None, currency: str | None) -> str | None:
    if unit_amount is None or currency is None:
        return None
    return format_minor(unit_amount, currency)


def _scheduled(facts: SubscriptionFacts | None) -> ScheduledChange | None:
    if facts is None or facts.next_ms is None:
        return None
    return ScheduledChange(
        plan=facts.next_plan_slug,
        interval=_interval(facts.next_months),
        months=facts.next_months,
        quantity=facts.next_quantity,
        price=_price(facts.next_unit_amount, facts.currency),
        at=facts.next_ms,
    )


def _problem(trouble: PaymentTrouble) -> PaymentProblem:
    return PaymentProblem(
        stage=trouble.stage.value,  # type: ignore[arg-type] # never "none" here
        unpaid_since=trouble.unpaid_since_ms,
        failures=trouble.failures,
        invoice_id=trouble.invoice_id,
        downgrades_at=or_never(trouble.downgrades_ms),
        suspends_at=or_never(trouble.suspends_ms),
        what_to_do=WHAT_TO_DO[trouble.stage],
    )
