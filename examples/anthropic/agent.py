"""An agent that speaks Anthropic's Messages API, event for event as its SDK expects them.

It repeats what you say, counts when asked to ("Count to 30"), and uses the first tool it is given.
A word is a token. As with Anthropic, a stream tells its input tokens in its first event and its
output tokens, in all until then, in `message_delta`.

    python agent.py --port 9102 --pace-ms 20
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import re
import secrets
from typing import TYPE_CHECKING, Any

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

BODY_BYTES_MAX = 64 * 2**20
COUNT_MAX = 100_000
MODELS = ("parrot-1", "parrot-1-mini")
COUNT = re.compile(r"count to (\d{1,6})\b", re.IGNORECASE)
PACE_S = web.AppKey("PACE_S", float)


class BadCallError(Exception):
    """The caller's mistake: becomes an error answer in Anthropic's shape."""

    def __init__(self, message: str, *, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


async def messages(request: web.Request) -> web.StreamResponse:
    """POST /v1/messages."""
    try:
        asked = await read(request)
    except BadCallError as problem:
        kind = "not_found_error" if problem.status == 404 else "invalid_request_error"
        error = {"type": "error", "error": {"type": kind, "message": str(problem)}}
        return web.json_response(error, status=problem.status)
    block, stop_reason, words = answer(asked)
    message = {
        "id": f"msg_{secrets.token_hex(12)}",
        "type": "message",
        "role": "assistant",
        "model": asked["model"],
        "content": [block],
        "stop_reason": stop_reason,
        "stop_sequence": None,
        "usage": {"input_tokens": words_in(asked), "output_tokens": words},
    }
    if asked.get("stream") is not True:
        return web.json_response(message)
    head = web.StreamResponse(
        headers={"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache"}
    )
    await head.prepare(request)
    with contextlib.suppress(ConnectionResetError):  # the caller left
        async for event in paced(events(message), request.app[PACE_S]):
            data = json.dumps(event)
            await head.write(f"event: {event['type']}\ndata: {data}\n\n".encode())
        await head.write_eof()
    return head


def events(message: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The events that a streamed message comes in."""
    (block,) = message["content"]
    usage = message["usage"]
    begun = {**message, "content": [], "stop_reason": None, "usage": {**usage, "output_tokens": 1}}
    yield {"type": "message_start", "message": begun}
    if block["type"] == "tool_use":
        empty, pieces = {**block, "input": {}}, re.findall(r"\S+\s*", json.dumps(block["input"]))
        deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]
    else:
        empty, pieces = {**block, "text": ""}, re.findall(r"\S+\s*", block["text"])
        deltas = [{"type": "text_delta", "text": piece} for piece in pieces]
    yield {"type": "content_block_start", "index": 0, "content_block": empty}
    yield {"type": "ping"}
    for delta in deltas:
        yield {"type": "content_block_delta", "index": 0, "delta": delta}
    yield {"type": "content_block_stop", "index": 0}
    end = {"stop_reason": message["stop_reason"], "stop_sequence": None}
    yield {
        "type": "message_delta",
        "delta": end,
        "usage": {"output_tokens": usage["output_tokens"]},
    }
    yield {"type": "message_stop"}


def answer(asked: dict[str, Any]) -> tuple[dict[str, Any], str, int]:
    """The content block, why it ends, and how many words it has."""
    last = asked["messages"][-1]
    said = words_of(last["content"])
    result = last["content"][0] if isinstance(last["content"], list) else {}
    if result.get("type") == "tool_result":
        words = ["The", "tool", "says:", *said]
    elif asked.get("tools"):
        given = {"city": said[-1].strip("?.!")}
        block = {
            "type": "tool_use",
            "id": f"toolu_{secrets.token_hex(12)}",
            "name": asked["tools"][0]["name"],
            "input": given,
        }
        return block, "tool_use", len(json.dumps(given).split())
    elif found := COUNT.search(" ".join(said)):
        words = [str(number) for number in range(1, min(int(found[1]), COUNT_MAX) + 1)]
    else:
        words = ["You", "said:", *said]
    stop_reason = "end_turn" if len(words) <= asked["max_tokens"] else "max_tokens"
    words = words[: asked["max_tokens"]]
    return {"type": "text", "text": " ".join(words)}, stop_reason, len(words)


def words_of(content: Any) -> list[str]:
    """The words of a message's content; a picture in it counts as one."""
    if isinstance(content, str):
        return content.split()
    words: list[str] = []
    for block in content:
        if block["type"] == "text":
            words += block["text"].split()
        elif block["type"] == "tool_result":
            words += words_of(block.get("content") or "")
        else:
            words.append(f"({block['type']})")
    return words


def words_in(asked: dict[str, Any]) -> int:
    """How many words the request has."""
    given = [words_of(message["content"]) for message in asked["messages"]]
    return sum(map(len, given)) + len(words_of(asked.get("system") or ""))


async def read(request: web.Request) -> dict[str, Any]:
    """The request's JSON. Raises: BadCallError when it is not what Anthropic asks for."""
    if "anthropic-version" not in request.headers:
        raise BadCallError("anthropic-version: header is required")
    try:
        asked = await request.json()
    except ValueError:
        raise BadCallError("The request body is not valid JSON.") from None
    if not isinstance(asked, dict) or not asked.get("messages"):
        raise BadCallError("messages: at least one message is required")
    if type(asked.get("max_tokens")) is not int or asked["max_tokens"] < 1:
        raise BadCallError("max_tokens: Field required")
    if asked.get("model") not in MODELS:
        raise BadCallError(f"model: {asked.get('model')}", status=404)
    return asked


async def paced(items: Iterator[dict[str, Any]], pace_s: float) -> AsyncIterator[dict[str, Any]]:
    """The items, with a pause before each."""
    for item in items:
        if pace_s:
            await asyncio.sleep(pace_s)
        yield item


def build_app(pace_s: float = 0.0) -> web.Application:
    """The agent as an aiohttp application."""
    app = web.Application(client_max_size=BODY_BYTES_MAX)
    app[PACE_S] = pace_s
    app.router.add_post("/v1/messages", messages)
    return app


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--port", type=int, default=9102)
    parser.add_argument("--pace-ms", type=int, default=0, help="between the events of a stream")
    options = parser.parse_args()
    app = build_app(options.pace_ms * 0.001)
    web.run_app(app, host="127.0.0.1", port=options.port, handler_cancellation=True)


if __name__ == "__main__":
    main()
