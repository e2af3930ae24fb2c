"""What a payment gives, and which subscription an account goes by. Pure: values in, values out.

docs/money.md says it in tables. Times are ms, amounts of credits microcredits; whatever is given
has a name (`Given.key`) by which it is given once, and depends on nothing but the payment: neither
on when it is looked at nor on what else is known of by then.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from policies import dunning
from policies.billing_options import UpgradeCredits
from policies.catalog import Plan
from policies.periods import MONTHS, months_after_ms
from policies.spans import DAY_MS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from policies.billing_options import BillingOptions
    from policies.catalog import Pack

# Statuses of Stripe's in which a subscription gives its account the plan.
ENTITLING = frozenset(("trialing", "active", "past_due"))
# Of a Checkout session: what gives credits.
SESSION_PAID = frozenset(("paid", "no_payment_required"))
PLAN_PRIORITY = 0
# What was bought pays after what ends by itself.
PACK_PRIORITY = 10


class Contender(NamedTuple):
    """A subscription, as far as it matters for which one serves."""

    stripe_id: str
    status: str
    started_ms: int
    stage: dunning.Stage
    has_plan: bool


class Served(NamedTuple):
    """Which subscription an account goes by, and those that are live beside it; None: by none."""

    by: str | None
    superseded: frozenset[str] = frozenset()


class Slice(NamedTuple):
    """A plan's period within what a price is for; it holds its start and not its end."""

    start_ms: int
    end_ms: int


class Line(NamedTuple):
    """A line of a paid invoice that is about something of ours.

    `months` are its price's; None: paid once. `is_credit`: for time of the old price that a change
    left unused. `period_start_ms`, where it is known: when the whole period began that a proration
    is a part of.
    """

    line_id: str
    sold: Plan | Pack
    quantity: int
    amount_minor: int
    start_ms: int
    end_ms: int
    months: int | None
    is_proration: bool = False
    is_credit: bool = False
    period_start_ms: int | None = None


class PaidInvoice(NamedTuple):
    """An invoice that is paid. `is_change`: it was drawn up because a subscription changed."""

    invoice_id: str
    paid_ms: int
    is_change: bool
    trial_end_ms: int
    lines: tuple[Line, ...]


class Given(NamedTuple):
    """A lot that a payment gives.

    `expires_ms` 0: never. `ceiling`: what all lots of the subscription that end then come to
    together with this one, at most. `replaces`: lots of earlier payments of the subscription that
    end then and have not begun are over before they begin.
    """

    key: str
    source: str
    microcredits: int
    effective_ms: int
    expires_ms: int
    priority: int = PLAN_PRIORITY
    ceiling: int | None = None
    replaces: bool = False


class Period(NamedTuple):
    """An account's period, and the moment from which its boundaries are counted."""

    anchor_ms: int
    start_ms: int
    end_ms: int


def served(contenders: Iterable[Contender]) -> Served:
    """The newest of those that entitle, and were not downgraded for want of payment."""
    live = [one for one in contenders if one.status in ENTITLING]
    able = [one for one in live if one.has_plan and dunning.serves(one.stage)]
    if not able:
        return Served(None)
    by = max(able, key=lambda one: (one.started_ms, one.stripe_id)).stripe_id
    return Served(by, frozenset(one.stripe_id for one in live if one.stripe_id != by))


def price_problem(plan: Plan, months: int | None) -> str | None:
    """Why a plan can't be sold at a price for so many months; None: it can."""
    if months is None:
        return "a plan needs a recurring price"
    if months % MONTHS[plan.period]:
        return f"a price for {months} months does not fit a plan whose period is a {plan.period}"
    return None


def invoice_status(status: str, *, attempts: int, is_processing: bool) -> str:
    """The status of a payment by an invoice's: of an open one by how its payments went so far."""
    if status == "open":
        if is_processing:
            return "processing"
        return "failed" if attempts else "pending"
    return {"paid": "succeeded", "void": "cancelled", "uncollectible": "cancelled"}.get(
        status, "pending"
    )


def invoice_kind(billing_reason: str | None, *, only_overage: bool) -> str:
    """What a payment is, by why its invoice was drawn up."""
    if only_overage:
        return "overage"
    return {
        "subscription_create": "subscription",
        "subscription_cycle": "renewal",
        "subscription_update": "change",
    }.get(billing_reason or "", "other")


def session_status(status: str, payment_status: str, *, has_failed: bool) -> str:
    """The status of a payment by its Checkout session's: a bank's debit takes days."""
    if payment_status in SESSION_PAID:
        return "succeeded"
    if has_failed or status == "expired":
        return "cancelled"
    return "processing" if status == "complete" else "pending"


def slices(whole: Slice, months: int, plan_months: int) -> tuple[Slice, ...]:
    """The plan's periods in what a price for so many months is for, each counted from its start.

    As many as fit by the calendar; of a time that was cut short, those that are left of them.
    """
    starts = [whole.start_ms]
    for part in range(1, months // plan_months):
        start_ms = months_after_ms(whole.start_ms, part * plan_months)
        if start_ms < whole.end_ms:
            starts.append(start_ms)
    return tuple(Slice(*pair) for pair in pairwise([*starts, whole.end_ms]))


def period_at(plan: Plan, months: int, whole: Slice, now_ms: int) -> Period:
    """The period of an account whose subscription has paid, or is to pay, for `whole`.

    Of a month's plan at a yearly price it is the month that it is now.
    """
    parts = slices(whole, months, MONTHS[plan.period])
    now = next((part for part in parts if now_ms < part.end_ms), parts[-1])
    return Period(whole.start_ms, *now)


def given(invoice: PaidInvoice, now_ms: int, options: BillingOptions) -> tuple[Given, ...]:
    """Every lot that a paid invoice gives.

    What begins after `now_ms`, because clocks differ, begins then; but months of a longer price
    begin when they do.
    """
    terms = _Terms(invoice.invoice_id, invoice.paid_ms, now_ms, options)
    changes: list[Line] = []
    lots: list[Given] = []
    for line in invoice.lines:
        if not isinstance(line.sold, Plan):
            lots.append(_of_pack(line.line_id, line.sold, line.quantity, invoice.paid_ms))
        elif _is_trial(invoice, line):
            lots.append(_of_trial(line, terms))
        elif line.is_proration or line.is_credit or invoice.is_change:
            changes.append(line)
        else:
            lots += _of_periods(line, terms)
    return (*lots, *_of_changes(changes, terms))


def given_by_session(
    session_id: str, items: Iterable[tuple[str, Pack, int]], paid_ms: int
) -> tuple[Given, ...]:
    """What a paid Checkout session gives: its items' ids, packs and quantities."""
    return tuple(
        _of_pack(f"{session_id}:{item_id}", pack, quantity, paid_ms)
        for item_id, pack, quantity in items
    )


class _Terms(NamedTuple):
    invoice_id: str
    paid_ms: int
    now_ms: int
    options: BillingOptions

    def until_ms(self, part: Slice) -> int:
        """When a lot for a period ends; one that was over when it was paid for is made up for."""
        if self.paid_ms < part.end_ms:
            return part.end_ms + self.options.bridge_ms
        return self.paid_ms + part.end_ms - part.start_ms


def _is_trial(invoice: PaidInvoice, line: Line) -> bool:
    """Whether a line is for a trial, also for one that was ended early after it was drawn up."""
    return line.amount_minor == 0 and not line.is_credit and line.start_ms < invoice.trial_end_ms


def _credits(line: Line) -> int:
    return line.sold.credits_microcredits * line.quantity


def _of_pack(key: str, pack: Pack, quantity: int, paid_ms: int) -> Given:
    days = pack.validity_days
    expires_ms = 0 if days is None else paid_ms + days * DAY_MS
    amount = pack.credits_microcredits * quantity
    return Given(key, "pack", amount, paid_ms, expires_ms, PACK_PRIORITY)


def _of_trial(line: Line, terms: _Terms) -> Given:
    plan = line.sold
    amount = _credits(line)
    if isinstance(plan, Plan) and plan.trial_microcredits is not None:
        amount = plan.trial_microcredits * line.quantity
    # A change of plan within the trial is such a line again: it gives what is missing.
    return Given(
        line.line_id,
        "trial",
        amount,
        min(line.start_ms, terms.now_ms),
        line.end_ms + terms.options.bridge_ms,
        ceiling=amount,
    )


def _of_periods(line: Line, terms: _Terms, unused: int = 0) -> list[Given]:
    """Whole periods, the first of them less what is still there of what it takes the place of."""
    parts = _parts(line)
    lots = []
    for number, part in enumerate(parts):
        amount = _credits(line) - (0 if number else min(unused, _credits(line)))
        key = line.line_id if len(parts) == 1 else f"{line.line_id}:{number}"
        begin_ms = part.start_ms if number else min(part.start_ms, terms.now_ms)
        lots.append(Given(key, "plan", amount, begin_ms, terms.until_ms(part)))
    return lots


def _parts(line: Line) -> tuple[Slice, ...]:
    """The plan's periods that a line is about, wholly or with their rest."""
    months = line.months or 1
    plan_months = MONTHS[line.sold.period] if isinstance(line.sold, Plan) else months
    start_ms = line.start_ms
    if line.is_proration or line.is_credit:
        start_ms = line.period_start_ms or months_after_ms(line.end_ms, -months)
    parts = slices(Slice(start_ms, line.end_ms), months, plan_months)
    return tuple(part for part in parts if part.end_ms > line.start_ms)


def _of_changes(changes: Sequence[Line], terms: _Terms) -> list[Given]:
    """What a change gives: of each period that it is about, the new plan's less the old one's."""
    anew = [line for line in changes if not (line.is_proration or line.is_credit)]
    shares: dict[int, list[tuple[Line, Slice]]] = {}
    for line in changes:
        if line.is_proration or line.is_credit:
            for part in _parts(line):
                shares.setdefault(part.end_ms, []).append((line, part))
    lots: list[Given] = []
    unused = 0
    for number, end_ms in enumerate(sorted(shares)):
        here = shares[end_ms]
        has_begun = any(part.start_ms <= line.start_ms for line, part in here)
        if has_begun and anew and all(line.is_credit for line, _ in here):
            unused -= sum(_rest(line, part) for line, part in here)
            continue
        key = f"{terms.invoice_id}:change" + (f":{number}" if number else "")
        lots += _of_part(key, here, terms, has_begun=has_begun)
    for line in anew:
        lots += _of_periods(line, terms, unused)
        unused = max(unused - _credits(line), 0)
    return lots


def _of_part(
    key: str, here: Sequence[tuple[Line, Slice]], terms: _Terms, *, has_begun: bool
) -> list[Given]:
    """What a change gives for one period, which has begun or is a later month of the price.

    Nothing is taken of one that has begun.
    """
    now_of = [(line, part) for line, part in here if not line.is_credit]
    latest_ms = max((line.start_ms for line, _ in now_of), default=0)
    ceiling = sum(_credits(line) for line, _ in now_of if line.start_ms == latest_ms)
    is_prorated = has_begun and terms.options.upgrade_credits is UpgradeCredits.PRORATED
    amount = sum(_rest(*one) if is_prorated else _signed(one[0]) for one in here)
    part = here[0][1]
    if has_begun:
        if amount <= 0:
            return []
        rest = Slice(latest_ms, part.end_ms)
        until_ms = terms.until_ms(rest)
        begin_ms = min(latest_ms, terms.now_ms)
        return [Given(key, "plan", amount, begin_ms, until_ms, ceiling=ceiling)]
    if amount == 0:
        return []
    until_ms = terms.until_ms(part)
    amount, replaces = (ceiling, True) if amount < 0 else (amount, False)
    return [Given(key, "plan", amount, part.start_ms, until_ms, ceiling=ceiling, replaces=replaces)]


def _signed(line: Line) -> int:
    return -_credits(line) if line.is_credit else _credits(line)


def _rest(line: Line, part: Slice) -> int:
    """What the rest of a period, from the line's start on, is worth of its credits, rounded down.

    Below 0 for what a change leaves unused.
    """
    rest_ms = part.end_ms - max(line.start_ms, part.start_ms)
    return _signed(line) * rest_ms // (part.end_ms - part.start_ms)
