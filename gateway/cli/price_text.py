"""A price in a few words, as tables of routes show it."""

from typing import TYPE_CHECKING

from policies.units import format_credits, format_unit_price

if TYPE_CHECKING:
    from policies.catalog import MeterSpec, Price, RpcPrices


def price_text(price: "Price | None") -> str:
    """Such as "0.1/call + 0.001/token"; of tiers and of JSON-RPC calls the range."""
    if price is None:
        return "free"
    parts = [_meter_text(meter) for meter in price.meters]
    if price.rpc is not None:
        parts.append(_rpc_text(price.rpc))
    if price.per_request_microcredits or not parts:
        parts.insert(0, f"{format_credits(price.per_request_microcredits)}/call")
    text = " + ".join(parts)
    table = price.table
    if table is None:
        return text
    cases = f"{len(table.cases)} by {table.source}"
    return cases if table.listed_only else f"{text}, {cases}"


def _meter_text(meter: "MeterSpec") -> str:
    prices = [tier.picocredits_per_unit for tier in meter.tiers] or [meter.picocredits_per_unit]
    return f"{_range([format_unit_price(pico) for pico in prices])}/{meter.unit}"


def _rpc_text(rpc: "RpcPrices") -> str:
    amounts = sorted({*rpc.tools.values(), *rpc.methods.values(), rpc.default_tool})
    return f"{_range([format_credits(amount) for amount in amounts])}/tool"


def _range(texts: list[str]) -> str:
    return texts[0] if texts[0] == texts[-1] else f"{texts[0]}..{texts[-1]}"
