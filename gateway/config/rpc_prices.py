"""[routes.price.jsonrpc]: what JSON-RPC calls cost, by tool and by method."""

from __future__ import annotations

from typing import TYPE_CHECKING

from policies.catalog import RpcPrices, Rule
from policies.meters.jsonrpc import TOOL_METHOD

if TYPE_CHECKING:
    from gateway.config.section import Section

NAMES_MAX = 1_000
# What a failed call may cost: there is no such thing as a reserve or a minimum of one.
_TOOL_ERRORS = {rule.value: rule for rule in (Rule.NOTHING, Rule.ACTUAL)}


def read_rpc_prices(section: Section) -> RpcPrices:
    """The prices of calls; a call that none is for costs nothing beside the rest of the price."""
    prices = RpcPrices(
        tools=_named(section, "tools"),
        default_tool=section.amount("default_tool_credits"),
        methods=_named(section, "methods"),
        tool_error=section.parsed("tool_error", _tool_error, Rule.NOTHING, Rule.NOTHING.value),
    )
    if TOOL_METHOD in prices.methods:
        section.complain(
            "methods", f'"{TOOL_METHOD}" is priced by its tools, and default_tool_credits'
        )
    section.close()
    return prices


def _named(section: Section, key: str) -> dict[str, int]:
    table = section.table(key)
    names = table.take_keys()
    if len(names) > NAMES_MAX:
        section.complain(key, f"has more than {NAMES_MAX} prices")
    return {name: table.amount(name) for name in names}


def _tool_error(word: str) -> Rule:
    if word not in _TOOL_ERRORS:
        raise ValueError(f'"{word}" is unknown; there is {", ".join(_TOOL_ERRORS)}')
    return _TOOL_ERRORS[word]
