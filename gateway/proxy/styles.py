"""In whose words to refuse a call that has no route yet, which could say it.

By what the vendors' SDKs send: they would show no more than a status of an error in another shape.
It is asked for on the way to a refusal only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.errors import NOBODY
from gateway.proxy.answers import refuse
from policies.catalog import ErrorStyle

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.errors import Refusal
    from gateway.proxy.server import Call

_JSON, _EVENTS = "application/json", "text/event-stream"


def style_of_client(headers: Mapping[str, str]) -> ErrorStyle:
    """The style that the sender of these headers (looked up in any case) understands."""
    if "anthropic-version" in headers:
        return ErrorStyle.ANTHROPIC
    # "OpenAI/Python 3.54.0", "AsyncOpenAI/Python 3.54.0", "OpenAI/JS 6.1.0"
    if "OpenAI/" in headers.get("user-agent", ""):
        return ErrorStyle.OPENAI
    accept = headers.get("accept", "")
    # What MCP's transport demands of every POST, and what it adds once a version is agreed on.
    if "mcp-protocol-version" in headers or (_JSON in accept and _EVENTS in accept):
        return ErrorStyle.JSONRPC
    return ErrorStyle.PROBLEM


def refuse_stranger(call: Call, refusal: Refusal, call_id: str) -> None:
    """Refuse a call without a route. Its body is not read, so no id in it can be answered."""
    refuse(call, refusal, style_of_client(call.message.headers), call_id, rpc_ids=NOBODY)
