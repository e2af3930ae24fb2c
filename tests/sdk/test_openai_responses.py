"""OpenAI's Responses API: its usage stands elsewhere than that of chats, and is charged as well."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest_asyncio
from aiohttp import web

from tests.support.gateway import Gateway, running_gateway
from tests.support.sdk import VendorAgent, openai_driver, routes_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

CONFIG = """
[[routes]]
name = "responses"
match = "POST /v1/responses"
upstream = "{agent}"
errors = "openai"

[[routes.price.meters]]
unit = "input"
from = ["openai.input_tokens"]
credits_per_unit = "0.001"
reserve_units = 1000

[[routes.price.meters]]
unit = "output"
from = ["openai.output_tokens"]
credits_per_unit = "0.002"
reserve_units = 1000
"""
USAGE = {
    "input_tokens": 36,
    "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
    "output_tokens": 87,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 123,
}
WORDS = ("Good ", "morning ", "to ", "you.")


def response(status: str, text: str, usage: dict[str, Any] | None) -> dict[str, Any]:
    content = {"type": "output_text", "text": text, "annotations": []}
    message = {"id": "msg_1", "type": "message", "role": "assistant", "status": status}
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1_741_476_542,
        "status": status,
        "model": "parrot-1",
        "output": [{**message, "content": [content]}] if text else [],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": usage,
    }


def events() -> list[dict[str, Any]]:
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    found = [{"type": "response.created", "response": response("in_progress", "", None)}]
    found += [{"type": "response.output_text.delta", **place, "delta": word} for word in WORDS]
    completed = response("completed", "".join(WORDS), USAGE)
    found.append({"type": "response.completed", "response": completed})
    return [{**event, "sequence_number": number} for number, event in enumerate(found)]


async def answer(request: web.Request) -> web.StreamResponse:
    if not (await request.json()).get("stream"):
        return web.json_response(response("completed", "".join(WORDS), USAGE))
    head = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
    await head.prepare(request)
    for event in events():
        await head.write(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode())
    await head.write_eof()
    return head


@asynccontextmanager
async def responses_agent() -> AsyncIterator[VendorAgent]:
    app = web.Application()
    app.router.add_post("/v1/responses", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    yield VendorAgent(f"http://{host}:{port}")
    await runner.cleanup()


@pytest_asyncio.fixture
async def gateway(
    clean_redis_url: str, postgres_url: str, tmp_path: Path
) -> AsyncIterator[Gateway]:
    async with (
        responses_agent() as agent,
        running_gateway(
            clean_redis_url, postgres_url, routes_of(CONFIG, agent, tmp_path)
        ) as running,
    ):
        yield running


async def test_a_response_is_charged_for_its_tokens(gateway: Gateway, sync: bool) -> None:
    async with openai_driver(gateway, sync=sync, responses=True) as client:
        found = await client.create(model="parrot-1", input="Good morning")
    assert found.output_text == "Good morning to you."
    charged = await gateway.settlement()
    assert (charged.units, charged.flags) == ("input=36;output=87", "")
    assert charged.charged_microcredits == 36 * 1_000 + 87 * 2_000


async def test_a_streamed_response_is_charged_for_its_tokens(gateway: Gateway, sync: bool) -> None:
    async with openai_driver(gateway, sync=sync, responses=True) as client:
        parts = await client.stream(model="parrot-1", input="Good morning")
    assert "".join(part.delta for part in parts if part.type.endswith("delta")) == "".join(WORDS)
    assert parts[-1].response.usage.total_tokens == 123
    charged = await gateway.settlement()
    assert (charged.units, charged.flags) == ("input=36;output=87", "")
    assert charged.charged_microcredits == 36 * 1_000 + 87 * 2_000
