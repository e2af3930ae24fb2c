"""What an account is subscribed to, by the books: plan, credits of the period, and what comes next.

The same with a subscription of Stripe's and with a plan that the clock renews.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from gateway.clock import now_ms
from gateway.operations.standing import balance_of
from policies.dunning import Stage
from policies.spans import DAY_MS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.counters import Counters
    from gateway.ledger.ledger import Ledger
    from gateway.ledger.rows import AccountRow
    from gateway.ledger.subscriptions import SubscriptionFacts, SubscriptionRow
    from gateway.operations.standing import LotBalance
    from policies.billing_options import DunningRules

# What of an account's lots is its plan's for a period; the rest was given or bought apart.
OF_PLANS = frozenset(("plan", "trial", "rollover"))
OVERAGE = "overage"
# Statuses of subscriptions that are over, or never began.
OVER = frozenset(("canceled", "incomplete_expired"))
ACTIVE, NONE = "active", "none"


class PeriodCredits(NamedTuple):
    """What the plan gave for the period, what of it is left, and what else can be used."""

    total_microcredits: int
    left_microcredits: int
    other_left_microcredits: int


class PaymentTrouble(NamedTuple):
    """A subscription that is not paid for. The times are when it loses what; 0: never."""

    stage: Stage
    invoice_id: str | None
    failures: int
    unpaid_since_ms: int
    downgrades_ms: int
    suspends_ms: int


class Subscribed(NamedTuple):
    """What an account is subscribed to.

    `facts`: the subscription that it goes by, or else the newest that is not over; None: it has
    none. `by_clock`: the plan is renewed by the clock. Times are ms, 0 is never: `start_ms` and
    `credits_renew_ms` are the credits' period, `renews_ms` when it is paid for again.
    """

    plan_slug: str | None
    status: str
    by_clock: bool
    facts: SubscriptionFacts | None
    start_ms: int
    credits_renew_ms: int
    renews_ms: int
    credits: PeriodCredits
    debt_microcredits: int
    trouble: PaymentTrouble | None


def current(rows: Sequence[SubscriptionRow]) -> SubscriptionRow | None:
    """The subscription that people mean: that which serves, else the newest that is not over."""
    live = [row for row in rows if row.facts.status not in OVER]
    return next((row for row in live if row.serves), live[0] if live else None)


async def subscribed_of(
    ledger: Ledger,
    counters: Counters,
    account: AccountRow,
    *,
    livemode: bool,
    rules: DunningRules,
) -> Subscribed:
    """What the account is subscribed to in a mode. Raises: UsageError when it is gone."""
    rows = await ledger.subscriptions(account.account_id, livemode=livemode)
    row = current(rows)
    period = await ledger.account_period(account.platform_id, account.account_id)
    start_ms, end_ms = period or (0, 0)
    balance = await balance_of(ledger, counters, account)
    return Subscribed(
        plan_slug=account.plan_slug,
        status=_status(account, row),
        by_clock=account.plan_slug is not None and account.renewed_by == "clock",
        facts=row.facts if row else None,
        start_ms=start_ms,
        credits_renew_ms=end_ms if account.plan_slug else 0,
        renews_ms=_renews_ms(row, end_ms) if account.plan_slug else 0,
        credits=_credits(balance.lots, start_ms, end_ms),
        debt_microcredits=balance.debt_microcredits,
        trouble=_trouble(row, rules),
    )


def _status(account: AccountRow, row: SubscriptionRow | None) -> str:
    """Stripe's word for the subscription; of a plan by the clock, that it is active."""
    if row is not None:
        return row.facts.status
    return NONE if account.plan_slug is None else ACTIVE


def _renews_ms(row: SubscriptionRow | None, end_ms: int) -> int:
    """When it goes on into a new period: not at all, if somebody has cancelled it."""
    if row is None or not row.serves:
        return end_ms
    facts = row.facts
    if facts.cancel_ms is not None and facts.cancel_ms <= (facts.period_end_ms or 0):
        return 0
    return facts.period_end_ms or end_ms


def _credits(lots: list[LotBalance], start_ms: int, end_ms: int) -> PeriodCredits:
    """Lots of the period before, which pay a little longer, are among the others."""
    total = left = other = 0
    moment_ms = now_ms()
    for lot in lots:
        grant = lot.grant
        if grant.source == OVERAGE or grant.effective_ms > moment_ms:
            continue
        is_past = grant.effective_ms < start_ms and 0 < grant.expires_ms < end_ms
        if grant.source in OF_PLANS and not is_past:
            total += grant.amount_microcredits + grant.credited_microcredits
            left += lot.left_microcredits
        else:
            other += lot.left_microcredits
    return PeriodCredits(total, left, other)


def _trouble(row: SubscriptionRow | None, rules: DunningRules) -> PaymentTrouble | None:
    if row is None or row.stage is Stage.NONE or row.facts.unpaid_since_ms is None:
        return None
    since_ms = row.facts.unpaid_since_ms

    def after(days: int | None) -> int:
        return 0 if days is None else since_ms + days * DAY_MS

    is_down = row.stage in {Stage.DOWNGRADED, Stage.SUSPENDED}
    return PaymentTrouble(
        stage=row.stage,
        invoice_id=row.facts.unpaid_invoice_id,
        failures=row.facts.failures,
        unpaid_since_ms=since_ms,
        downgrades_ms=0 if is_down else after(rules.grace_days),
        suspends_ms=0 if row.stage is Stage.SUSPENDED else after(rules.suspend_after_days),
    )
