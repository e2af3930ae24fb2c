"""JSON-RPC: which calls of a request have a price, and how each was answered.

A request that agent and gateway could read differently would be work for free. So what has no
single reading is not guessed at: `mistake_in_request` names it, and the request is refused.

Source: https://www.jsonrpc.org/specification; tools as in the Model Context Protocol,
https://modelcontextprotocol.io/specification (every revision up to 2026-07-28).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from policies.meters.members import folded, with_all_members
from policies.meters.pointer import BYTE_ORDER_MARK
from policies.meters.response_sse import data_of, with_lf_only
from policies.meters.values import WALKED_MAX, has_too_many_values
from policies.terms import RpcCall

if TYPE_CHECKING:
    from collections.abc import Sequence

    from policies.catalog import RpcPrices
    from policies.meters.reader import Loads

TOOL_METHOD = "tools/call"
BATCH_MESSAGES_MAX = 100
# A longer answer, or event of a stream, passes untouched but unread: its calls count as unanswered.
RPC_BODY_MAX_BYTES = 8 * 1024 * 1024
RPC_EVENT_MAX_BYTES = 1024 * 1024

_MESSAGE_KEYS = frozenset({"jsonrpc", "id", "method", "params", "result", "error"})
_NEEDLES = (b'"jsonrpc"', b'"id"', b'"method"', b'"params"', b'"name"', b'"result"', b'"error"')
_BLANK_LINE = b"\n\n"


class RpcId(NamedTuple):
    """The id of a request that waits for an answer: as JSON, and whether it calls a tool."""

    text: str
    tool: bool


def mistake_in_request(body: bytes, document: object) -> str | None:
    """Why a request can't be priced, as the end of a sentence; None when it has one reading.

    `document` is what the JSON in `body` was decoded to. Parsers differ in which of two members of
    one name they take, and some take "Method" for "method"; answers to two calls with one id can't
    be told apart.
    """
    messages = messages_in(document)
    if not messages:
        return "is an empty batch"
    if len(messages) > BATCH_MESSAGES_MAX:
        return f"is a batch of more than {BATCH_MESSAGES_MAX} messages"
    ids = set()
    for message in messages:
        if type(message) is not dict:
            return "is not a JSON-RPC message"
        mistake = _mistake_in_message(message)
        if mistake:
            return mistake
        if "method" in message and message.get("id") is not None:
            rpc_id = str(message["id"])  # to some 1 is "1"
            if rpc_id in ids:
                return "has two requests with one id"
            ids.add(rpc_id)
    return _repeated(body, len(messages))


def priced_calls(document: object, prices: RpcPrices) -> tuple[RpcCall, ...]:
    """The calls of a message or a batch that have a price, in order.

    Those are every `tools/call` and every method in `methods`, also where no id asks for an
    answer: an agent may run them all the same. Such a call has the id "". A tool without a readable
    name costs as much as the dearest.
    """
    calls = []
    for message in messages_in(document):
        method = method_of(message)
        if method == TOOL_METHOD:
            name = tool_of(message)
            if name is not None:
                price = prices.tools.get(name, prices.default_tool)
            else:
                name, price = TOOL_METHOD, max(prices.default_tool, 0, *prices.tools.values())
        elif method is not None and method in prices.methods:
            name, price = method, prices.methods[method]
        else:
            continue
        rpc_id = message.get("id")
        calls.append(RpcCall("" if rpc_id is None else _id_text(rpc_id), name, price))
    return tuple(calls)


def messages_in(document: object) -> list[Any]:
    """The messages of a batch, or the one that there is."""
    return document if type(document) is list else [document]


def method_of(message: object) -> str | None:
    """The method that a message calls; None if it calls none."""
    method = message.get("method") if type(message) is dict else None
    return method if type(method) is str else None


def tool_of(message: object) -> str | None:
    """The tool that a message calls; None if it calls none, or does not say which."""
    if type(message) is not dict or message.get("method") != TOOL_METHOD:
        return None
    params = message.get("params")
    name = params.get("name") if type(params) is dict else None
    return name if type(name) is str else None


def awaited_ids(document: object) -> tuple[RpcId, ...]:
    """The ids of all requests in a message or a batch that wait for an answer, in order."""
    return tuple(
        RpcId(_id_text(message["id"]), message["method"] == TOOL_METHOD)
        for message in messages_in(document)
        if type(message) is dict and "method" in message and message.get("id") is not None
    )


class JsonRpcAnswers:
    """Follows an answer, JSON or a stream of events, and notes how each priced call was answered.

    Answers are found by the id, exactly as it was sent. What an agent says beside them (progress,
    logs, requests of its own) is skipped.
    """

    __slots__ = (
        "_after_cr",
        "_failed",
        "_loads",
        "_open",
        "_pending",
        "_readable",
        "_stream",
        "calls",
    )

    def __init__(self, calls: Sequence[RpcCall], loads: Loads, media_type: str) -> None:
        """`media_type` is the answer's, such as "application/json"; another one is not read."""
        self.calls = calls
        self._loads = loads
        self._stream = media_type == "text/event-stream"
        self._readable = (
            self._stream or media_type == "application/json" or media_type.endswith("+json")
        )
        self._open = {call.id: index for index, call in enumerate(calls) if call.id}
        self._failed: list[int] = []
        self._pending = bytearray()  # of the event that has not ended yet, or of the JSON answer
        self._after_cr = False  # an LF that comes next belongs to the CR before it

    def feed(self, chunk: bytes) -> None:
        """Takes the next bytes of the answer, decoded; in time proportional to their number."""
        if not self._readable or not self._open:
            return
        if self._stream:
            self._feed_stream(chunk)
        elif len(self._pending) + len(chunk) <= RPC_BODY_MAX_BYTES:
            self._pending += chunk
        else:
            self._readable = False
            self._pending.clear()

    def finish(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Indexes of the calls that failed, and of those without an answer so far.

        A call has failed whose answer is an error, a tool's result with `isError`, or a request for
        more input. May be asked between chunks and more than once.
        """
        before = self._open.copy(), self._failed.copy()
        if self._pending and self._open and self._readable:
            if not self._stream:
                self._read(bytes(self._pending))
            elif len(self._pending) <= RPC_EVENT_MAX_BYTES:
                # What ends without a blank line still counts if it is whole JSON.
                self._read(data_of(bytes(self._pending)))
        never = [index for index, call in enumerate(self.calls) if not call.id]
        found = tuple(sorted(self._failed)), tuple(sorted([*self._open.values(), *never]))
        self._open, self._failed = before
        return found

    def _feed_stream(self, chunk: bytes) -> None:
        chunk, self._after_cr = with_lf_only(chunk, after_cr=self._after_cr)
        pending = self._pending
        search_from = max(0, len(pending) - 1)  # the blank line may have begun in the chunk before
        pending += chunk
        end = pending.rfind(_BLANK_LINE, search_from)
        if end >= 0:
            for event in bytes(pending[:end]).split(_BLANK_LINE):
                if len(event) <= RPC_EVENT_MAX_BYTES and self._open:
                    self._read(data_of(event))
            del pending[: end + 2]
        if len(pending) > 2 * RPC_EVENT_MAX_BYTES:
            # More than too long already; enough stays to know so when its end comes.
            del pending[RPC_EVENT_MAX_BYTES:-1]

    def _read(self, text: bytes) -> None:
        if b'"result"' not in text and b'"error"' not in text:
            return
        try:
            document = self._loads(text.removeprefix(BYTE_ORDER_MARK))
        except (ValueError, RecursionError):
            return
        for message in messages_in(document):
            if type(message) is dict and "method" not in message:
                self._read_message(message, alone=type(document) is dict and not self._stream)

    def _read_message(self, message: dict[str, Any], *, alone: bool) -> None:
        error = message.get("error")
        if error is None and "result" not in message:
            return
        rpc_id = message.get("id")
        if rpc_id is None:
            # The agent could not read any id, so it has done nothing of what was asked.
            if alone and error is not None:
                self._failed += self._open.values()
                self._open.clear()
            return
        index = self._open.pop(_id_text(rpc_id), None)
        if index is not None and (error is not None or _failed(message["result"])):
            self._failed.append(index)


def _failed(result: object) -> bool:
    """Whether a result is a failed tool's, or asks for input that the call is sent again with."""
    return type(result) is dict and (
        result.get("isError") is True or result.get("resultType") == "input_required"
    )


def _id_text(rpc_id: object) -> str:
    return json.dumps(rpc_id)


def _mistake_in_message(message: dict[str, Any]) -> str | None:
    for key in message:
        if key not in _MESSAGE_KEYS and folded(key) in _MESSAGE_KEYS:
            return f'has a member that some would read as "{folded(key)}"'
    if "method" not in message:
        return None
    if type(message["method"]) is not str or "\0" in message["method"]:
        return "has a method that is not a plain string"
    if type(message.get("id")) not in {int, str, type(None)}:
        return "has an id that is neither a string nor a whole number"
    if message["method"] == TOOL_METHOD and type(message.get("params")) is dict:
        return _mistake_in_tool(message["params"])
    return None


def _mistake_in_tool(params: dict[str, Any]) -> str | None:
    for key in params:
        if key != "name" and folded(key) == "name":
            return 'has a parameter that some would read as "name"'
    name = params.get("name")
    return "names a tool with a NUL" if type(name) is str and "\0" in name else None


def _repeated(body: bytes, messages: int) -> str | None:
    """Which member of a message, or of its params, is there twice.

    Decoding has kept one of them only, so the text is looked at: by a search, which nearly always
    is enough, or else member by member.
    """
    if messages == 1 and b"\\u" not in body:
        for needle in _NEEDLES:
            if body.count(needle) > 1:
                break
        else:
            return None
    if has_too_many_values(body, WALKED_MAX):
        return "has more values than can be read reliably"
    try:
        document = with_all_members(body)
    except (ValueError, RecursionError):
        return "is JSON that can't be read reliably"
    mistakes = map(_repeated_in_message, messages_in(document))
    return next(filter(None, mistakes), None)


def _repeated_in_message(message: tuple[tuple[str, Any], ...]) -> str | None:
    seen = set()
    for key, value in message:
        if key in seen:
            return f'has two members "{key[:32]}"'
        seen.add(key)
        parameters = value if key == "params" and type(value) is tuple else ()
        if [name for name, _ in parameters].count("name") > 1:
            return 'has two parameters "name"'
    return None
