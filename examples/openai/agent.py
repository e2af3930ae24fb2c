"""An agent that speaks OpenAI's chat completions, word for word as its SDK expects them.

It repeats what you say, counts when asked to ("Count to 30"), and uses the first tool it is given.
A word is a token. As with OpenAI, a stream tells its usage only when asked to
(`stream_options.include_usage`), in a last chunk without choices.

    python agent.py --port 9101 --pace-ms 20
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import re
import secrets
import time
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
    """The caller's mistake: becomes an error answer in OpenAI's shape."""

    def __init__(self, message: str, *, status: int = 400, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


async def chat(request: web.Request) -> web.StreamResponse:
    """POST /v1/chat/completions."""
    try:
        asked = await read(request)
    except BadCallError as problem:
        error = {
            "message": str(problem),
            "type": "invalid_request_error",
            "param": None,
            "code": problem.code,
        }
        return web.json_response({"error": error}, status=problem.status)
    common = {
        "id": f"chatcmpl-{secrets.token_hex(12)}",
        "created": int(time.time()),
        "model": asked["model"],
    }
    if asked.get("stream") is True:
        return await stream(request, asked, common)
    message, finish_reason, words = answer(asked)
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish_reason}
    document = {
        **common,
        "object": "chat.completion",
        "choices": [choice],
        "usage": usage(asked, words),
    }
    return web.json_response(document)


async def stream(
    request: web.Request, asked: dict[str, Any], common: dict[str, Any]
) -> web.StreamResponse:
    """The answer as server-sent events, one per word."""
    head = web.StreamResponse(
        headers={"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache"}
    )
    await head.prepare(request)
    with contextlib.suppress(ConnectionResetError):  # the caller left
        async for chunk in paced(chunks(asked, common), request.app[PACE_S]):
            await head.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")
        await head.write(b"data: [DONE]\n\n")
        await head.write_eof()
    return head


def chunks(asked: dict[str, Any], common: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The chunks of a streamed answer."""
    wants_usage = (asked.get("stream_options") or {}).get("include_usage") is True
    # Who asks for usage gets the field in every chunk, null until the last.
    common = {**common, "object": "chat.completion.chunk"} | (
        {"usage": None} if wants_usage else {}
    )

    def chunk(delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return {**common, "choices": [choice]}

    message, finish_reason, words = answer(asked)
    yield chunk({"role": "assistant", "content": None if message["content"] is None else ""})
    for index, call in enumerate(message.get("tool_calls", ())):
        function = call["function"]
        begun = {**call, "index": index, "function": {**function, "arguments": ""}}
        yield chunk({"tool_calls": [begun]})
        for piece in re.findall(r"\S+\s*", function["arguments"]):
            yield chunk({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
    for piece in re.findall(r"\S+\s*", message["content"] or ""):
        yield chunk({"content": piece})
    yield chunk({}, finish_reason)
    if wants_usage:
        yield {**common, "choices": [], "usage": usage(asked, words)}


def answer(asked: dict[str, Any]) -> tuple[dict[str, Any], str, int]:
    """The message, why it ends, and how many words it has."""
    message = {"role": "assistant", "content": None, "refusal": None}
    last = asked["messages"][-1]
    if asked.get("tools") and last.get("role") == "user":
        name = asked["tools"][0]["function"]["name"]
        arguments = json.dumps({"city": words_of(last)[-1].strip("?.!")})
        call = {
            "id": f"call_{secrets.token_hex(12)}",
            "type": "function",
            "function": {"name": name, "arguments": arguments},
        }
        return {**message, "tool_calls": [call]}, "tool_calls", len(arguments.split())
    words = reply(last)
    most = asked.get("max_completion_tokens") or asked.get("max_tokens") or len(words)
    finish_reason = "stop" if len(words) <= most else "length"
    words = words[:most]
    return {**message, "content": " ".join(words)}, finish_reason, len(words)


def reply(message: dict[str, Any]) -> list[str]:
    """What there is to say to a message, word by word."""
    said = words_of(message)
    if found := COUNT.search(" ".join(said)):
        return [str(number) for number in range(1, min(int(found[1]), COUNT_MAX) + 1)]
    return ["The", "tool", "says:", *said] if message["role"] == "tool" else ["You", "said:", *said]


def words_of(message: dict[str, Any]) -> list[str]:
    """The words of a message; a picture in it counts as one."""
    content = message.get("content") or ""
    if isinstance(content, str):
        return content.split()
    texts = [part["text"] if part.get("type") == "text" else "(picture)" for part in content]
    return " ".join(texts).split()


def usage(asked: dict[str, Any], words: int) -> dict[str, int]:
    """What the call used."""
    prompt = sum(len(words_of(message)) for message in asked["messages"])
    return {"prompt_tokens": prompt, "completion_tokens": words, "total_tokens": prompt + words}


async def read(request: web.Request) -> dict[str, Any]:
    """The request's JSON. Raises: BadCallError when it is not what OpenAI asks for."""
    try:
        asked = await request.json()
    except ValueError:
        raise BadCallError("We could not parse the JSON body of your request.") from None
    messages = asked.get("messages") if isinstance(asked, dict) else None
    if not isinstance(messages, list) or not messages:
        raise BadCallError("'messages' must be a list with at least one message.")
    if asked.get("model") not in MODELS:
        message = f"The model `{asked.get('model')}` does not exist."
        raise BadCallError(message, status=404, code="model_not_found")
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
    app.router.add_post("/v1/chat/completions", chat)
    return app


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--port", type=int, default=9101)
    parser.add_argument("--pace-ms", type=int, default=0, help="between the words of a stream")
    options = parser.parse_args()
    app = build_app(options.pace_ms * 0.001)
    web.run_app(app, host="127.0.0.1", port=options.port, handler_cancellation=True)


if __name__ == "__main__":
    main()
