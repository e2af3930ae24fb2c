"""Prices written as [routes.price] tables; see writing.py."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.config.meters import OUTCOME, default_estimate
from policies.catalog import MeterSpec
from policies.units import format_credits, format_unit_price

if TYPE_CHECKING:
    from collections.abc import Iterable

    from policies.catalog import Price, RpcPrices, Source, Table

Document = dict[str, Any]
# The defaults of a slotted class are on an instance of it only.
_METER = MeterSpec("", (), 0, 0)


def price_document(price: Price) -> Document:
    """A price with all of its parts."""
    meters = list(price.meters)
    outcome = meters.pop() if meters and _is_outcome(meters[-1]) else None
    maximum = price.maximum_microcredits
    return {
        "per_request": format_credits(price.per_request_microcredits),
        "minimum": format_credits(price.minimum_microcredits),
        "maximum": None if maximum is None else format_credits(maximum),
        "meters": [_meter(meter) for meter in meters] or None,
        "outcome": None if outcome is None else _outcome(outcome),
        "table": None if price.table is None else _table(price.table, price),
        "jsonrpc": None if price.rpc is None else _rpc(price.rpc),
    }


def _is_outcome(meter: MeterSpec) -> bool:
    """Whether [routes.price.outcome] says all of it."""
    written = MeterSpec(
        OUTCOME, meter.sources, meter.picocredits_per_unit, 1, on_missing=meter.on_missing
    )
    compares = all("=" in source.argument for source in meter.sources)
    return meter == written and meter.on_missing is not None and compares


def _outcome(meter: MeterSpec) -> Document:
    return {
        "from": _sources(meter.sources),
        "credits": format_unit_price(meter.picocredits_per_unit),
        "on_missing": _word(meter),
    }


def _meter(meter: MeterSpec) -> Document:
    source, per_unit = meter.estimate_from, meter.estimate_per_unit
    says = (source, per_unit) != default_estimate(meter.on_missing, meter.sources)
    return {
        "unit": meter.unit,
        "from": _sources(meter.sources),
        "credits_per_unit": None if meter.tiers else format_unit_price(meter.picocredits_per_unit),
        "tiers": [
            {
                "up_to": tier.up_to,
                "credits_per_unit": format_unit_price(tier.picocredits_per_unit),
            }
            for tier in meter.tiers
        ]
        or None,
        "included_units": meter.included_units or None,
        "reserve_units": meter.reserve_units,
        "reserve_from": _sources(meter.reserve_from) or None,
        "on_missing": _word(meter),
        "estimate_from": str(source) if says and source is not None else None,
        "estimate_per_unit": per_unit if says else None,
    }


def _word(meter: MeterSpec) -> str | None:
    return None if meter.on_missing is None else meter.on_missing.value


def _table(table: Table, price: Price) -> Document:
    return {
        "by": str(table.source),
        "listed_only": table.listed_only or None,
        "cases": {value: _case(case, price) for value, case in table.cases.items()},
    }


def _case(case: Price, price: Price) -> Document:
    """What a case says besides the price around it."""
    pairs = list(zip(case.meters, price.meters, strict=True))
    amounts = {
        "per_request": (case.per_request_microcredits, price.per_request_microcredits),
        "minimum": (case.minimum_microcredits, price.minimum_microcredits),
        "maximum": (case.maximum_microcredits, price.maximum_microcredits),
    }
    document: Document = {
        name: format_credits(own)
        for name, (own, around) in amounts.items()
        if own is not None and own != around
    }
    unit_prices = {
        own.unit: format_unit_price(own.picocredits_per_unit)
        for own, around in pairs
        if (own.picocredits_per_unit, own.tiers) != (around.picocredits_per_unit, around.tiers)
    }
    reserves = {
        own.unit: own.reserve_units
        for own, around in pairs
        if own.reserve_units != around.reserve_units
    }
    if unit_prices:
        document["credits_per_unit"] = unit_prices
    if reserves:
        document["reserve_units"] = reserves
    return document


def _rpc(rpc: RpcPrices) -> Document:
    return {
        "default_tool_credits": format_credits(rpc.default_tool),
        "tool_error": rpc.tool_error.value,
        "tools": {name: format_credits(amount) for name, amount in rpc.tools.items()} or None,
        "methods": {name: format_credits(amount) for name, amount in rpc.methods.items()} or None,
    }


def _sources(sources: Iterable[Source]) -> list[str]:
    return [str(source) for source in sources]
