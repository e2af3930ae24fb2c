"""Graduated tiers in the reference model: whether a step begins where it was assumed to."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from policies import limits
from tests.support.shard_model_state import counter

if TYPE_CHECKING:
    from tests.support.shard_model_state import Account

UNITS_MAX = 2**53 - 1


class Taken(NamedTuple):
    """Where an account stands before a step, and its counter after it."""

    name: str
    position: int
    within: bool
    after: limits.Counter


def take(account: Account | None, step: str, now_ms: int) -> Taken:
    """A step "<route id>:<unit>:<least>:<most>:<units>" of an account; None: it is gone."""
    place, least, most, units = step.rsplit(":", 3)
    name = f"u:{place}"
    rules = limits.parse_rules(account.facts["rules"] if account else "")
    period = next((rule for rule in rules if rule.kind == limits.PERIOD), None)
    kept = counter(account.counters.get(name) if account else None)
    kept = kept.at(limits.window_end_ms("qp", now_ms, period))
    after = kept._replace(used=min(kept.used + int(units), UNITS_MAX))
    return Taken(name, kept.used, int(least) <= kept.used <= int(most), after)
