"""A small agent API to put behind the gateway: copy it, change it, or only point your tests at it.

It answers in OpenAI's shape and always says what a call used, because usage is what a gateway
charges for. Request headers make it slow, broken or talkative on demand (see README.md).

    python agent.py --host 127.0.0.1 --port 9100
"""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
import socket
import time
from dataclasses import asdict, dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from aiohttp import ClientConnectionResetError, web

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

BODY_BYTES_MAX = 16 * 2**20
CHUNKS_MAX = 100_000
IMAGES_MAX = 10
LISTEN_BACKLOG = 4096
SHUTDOWN_S = 1
SWITCH_MS_MAX = 600_000
TOKENS_MAX = 10**12

PIXEL_PNG = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk"
    "YPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)

SEEN = web.AppKey("SEEN", dict)


class BadCallError(Exception):
    """The caller's mistake: becomes a 400 with its text."""


@dataclass(slots=True)
class Seen:
    """What one path saw since the start. `units`: tokens or images in answers sent whole."""

    calls: int = 0
    completed: int = 0
    abandoned: int = 0
    units: int = 0


@dataclass(frozen=True, slots=True)
class Switches:
    """How this one call should misbehave, from its `X-Agent-*` headers. None: not asked for."""

    delay_ms: int
    fail_status: int | None
    drop_bytes: int | None
    hang: bool
    chunks: int | None
    chunk_ms: int
    usage_tokens: int | None

    @classmethod
    def read(cls, headers: Mapping[str, str]) -> Switches:
        """The switches of a call. Raises: BadCallError when a value is out of its range."""
        return cls(
            delay_ms=_number(headers, "X-Agent-Delay-Ms", 0, SWITCH_MS_MAX) or 0,
            fail_status=_number(headers, "X-Agent-Fail", 400, 599),
            drop_bytes=_number(headers, "X-Agent-Drop", 0, BODY_BYTES_MAX),
            hang=bool(_number(headers, "X-Agent-Hang", 0, 1)),
            chunks=_number(headers, "X-Agent-Chunks", 1, CHUNKS_MAX),
            chunk_ms=_number(headers, "X-Agent-Chunk-Ms", 0, SWITCH_MS_MAX) or 0,
            usage_tokens=_number(headers, "X-Agent-Usage", 0, TOKENS_MAX),
        )


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole JSON answer and the units it reports."""

    payload: dict[str, Any]
    units: int = 0


class Body:
    """Sends an answer's bytes; with a drop asked for, ends the connection after so many of them."""

    def __init__(
        self, request: web.Request, head: web.StreamResponse, drop_bytes: int | None
    ) -> None:
        self._request = request
        self.head = head
        self._left = drop_bytes

    async def write(self, data: bytes) -> None:
        """Send bytes. Raises: ClientConnectionResetError at the drop, or when the client left."""
        if self._left is None:
            await self.head.write(data)
            return
        if sending := data[: self._left]:
            await self.head.write(sending)
        self._left -= len(sending)
        if self._left == 0:
            if self._request.transport is not None:
                self._request.transport.close()  # what was written still goes out, then nothing
            raise ClientConnectionResetError("dropped on request")


async def chat(request: web.Request, switches: Switches) -> web.StreamResponse:
    """POST /v1/chat/completions: OpenAI's shape, JSON or server-sent events."""
    asked = await _json_object(request)
    messages = asked.get("messages")
    if not isinstance(messages, list) or not messages:
        raise BadCallError("'messages' must be a list with at least one message")
    words = _last_words(messages)
    usage = _usage(messages, words, switches.usage_tokens)
    common = {
        "id": f"chatcmpl-{secrets.token_hex(12)}",
        "created": int(time.time()),
        "model": str(asked.get("model", "sample")),
    }
    if asked.get("stream") is True:
        options = asked.get("stream_options") or {}
        own_usage_chunk = isinstance(options, dict) and options.get("include_usage") is True
        events = _stream_events(common, _pieces(words, switches.chunks), usage, own_usage_chunk)
        return await _send_events(request, switches, events, usage["total_tokens"])
    message = {"role": "assistant", "content": " ".join(words), "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    payload = {**common, "object": "chat.completion", "choices": [choice], "usage": usage}
    return await _send_json(request, switches, Answer(payload, usage["total_tokens"]))


async def image(request: web.Request, switches: Switches) -> web.StreamResponse:
    """POST /agents/image: {"n": 2} gives two images of one pixel and says so in `usage`."""
    asked = await _json_object(request)
    count = asked.get("n", 1)
    if type(count) is not int or not 1 <= count <= IMAGES_MAX:
        raise BadCallError(f"'n' must be a whole number from 1 to {IMAGES_MAX}")
    payload = {
        "created": int(time.time()),
        "data": [{"b64_json": PIXEL_PNG}] * count,
        "usage": {"images": count},
    }
    return await _send_json(request, switches, Answer(payload, count))


async def suggest(request: web.Request, switches: Switches) -> web.StreamResponse:
    """POST /agents/suggest: a few ways to go on from `text`; costs the same however long it is."""
    asked = await _json_object(request)
    text = str(asked.get("text", "")).strip() or "this"
    suggestions = [f"Tell me more about {text}", f"Sum up {text}", f"What comes after {text}?"]
    return await _send_json(request, switches, Answer({"suggestions": suggestions}))


async def health(_request: web.Request) -> web.Response:
    """GET /agents/health."""
    return web.json_response({"status": "ok"})


async def seen(request: web.Request) -> web.Response:
    """GET /agents/seen: what each path saw since the start, for tests that compare."""
    return web.json_response({path: asdict(one) for path, one in request.app[SEEN].items()})


def build_app() -> web.Application:
    """The agent as an aiohttp application."""
    app = web.Application(client_max_size=BODY_BYTES_MAX)
    app[SEEN] = {}
    for path, answer in (
        ("/v1/chat/completions", chat),
        ("/agents/image", image),
        ("/agents/suggest", suggest),
    ):
        app[SEEN][path] = Seen()
        app.router.add_post(path, _counted(answer))
    app.router.add_get("/agents/health", health)
    app.router.add_get("/agents/seen", seen)
    return app


def _counted(
    answer: Callable[[web.Request, Switches], Awaitable[web.StreamResponse]],
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """Wraps a route: counts the call, applies the switches that come before an answer."""

    async def handle(request: web.Request) -> web.StreamResponse:
        counts = request.app[SEEN][request.path]
        counts.calls += 1
        try:
            switches = Switches.read(request.headers)
            await asyncio.sleep(switches.delay_ms * 0.001)
            if switches.hang:
                await asyncio.Event().wait()
            if switches.fail_status is not None:
                return _error(switches.fail_status, "failed on request")
            return await answer(request, switches)
        except BadCallError as problem:
            return _error(HTTPStatus.BAD_REQUEST, str(problem))
        except asyncio.CancelledError:
            counts.abandoned += 1
            raise
        except ConnectionError:
            counts.abandoned += 1
            return web.Response()  # nobody is there to read it

    return handle


async def _send_json(
    request: web.Request, switches: Switches, answer: Answer
) -> web.StreamResponse:
    body = json.dumps(answer.payload).encode()
    if switches.drop_bytes is None:
        _completed(request, answer.units)
        return web.Response(body=body, content_type="application/json")
    head = web.StreamResponse(headers={"Content-Type": "application/json"})
    head.content_length = len(body)
    await head.prepare(request)
    await Body(request, head, switches.drop_bytes).write(body)
    _completed(request, answer.units)
    return head


async def _send_events(
    request: web.Request, switches: Switches, events: list[dict[str, Any]], units: int
) -> web.StreamResponse:
    head = web.StreamResponse(
        headers={"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache"}
    )
    await head.prepare(request)
    body = Body(request, head, switches.drop_bytes)
    for number, event in enumerate(events):
        if switches.chunk_ms and number:
            await asyncio.sleep(switches.chunk_ms * 0.001)
        await body.write(b"data: " + json.dumps(event).encode() + b"\n\n")
    await body.write(b"data: [DONE]\n\n")
    await head.write_eof()
    _completed(request, units)
    return head


def _stream_events(
    common: dict[str, Any], pieces: list[str], usage: dict[str, int], own_usage_chunk: bool
) -> list[dict[str, Any]]:
    """One event per piece, then the end.

    Usage is always told. Callers that asked for it (`stream_options.include_usage`) get OpenAI's
    extra chunk without choices; the others may not expect an empty list, so there it rides on the
    last chunk.
    """
    common = {**common, "object": "chat.completion.chunk"}

    def event(delta: dict[str, str], finish_reason: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return {**common, "choices": [choice], "usage": None}

    events = [event({"content": piece}) for piece in pieces]
    events[0]["choices"][0]["delta"]["role"] = "assistant"
    events.append(event({}, "stop"))
    if own_usage_chunk:
        events.append({**common, "choices": []})
    events[-1]["usage"] = usage
    return events


def _completed(request: web.Request, units: int) -> None:
    counts = request.app[SEEN][request.path]
    counts.completed += 1
    counts.units += units


def _error(status: int, message: str) -> web.Response:
    kind = "invalid_request_error" if status < HTTPStatus.INTERNAL_SERVER_ERROR else "server_error"
    error = {"message": message, "type": kind, "param": None, "code": None}
    return web.json_response({"error": error}, status=status)


async def _json_object(request: web.Request) -> dict[str, Any]:
    text = await request.read()
    try:
        found = json.loads(text) if text else {}
    except ValueError:
        raise BadCallError("the body is not JSON") from None
    if not isinstance(found, dict):
        raise BadCallError("the body must be a JSON object")
    return found


def _last_words(messages: list[Any]) -> list[str]:
    last = messages[-1]
    content = last.get("content") if isinstance(last, dict) else None
    return ["You", "said:", *(content.split() if isinstance(content, str) else ["nothing"])]


def _usage(messages: list[Any], words: list[str], total: int | None) -> dict[str, int]:
    """Words count as tokens: crude, but the same every time."""
    prompt = sum(
        len(str(one.get("content", "")).split()) for one in messages if isinstance(one, dict)
    )
    completion = len(words)
    if total is not None:
        prompt = min(prompt, total)
        completion = total - prompt
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }


def _pieces(words: list[str], chunks: int | None) -> list[str]:
    """The answer cut for streaming; asked for more chunks than words, it says the words again."""
    count = chunks or len(words)
    return [("" if i == 0 else " ") + words[i % len(words)] for i in range(count)]


def _number(headers: Mapping[str, str], name: str, low: int, high: int) -> int | None:
    text = headers.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and low <= int(text[:20]) <= high):
        raise BadCallError(f"{name} must be a whole number from {low} to {high}")
    return int(text)


def main() -> None:
    """Serve until interrupted; port 0 takes a free one. The address is printed once it listens."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9100)
    parser.add_argument("--reuse-port", action="store_true", help="whoever holds it shares it")
    options = parser.parse_args()
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    try:
        listening = socket.create_server(
            (options.host, options.port),
            family=family,
            backlog=LISTEN_BACKLOG,
            reuse_port=options.reuse_port,
        )
    except OSError as problem:
        parser.error(f"cannot listen on {options.host}:{options.port}: {problem.strerror}")
    web.run_app(
        build_app(),
        sock=listening,
        access_log=None,
        backlog=LISTEN_BACKLOG,
        handler_cancellation=True,  # a caller that leaves ends its call at once, hanging ones too
        shutdown_timeout=SHUTDOWN_S,
    )


if __name__ == "__main__":
    main()
