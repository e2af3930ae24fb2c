"""A price of the API's documents in a few words, as tables of routes show it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from policies.units import parse_credits, parse_unit_price

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def price_text(price: Mapping[str, Any] | None) -> str:
    """Such as "0.1/call + 0.001/token"; of tiers and of JSON-RPC calls the range."""
    if price is None:
        return "free"
    parts = [_meter_text(meter) for meter in price.get("meters") or ()]
    outcome = price.get("outcome")
    if outcome is not None:
        parts.append(f"{outcome.get('credits') or '0'}/outcome")
    rpc = price.get("jsonrpc")
    if rpc is not None:
        parts.append(_rpc_text(rpc))
    per_request = price.get("per_request") or "0"
    if parse_credits(per_request) or not parts:
        parts.insert(0, f"{per_request}/call")
    text = " + ".join(parts)
    table = price.get("table")
    if table is None:
        return text
    cases = f"{len(table.get('cases') or ())} by {table['by']}"
    return cases if table.get("listed_only") else f"{text}, {cases}"


def _meter_text(meter: Mapping[str, Any]) -> str:
    tiers = meter.get("tiers") or (meter,)
    prices = [tier.get("credits_per_unit") or "0" for tier in tiers]
    return f"{_range(prices)}/{meter['unit']}"


def _rpc_text(rpc: Mapping[str, Any]) -> str:
    default = rpc.get("default_tool_credits") or "0"
    named = [*(rpc.get("tools") or {}).values(), *(rpc.get("methods") or {}).values()]
    prices = {default, *(price or "0" for price in named)}
    return f"{_range(sorted(prices, key=parse_unit_price))}/tool"


def _range(texts: Sequence[str]) -> str:
    return texts[0] if texts[0] == texts[-1] else f"{texts[0]}..{texts[-1]}"
