"""Routes, prices and plans as JSON, the form in Postgres. Amounts are decimal strings there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from policies.catalog import (
    Ending,
    ErrorStyle,
    MeterSpec,
    Plan,
    Price,
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
    return {
        "credits_microcredits": str(plan.credits_microcredits),
        "period": plan.period,
        "requests_per_minute": plan.requests_per_minute,
        "requests_per_month": plan.requests_per_month,
        "concurrency": plan.concurrency,
    }


def plan_from_spec(slug: str, spec: Mapping[str, Any]) -> Plan:
    """The plan of a stored spec."""
    return Plan(
        slug=slug,
        credits_microcredits=int(spec["credits_microcredits"]),
        period=spec["period"],
        requests_per_minute=spec["requests_per_minute"],
        requests_per_month=spec["requests_per_month"],
        concurrency=spec["concurrency"],
    )
