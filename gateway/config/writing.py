"""Plans, packs and routes as the config writes them: what is written reads back as the same.

Keys that have nothing to say are None. That is also what a key is that says its default and is of
use only beside another, such as `rollover_periods`: who takes the other away has not to know of it.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from gateway.config.write_prices import price_document
from policies.catalog import Plan, TaskRule, WebSocketRule
from policies.money import Money, format_money, format_overage_price
from policies.units import format_credits, format_percent

if TYPE_CHECKING:
    from policies.catalog import Caps, Limits, Pack, Route

Document = dict[str, Any]
# The defaults of a slotted class are on an instance of it only.
_PLAN = Plan("", 0)
_TASK, _WEBSOCKET = TaskRule(), WebSocketRule()


def plan_document(plan: Plan) -> Document:
    """A plan as a [[plans]] table."""
    rollover, bills = plan.rollover_microcredits_max, plan.overage_cap_microcredits > 0
    periods, trial = plan.rollover_periods, plan.trial_microcredits
    overage = plan.overage_price
    return {
        "slug": plan.slug,
        "credits": format_credits(plan.credits_microcredits),
        "period": plan.period,
        **_limits(plan.limits),
        "quota_window": None
        if plan.quota_window is _PLAN.quota_window
        else plan.quota_window.value,
        "caps": _caps(plan.caps, sessions=True),
        "overage": "bill" if bills else "block",
        "overage_cap": format_credits(plan.overage_cap_microcredits) if bills else None,
        "rollover": _rollover(rollover),
        "rollover_periods": None if periods == _PLAN.rollover_periods else periods,
        "low_credits": format_credits(plan.low_credits_microcredits),
        "refund_expired": plan.refund_expired.value,
        "discount": format_percent(plan.discount_basis_points),
        "price_per_month": _prices(plan, 1),
        "price_per_year": _prices(plan, 12),
        "trial_days": plan.trial_days or None,
        "trial_credits": None if trial is None else format_credits(trial),
        "overage_price": None if overage is None else format_overage_price(overage),
        "features": list(plan.features) or None,
    }


def pack_document(pack: Pack) -> Document:
    """A pack as a [[packs]] table."""
    return {
        "slug": pack.slug,
        "name": pack.name,
        "credits": format_credits(pack.credits_microcredits),
        "validity_days": pack.validity_days,
        "price": [format_money(price) for price in pack.prices] or None,
    }


def route_document(route: Route) -> Document:
    """A route as a [[routes]] table."""
    timeouts = route.timeouts
    trust = format_credits(route.trust_microcredits)
    return {
        "name": route.name,
        "match": f"{'|'.join(route.methods) or '*'} {route.pattern}",
        "upstream": route.upstream,
        "timeout_s": _seconds(timeouts.total_ms),
        "connect_timeout_s": _seconds(timeouts.connect_ms),
        "first_byte_timeout_s": _seconds(timeouts.first_byte_ms),
        "idle_timeout_s": _seconds(timeouts.idle_ms),
        "errors": route.errors.value,
        "protocol": route.protocol.value,
        "ensure_usage": route.ensure_usage or None,
        "body_max_bytes": route.body_max_bytes,
        "connections_max": route.connections_max,
        "tls_ca_file": route.tls_ca_file,
        "when_redis_is_down": {"allow": trust} if route.trust_microcredits else None,
        "headers": dict(route.headers) or None,
        "free": True if route.price is None else None,
        "price": None if route.price is None else price_document(route.price),
        "on": {ending.value: rule.value for ending, rule in route.rules.items()},
        "limits": _limits(route.limits) if any(asdict(route.limits).values()) else None,
        "caps": _caps(route.caps, sessions=False),
        "a2a": _task(route.task),
        "websocket": _websocket(route.websocket),
    }


def _prices(plan: Plan, months: int) -> list[str] | None:
    amounts = [
        format_money(Money(price.currency, price.unit_amount))
        for price in plan.prices
        if price.months == months
    ]
    return amounts or None


def _limits(limits: Limits) -> Document:
    return {name: value or None for name, value in asdict(limits).items()}


def _caps(caps: Caps, *, sessions: bool) -> Document | None:
    windows = {name: value for name, value in asdict(caps).items() if sessions or name != "session"}
    if not any(windows.values()):
        return None
    return {name: format_credits(value) if value else None for name, value in windows.items()}


def _rollover(microcredits: int | None) -> str:
    if microcredits is None:
        return "all"
    return format_credits(microcredits) if microcredits else "none"


def _seconds(ms: int) -> int | float:
    return ms / 1000 if ms % 1000 else ms // 1000


def _task(rule: TaskRule) -> Document | None:
    if rule == _TASK:
        return None
    lease_s = None if rule.lease_ms == _TASK.lease_ms else rule.lease_ms // 1000
    return {"charge": rule.per.value, "task_lease_s": lease_s}


def _websocket(rule: WebSocketRule) -> Document | None:
    if rule == _WEBSOCKET:
        return None
    return {"message_max_bytes": rule.message_max_bytes, "check_s": _seconds(rule.check_ms)}
