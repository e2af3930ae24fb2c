"""Routes, prices, plans, packs and keys as JSON, the form in Postgres.

Amounts are decimal strings there, apart from money, which is small.
A field that a stored spec does not have, because it is older, means the default.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.ledger.rows import NO_ROUTE, Guards
from policies.billing_options import (
    BillingOptions,
    DunningRules,
    OlderSubscription,
    OverageBy,
    UpgradeCredits,
)
from policies.catalog import (
    Caps,
    ChargePer,
    Ending,
    ErrorStyle,
    Limits,
    MeterSpec,
    OnMissing,
    Pack,
    Plan,
    PlanPrice,
    Price,
    Protocol,
    QuotaWindow,
    RefundExpired,
    Route,
    RpcPrices,
    Rule,
    Source,
    Table,
    TaskRule,
    Tier,
    Timeouts,
    WebSocketRule,
)
from policies.money import Money, OveragePrice

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Spec = dict[str, Any]
NO_GUARDS = Guards()
# The defaults of a slotted class are on an instance of it only.
_METER = MeterSpec("", (), 0, 0)
_ESTIMATE_PER_UNIT = _METER.estimate_per_unit


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
        "protocol": route.protocol.value,
        "ensure_usage": route.ensure_usage,
        "task": {"per": route.task.per.value, "lease_ms": route.task.lease_ms},
        "websocket": {
            "message_max_bytes": route.websocket.message_max_bytes,
            "check_ms": route.websocket.check_ms,
        },
    }


def route_from_spec(
    spec: Mapping[str, Any],
    route_id: int,
    *,
    price: Mapping[str, Any] | None,
    price_version: int,
    guarded: bool,
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
        protocol=Protocol(spec.get("protocol", Protocol.HTTP)),
        ensure_usage=spec.get("ensure_usage", ""),
        task=_task_from_spec(spec.get("task")),
        websocket=WebSocketRule(**spec.get("websocket", {})),
        guarded=guarded,
    )


def price_to_spec(price: Price) -> Spec:
    """Everything of a price but its version, the cases of its table included."""
    maximum = price.maximum_microcredits
    return {
        "per_request_microcredits": str(price.per_request_microcredits),
        "minimum_microcredits": str(price.minimum_microcredits),
        "maximum_microcredits": None if maximum is None else str(maximum),
        "meters": [_meter_to_spec(meter) for meter in price.meters],
        "table": None if price.table is None else _table_to_spec(price.table),
        "rpc": None if price.rpc is None else _rpc_to_spec(price.rpc),
    }


def price_from_spec(spec: Mapping[str, Any], version: int) -> Price:
    """The price of a stored version. The cases of its table are of the same version."""
    maximum = spec["maximum_microcredits"]
    table, rpc = spec.get("table"), spec.get("rpc")
    return Price(
        version=version,
        per_request_microcredits=int(spec["per_request_microcredits"]),
        minimum_microcredits=int(spec["minimum_microcredits"]),
        maximum_microcredits=None if maximum is None else int(maximum),
        meters=tuple(_meter_from_spec(meter) for meter in spec["meters"]),
        table=None if table is None else _table_from_spec(table, version),
        rpc=None if rpc is None else _rpc_from_spec(rpc),
    )


def plan_to_spec(plan: Plan) -> Spec:
    """Everything of a plan but its slug. The limits' names are read by `account_limits.sql`."""
    rollover = plan.rollover_microcredits_max
    trial, overage = plan.trial_microcredits, plan.overage_price
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
        "discount_basis_points": plan.discount_basis_points,
        "prices": [[one.months, one.currency, one.unit_amount] for one in plan.prices],
        "trial_days": plan.trial_days,
        "trial_microcredits": None if trial is None else str(trial),
        "overage_price_nanos": None if overage is None else str(overage.nanos_per_credit),
        "features": list(plan.features),
    }


def plan_from_spec(slug: str, spec: Mapping[str, Any]) -> Plan:
    """The plan of a stored spec."""
    limits = _limits_from_spec(spec)
    rollover = spec.get("rollover_microcredits_max", "0")
    trial, overage = spec.get("trial_microcredits"), spec.get("overage_price_nanos")
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
        discount_basis_points=spec.get("discount_basis_points", 0),
        prices=tuple(PlanPrice(*price) for price in spec.get("prices", ())),
        trial_days=spec.get("trial_days", 0),
        trial_microcredits=None if trial is None else int(trial),
        overage_price=None if overage is None else OveragePrice(int(overage)),
        features=tuple(spec.get("features", ())),
    )


def pack_to_spec(pack: Pack) -> Spec:
    """Everything of a pack but its slug."""
    return {
        "name": pack.name,
        "credits_microcredits": str(pack.credits_microcredits),
        "validity_days": pack.validity_days,
        "prices": [[price.currency, price.amount_minor] for price in pack.prices],
    }


def pack_from_spec(slug: str, spec: Mapping[str, Any]) -> Pack:
    """The pack of a stored spec."""
    return Pack(
        slug=slug,
        name=spec["name"],
        credits_microcredits=int(spec["credits_microcredits"]),
        validity_days=spec["validity_days"],
        prices=tuple(Money(*price) for price in spec["prices"]),
    )


def billing_options_to_spec(options: BillingOptions) -> Spec:
    """A platform's choices of how its billing is done."""
    rules = options.dunning
    return {
        "automatic_tax": options.automatic_tax,
        "promotion_codes": options.promotion_codes,
        "success_url": options.success_url,
        "cancel_url": options.cancel_url,
        "portal_return_url": options.portal_return_url,
        "upgrade_credits": options.upgrade_credits.value,
        "older_subscription": options.older_subscription.value,
        "bridge_ms": options.bridge_ms,
        "overage_by": options.overage_by.value,
        "meter_event_name": options.meter_event_name,
        "api_base": options.api_base,
        "dunning": {
            "notify_after_failures": rules.notify_after_failures,
            "downgrade_after_failures": rules.downgrade_after_failures,
            "grace_days": rules.grace_days,
            "suspend_after_days": rules.suspend_after_days,
        },
    }


def billing_options_from_spec(spec: Mapping[str, Any]) -> BillingOptions:
    """The choices of a stored spec; `{}` has the defaults."""
    known = dict(spec)
    for name, kind in (
        ("upgrade_credits", UpgradeCredits),
        ("older_subscription", OlderSubscription),
        ("overage_by", OverageBy),
    ):
        if name in known:
            known[name] = kind(known[name])
    return BillingOptions(**known | {"dunning": DunningRules(**known.get("dunning", {}))})


def key_to_spec(limits: Limits, caps: Caps, guards: Guards = NO_GUARDS) -> Spec:
    """The limits, caps and guards of one API key."""
    return {
        "limits": _limits_to_spec(limits),
        "caps": _caps_to_spec(caps),
        "routes": list(guards.routes),
        "addresses": list(guards.addresses),
    }


def key_from_spec(spec: Mapping[str, Any]) -> tuple[Limits, Caps]:
    """The limits and caps of a key's stored spec; `{}` has none."""
    return _limits_from_spec(spec.get("limits", {})), _caps_from_spec(spec.get("caps", {}))


def guards_in_force(specs: Iterable[Mapping[str, Any]]) -> Guards:
    """What a key may be used for, of its own stored spec and its ancestors', its own first."""
    return combined_guards(map(guards_from_spec, specs))


def combined_guards(lineage: Iterable[Guards]) -> Guards:
    """What guards of a key and its ancestors allow together, its own first.

    Only routes that all of them allow; the addresses of the nearest that has some.
    """
    routes: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    for guards in lineage:
        if routes and guards.routes:
            routes = tuple(name for name in routes if name in guards.routes) or NO_ROUTE
        routes = routes or guards.routes
        addresses = addresses or guards.addresses
    return Guards(routes, addresses)


def guards_from_spec(spec: Mapping[str, Any]) -> Guards:
    """The guards of a key's stored spec; `{}` has none."""
    return Guards(tuple(spec.get("routes", ())), tuple(spec.get("addresses", ())))


def _meter_to_spec(meter: MeterSpec) -> Spec:
    return {
        "unit": meter.unit,
        "sources": [_source_to_spec(source) for source in meter.sources],
        "picocredits_per_unit": str(meter.picocredits_per_unit),
        "reserve_units": meter.reserve_units,
        "tiers": [[tier.up_to, str(tier.picocredits_per_unit)] for tier in meter.tiers],
        "included_units": meter.included_units,
        "reserve_from": [_source_to_spec(source) for source in meter.reserve_from],
        "on_missing": meter.on_missing and meter.on_missing.value,
        "estimate_from": meter.estimate_from and _source_to_spec(meter.estimate_from),
        "estimate_per_unit": meter.estimate_per_unit,
    }


def _meter_from_spec(spec: Mapping[str, Any]) -> MeterSpec:
    on_missing = spec.get("on_missing")
    estimate_from = spec.get("estimate_from")
    return MeterSpec(
        unit=spec["unit"],
        sources=_sources_from_spec(spec["sources"]),
        picocredits_per_unit=int(spec["picocredits_per_unit"]),
        reserve_units=spec["reserve_units"],
        tiers=tuple(Tier(up_to, int(price)) for up_to, price in spec.get("tiers", ())),
        included_units=spec.get("included_units", 0),
        reserve_from=_sources_from_spec(spec.get("reserve_from", ())),
        on_missing=None if on_missing is None else OnMissing(on_missing),
        estimate_from=None if estimate_from is None else Source(**estimate_from),
        estimate_per_unit=spec.get("estimate_per_unit", _ESTIMATE_PER_UNIT),
    )


def _source_to_spec(source: Source) -> Spec:
    return {"kind": source.kind, "argument": source.argument}


def _sources_from_spec(specs: Iterable[Mapping[str, str]]) -> tuple[Source, ...]:
    return tuple(Source(**spec) for spec in specs)


def _table_to_spec(table: Table) -> Spec:
    return {
        "source": _source_to_spec(table.source),
        "cases": {value: price_to_spec(case) for value, case in table.cases.items()},
        "listed_only": table.listed_only,
    }


def _table_from_spec(spec: Mapping[str, Any], version: int) -> Table:
    return Table(
        source=Source(**spec["source"]),
        cases={value: price_from_spec(case, version) for value, case in spec["cases"].items()},
        listed_only=spec["listed_only"],
    )


def _rpc_to_spec(rpc: RpcPrices) -> Spec:
    return {
        "tools": {name: str(microcredits) for name, microcredits in rpc.tools.items()},
        "default_tool": str(rpc.default_tool),
        "methods": {name: str(microcredits) for name, microcredits in rpc.methods.items()},
        "tool_error": rpc.tool_error.value,
    }


def _rpc_from_spec(spec: Mapping[str, Any]) -> RpcPrices:
    return RpcPrices(
        tools={name: int(microcredits) for name, microcredits in spec["tools"].items()},
        default_tool=int(spec["default_tool"]),
        methods={name: int(microcredits) for name, microcredits in spec["methods"].items()},
        tool_error=Rule(spec["tool_error"]),
    )


def _task_from_spec(spec: Mapping[str, Any] | None) -> TaskRule:
    return TaskRule() if spec is None else TaskRule(ChargePer(spec["per"]), spec["lease_ms"])


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
