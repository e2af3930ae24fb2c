"""What a WebSocket's route may say, and the times it has where it says nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from policies.catalog import Protocol, Timeouts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.config.section import Section
    from policies.catalog import Price

# A conversation may be silent for long, and last for as long as it is paid for.
WEBSOCKET_TIMEOUTS = Timeouts(idle_ms=300_000, total_ms=86_400_000)
# What can be counted of frames that nobody reads.
WEBSOCKET_SOURCES = ("websocket.messages", "duration", "request.bytes", "response.bytes")
_TIMEOUTS = Timeouts()


def default_timeouts(protocol: Protocol) -> Timeouts:
    """The timeouts of a route of this protocol that names none."""
    return WEBSOCKET_TIMEOUTS if protocol is Protocol.WEBSOCKET else _TIMEOUTS


def check_websocket(
    route: Section, protocol: Protocol, methods: Sequence[str], price: Price | None
) -> None:
    """Note what a WebSocket can't be, and what only a WebSocket can."""
    if protocol is not Protocol.WEBSOCKET:
        if any(kind == WEBSOCKET_SOURCES[0] for kind in _kinds(price)):
            route.complain("price.meters", f'{WEBSOCKET_SOURCES[0]} needs protocol = "websocket"')
        return
    if methods and "GET" not in methods:
        route.complain("match", "a WebSocket is opened by GET")
    for kind in _kinds(price):
        if kind not in WEBSOCKET_SOURCES:
            there = ", ".join(WEBSOCKET_SOURCES)
            route.complain("price.meters", f"a WebSocket has no {kind}; there is {there}")


def _kinds(price: Price | None) -> list[str]:
    """The kinds of sources of all meters, each once."""
    meters = price.meters if price is not None else ()
    return list(dict.fromkeys([source.kind for meter in meters for source in meter.sources]))
