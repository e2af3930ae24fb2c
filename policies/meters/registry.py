"""The kinds of meters there are.

A new kind is one file, one line in `KINDS` (one more for each way in which its family adds values
up), one test file, and one heading in the README of policies; a test demands all four.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from policies.catalog import Source
from policies.meters.duration import Duration
from policies.meters.pointer import mistake_in_pointer
from policies.meters.presets import PRESETS
from policies.meters.request_bytes import RequestBytes
from policies.meters.request_json import RequestJson
from policies.meters.response_bytes import ResponseBytes
from policies.meters.response_header import ResponseHeader
from policies.meters.response_json import ResponseJson
from policies.meters.response_ndjson import ResponseNdjson
from policies.meters.response_sse import ResponseSse
from policies.meters.websocket_messages import WebSocketMessages

if TYPE_CHECKING:
    from collections.abc import Mapping

    from policies.meters.reader import BodyKind, LookUp

BODY_KINDS: Mapping[str, type[BodyKind]] = MappingProxyType(
    {
        "response.json": ResponseJson,
        "response.sse": ResponseSse,
        "response.sse.sum": ResponseSse,
        "response.sse.count": ResponseSse,
        "response.ndjson": ResponseNdjson,
        "response.ndjson.sum": ResponseNdjson,
        "response.ndjson.count": ResponseNdjson,
    }
)
LOOK_UPS: Mapping[str, type[LookUp]] = MappingProxyType(
    {
        "response.header": ResponseHeader,
        "response.bytes": ResponseBytes,
        "request.json": RequestJson,
        "request.bytes": RequestBytes,
        "duration": Duration,
        "websocket.messages": WebSocketMessages,
    }
)
KINDS: Mapping[str, type[BodyKind | LookUp]] = MappingProxyType({**BODY_KINDS, **LOOK_UPS})
# Kinds that are known before a call is sent on.
_OF_REQUESTS = ("request.json", "request.bytes")


def parse_source(text: str) -> Source:
    """The source in a text such as "response.json:/usage/total_tokens"."""
    kind, _, argument = text.partition(":")
    return Source(kind, argument)


def parse_sources(text: str) -> tuple[Source, ...]:
    """The sources that a text stands for: several where it is a preset's name."""
    return PRESETS.get(text) or (parse_source(text),)


def mistake_in_source(source: Source) -> str | None:
    """What keeps a source from being read, for the person who wrote it."""
    kind = KINDS.get(source.kind)
    if kind is None:
        return (
            f'"{source.kind}" is not a kind of meter; there is {", ".join(KINDS)}, '
            f"and short for several sources {', '.join(PRESETS)}"
        )
    mistake = kind.mistake_in(source)
    return f'"{source}" {mistake}' if mistake else None


def mistake_in_request_source(source: Source) -> str | None:
    """What keeps a source from saying, before a call, how many units it may use."""
    mistake = mistake_in_source(source)
    if mistake is None and source.kind not in _OF_REQUESTS:
        return f'"{source}" is not known before the call; there is {" and ".join(_OF_REQUESTS)}'
    return mistake


def mistake_in_table_source(source: Source) -> str | None:
    """What keeps a source from choosing the case of a price table."""
    kind, argument = source.kind, source.argument
    mistake: str | None = None
    match kind:
        case "request.json":
            mistake = mistake_in_pointer(argument)
            if mistake is None and ("=" in argument or "+/" in argument):
                mistake = "is more than a pointer; the table itself compares"
        case "path" | "query":
            mistake = None if argument else f'needs a name, such as "{kind}:model"'
        case "jsonrpc.method" | "jsonrpc.tool":
            mistake = "takes no argument" if argument else None
        case _:
            return (
                f'"{kind}" can\'t choose a price; there is request.json:/pointer, path:name, '
                "query:name, jsonrpc.method, jsonrpc.tool"
            )
    return f'"{source}" {mistake}' if mistake else None
