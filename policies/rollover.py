"""What of a period's unused credits goes on into the next one."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from policies.catalog import Plan


def rolled_over(plan: Plan, rest: int, *, rollovers: int, rolled_already: int) -> int:
    """Microcredits of an expired lot's rest that its account may use for another period.

    `rollovers` is how often the lot has been rolled over before: 0 for the lot that the plan gave.
    `rolled_already` is what other lots have left to the same next period: the plan's maximum is
    that of a period, however many lots end with it. 0 where the plan allows none or no more.
    """
    if rollovers >= plan.rollover_periods:
        return 0
    if plan.rollover_microcredits_max is None:
        return rest
    return min(rest, max(plan.rollover_microcredits_max - rolled_already, 0))
