"""What a route's clients and agents speak: protocol, errors, and the tables of single protocols."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from policies.catalog import ChargePer, ErrorStyle, Protocol, TaskRule, WebSocketRule

if TYPE_CHECKING:
    from gateway.config.section import Section
    from policies.catalog import Price

ENSURE_USAGE = ("openai",)
TASK_LEASE_S_MAX = 30 * 86_400
# Each frame is in memory as a whole: at most one of each end of each WebSocket.
MESSAGE_BYTES_MAX = 2**26
_TASK = TaskRule()
_WEBSOCKET = WebSocketRule()
_JSON_RPC = frozenset({Protocol.MCP, Protocol.A2A})


class Speech(NamedTuple):
    """How a route is spoken to."""

    protocol: Protocol
    errors: ErrorStyle
    ensure_usage: str
    task: TaskRule
    websocket: WebSocketRule


def read_speech(route: Section, price: Price | None) -> Speech:
    """The protocol of a route and all that depends on it."""
    protocol = route.choice("protocol", Protocol, Protocol.HTTP)
    style = ErrorStyle.JSONRPC if protocol in _JSON_RPC else ErrorStyle.PROBLEM
    speech = Speech(
        protocol=protocol,
        errors=route.choice("errors", ErrorStyle, style),
        ensure_usage=_ensure_usage(route, protocol),
        task=_task(route.table("a2a")),
        websocket=_websocket(route.table("websocket")),
    )
    for key, needed in (("a2a", Protocol.A2A), ("websocket", Protocol.WEBSOCKET)):
        if key in route and protocol is not needed:
            route.complain(key, f'is of no use without protocol = "{needed}"')
    if protocol is Protocol.WEBSOCKET and price is not None and price.rpc is not None:
        route.complain("price.jsonrpc", "is of no use on a WebSocket: its messages are not read")
    return speech


def _ensure_usage(route: Section, protocol: Protocol) -> str:
    wanted = route.parsed("ensure_usage", _usage_of, "", "")
    if wanted and protocol is not Protocol.HTTP:
        route.complain("ensure_usage", 'is of no use without protocol = "http"')
    return wanted


def _usage_of(word: str) -> str:
    if word and word not in ENSURE_USAGE:
        raise ValueError(f'"{word}" is unknown; there is {", ".join(ENSURE_USAGE)}')
    return word


def _task(section: Section) -> TaskRule:
    lease_s = section.integer(
        "task_lease_s", _TASK.lease_ms // 1_000, least=1, most=TASK_LEASE_S_MAX
    )
    rule = TaskRule(section.choice("charge", ChargePer, _TASK.per), lease_s * 1_000)
    if "task_lease_s" in section and rule.per is not ChargePer.TASK:
        section.complain("task_lease_s", 'is of no use without charge = "task"')
    section.close()
    return rule


def _websocket(section: Section) -> WebSocketRule:
    rule = WebSocketRule(
        message_max_bytes=section.integer(
            "message_max_bytes", _WEBSOCKET.message_max_bytes, least=1, most=MESSAGE_BYTES_MAX
        ),
        check_ms=section.milliseconds("check_s", _WEBSOCKET.check_ms),
    )
    section.close()
    return rule
