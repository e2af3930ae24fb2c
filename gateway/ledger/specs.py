"""Routes, prices, plans and keys as JSON, the form in Postgres. Amounts are decimal strings there.

A field that a stored spec does not have, because it is older, means the default.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from policies.catalog import (
    Caps,
    Ending,
    ErrorStyle,
    Limits,
    MeterSpec,
    Plan,
    Price,
    QuotaWindow,
    RefundExpired,
    Route,
    Rule,
    Source,
    Timeouts,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

Spec = dict[str, Any]


def route_to_spec(route: Route) -> Spec:
    """Everything of a route but its id and its price, which has versions of its own."""
    return {
        "name": route.name,
        "methods": list(route.methods),
        "pattern": route.pattern,
        "upstream": route.upstream,
        "timeouts": {
            "connect_ms": route.timeouts.connect_ms,
            "first_byte_ms": route.timeouts.first_byte_ms,
            "idle_ms": route.timeouts.idle_ms,
            "total_ms": route.timeouts.total_ms,
        },
        "errors": route.errors.value,
        "headers": [list(pair) for pair in route.headers],
        "rules": {ending.value: rule.value for ending, rule in route.rules.items()},
        "body_max_bytes": route.body_max_bytes,
        "connections_max": route.connections_max,
        "tls_ca_file": route.tls_ca_file,
        "limits": _limits_to_spec(route.limits),
        "caps": _caps_to_spec(route.caps),
        "trust_microcredits": str(route.trust_microcredits),
    }


def route_from_spec(
    spec: Mapping[str, Any], route_id: int, *, price: Mapping[str, Any] | None, price_version: int
) -> Route:
    """The route of a stored spec; `price` is the spec of the version in force, None if free."""
    return Route(
        name=spec["name"],
        methods=tuple(spec["methods"]),
        pattern=spec["pattern"],
        upstream=spec["upstream"],
        price=None if price is None else price_from_spec(price, price_version),
        id=route_id,
        timeouts=Timeouts(**spec["timeouts"]),
        errors=ErrorStyle(spec["errors"]),
        headers=tuple((name, value) for name, value in spec["headers"]),
        rules={Ending(ending): Rule(rule) for ending, rule in spec["rules"].items()},
        body_max_bytes=spec["body_max_bytes"],
        connections_max=spec["connections_max"],
        tls_ca_file=spec["tls_ca_file"],
        limits=_limits_from_spec(spec.get("limits", {})),
        caps=_caps_from_spec(spec.get("caps", {})),
        trust_microcredits=int(spec.get("trust_microcredits", "0")),
    )


def price_to_spec(price: Price) -> Spec:
    """Everything of a price but its version."""
    maximum = price.maximum_microcredits
    return {
        "per_request_microcredits": str(price.per_request_microcredits),
        "minimum_microcredits": str(price.minimum_microcredits),
        "maximum_microcredits": None if maximum is None else str(maximum),
        "meters": [
            {
                "unit": meter.unit,
                "sources": [
                    {"kind": source.kind, "argument": source.argument} for source in meter.sources
                ],
                "picocredits_per_unit": str(meter.picocredits_per_unit),
                "reserve_units": meter.reserve_units,
            }
            for meter in price.meters
        ],
    }


def price_from_spec(spec: Mapping[str, Any], version: int) -> Price:
    """The price of a stored version."""
    maximum = spec["maximum_microcredits"]
    return Price(
        version=version,
        per_request_microcredits=int(spec["per_request_microcredits"]),
        minimum_microcredits=int(spec["minimum_microcredits"]),
        maximum_microcredits=None if maximum is None else int(maximum),
        meters=tuple(
            MeterSpec(
                unit=meter["unit"],
                sources=tuple(Source(**source) for source in meter["sources"]),
                picocredits_per_unit=int(meter["picocredits_per_unit"]),
                reserve_units=meter["reserve_units"],
            )
            for meter in spec["meters"]
        ),
    )


def plan_to_spec(plan: Plan) -> Spec:
    """Everything of a plan but its slug. The limits' names are read by `account_limits.sql`."""
    rollover = plan.rollover_microcredits_max
    return {
        "credits_microcredits": str(plan.credits_microcredits),
        "period": plan.period,
        **_limits_to_spec(plan.limits),
        "quota_window": plan.quota_window.value,
        "caps": _caps_to_spec(plan.caps),
        "overage_cap_microcredits": str(plan.overage_cap_microcredits),
        "rollover_microcredits_max": None if rollover is None else str(rollover),
        "rollover_periods": plan.rollover_periods,
        "low_credits_microcredits": str(plan.low_credits_microcredits),
        "refund_expired": plan.refund_expired.value,
    }


def plan_from_spec(slug: str, spec: Mapping[str, Any]) -> Plan:
    """The plan of a stored spec."""
    limits = _limits_from_spec(spec)
    rollover = spec.get("rollover_microcredits_max", "0")
    return Plan(
        slug=slug,
        credits_microcredits=int(spec["credits_microcredits"]),
        period=spec["period"],
        requests_per_minute=limits.requests_per_minute,
        requests_per_month=limits.requests_per_month,
        concurrency=limits.concurrency,
        requests_per_second=limits.requests_per_second,
        burst=limits.burst,
        quota_window=QuotaWindow(spec.get("quota_window", QuotaWindow.CALENDAR)),
        caps=_caps_from_spec(spec.get("caps", {})),
        overage_cap_microcredits=int(spec.get("overage_cap_microcredits", "0")),
        rollover_microcredits_max=None if rollover is None else int(rollover),
        rollover_periods=spec.get("rollover_periods", 1),
        low_credits_microcredits=int(spec.get("low_credits_microcredits", "0")),
        refund_expired=RefundExpired(spec.get("refund_expired", RefundExpired.GRANT)),
    )


def key_to_spec(limits: Limits, caps: Caps) -> Spec:
    """The limits and caps of one API key."""
    return {"limits": _limits_to_spec(limits), "caps": _caps_to_spec(caps)}


def key_from_spec(spec: Mapping[str, Any]) -> tuple[Limits, Caps]:
    """The limits and caps of a key's stored spec; `{}` has none."""
    return _limits_from_spec(spec.get("limits", {})), _caps_from_spec(spec.get("caps", {}))


def _limits_to_spec(limits: Limits) -> Spec:
    return {
        "requests_per_second": limits.requests_per_second,
        "requests_per_minute": limits.requests_per_minute,
        "burst": limits.burst,
        "requests_per_month": limits.requests_per_month,
        "concurrency": limits.concurrency,
    }


def _limits_from_spec(spec: Mapping[str, Any]) -> Limits:
    return Limits(
        requests_per_second=spec.get("requests_per_second", 0),
        requests_per_minute=spec.get("requests_per_minute", 0),
        burst=spec.get("burst", 0),
        requests_per_month=spec.get("requests_per_month", 0),
        concurrency=spec.get("concurrency", 0),
    )


def _caps_to_spec(caps: Caps) -> Spec:
    return {
        "day": str(caps.day),
        "month": str(caps.month),
        "total": str(caps.total),
        "session": str(caps.session),
    }


def _caps_from_spec(spec: Mapping[str, Any]) -> Caps:
    return Caps(
        day=int(spec.get("day", "0")),
        month=int(spec.get("month", "0")),
        total=int(spec.get("total", "0")),
        session=int(spec.get("session", "0")),
    )
