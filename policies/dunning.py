"""What a subscription that is not paid for has lost by now, as a table. Pure.

A stage follows from what Stripe says of the oldest unpaid invoice and from the time; nothing is
remembered, so a stage is never reached by mistake and needs no undoing. docs/money.md has the
table with what each stage does.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from policies.spans import DAY_MS

if TYPE_CHECKING:
    from policies.billing_options import DunningRules


class Stage(StrEnum):
    """How far it has come, in this order."""

    NONE = "none"
    FAILED = "failed"
    NOTIFIED = "notified"
    DOWNGRADED = "downgraded"
    SUSPENDED = "suspended"


STAGES = tuple(Stage)
# What is told of a stage that is reached; of the way back, RECOVERED.
EVENTS = {
    Stage.FAILED: "payment_failed",
    Stage.NOTIFIED: "payment_overdue",
    Stage.DOWNGRADED: "plan_downgraded",
    Stage.SUSPENDED: "account_suspended",
}
RECOVERED = "payment_recovered"


class Unpaid(NamedTuple):
    """The oldest invoice of a subscription that fell due and is not paid.

    `failures`: how many payments of it failed. `since_ms`: when it fell due.
    """

    invoice_id: str
    failures: int
    since_ms: int


def stage_at(unpaid: Unpaid | None, now_ms: int, rules: DunningRules) -> Stage:
    """The stage of a subscription; without an unpaid invoice there is none."""
    if unpaid is None:
        return Stage.NONE
    days = (now_ms - unpaid.since_ms) // DAY_MS
    if _reached(days, rules.suspend_after_days):
        return Stage.SUSPENDED
    if _reached(unpaid.failures, rules.downgrade_after_failures) or _reached(
        days, rules.grace_days
    ):
        return Stage.DOWNGRADED
    if _reached(unpaid.failures, rules.notify_after_failures):
        return Stage.NOTIFIED
    return Stage.FAILED


def with_another(stage: Stage, *, is_served: bool) -> Stage:
    """The stage of a subscription whose account another one may serve: then nobody is suspended."""
    return Stage.DOWNGRADED if is_served and stage is Stage.SUSPENDED else stage


def serves(stage: Stage) -> bool:
    """Whether a subscription at this stage still gives its account the plan."""
    return stage not in {Stage.DOWNGRADED, Stage.SUSPENDED}


def told(before: Stage, after: Stage) -> tuple[Stage, ...]:
    """The stages that a subscription has passed on its way, `after` with them; none on a way back.

    Also those that it has passed at once, so that what is told depends on nobody's timing.
    """
    return STAGES[STAGES.index(before) + 1 : STAGES.index(after) + 1]


def _reached(value: int, threshold: int | None) -> bool:
    return threshold is not None and value >= threshold
