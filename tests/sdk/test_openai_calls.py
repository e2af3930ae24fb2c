"""The `openai` package from PyPI, unchanged: what it gets through the gateway is what it asked for.

Its answers, streams, tool calls and errors are those of the agent, and each is charged exactly.
"""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import openai
import pytest
import pytest_asyncio

from tests.support.gateway import CREDIT, Gateway, running_gateway
from tests.support.sdk import VendorAgent, openai_driver, routes_of, vendor_agent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

# 0.1 credits a call and 0.001 a token; holds 1.1.
CONFIG = """
[[routes]]
name = "chat"
match = "POST /v1/chat/completions"
upstream = "{agent}"
errors = "openai"

[routes.price]
per_request = "0.1"

[[routes.price.meters]]
unit = "token"
from = ["response.json:/usage/total_tokens", "response.sse:/usage/total_tokens"]
credits_per_unit = "0.001"
reserve_units = 1000
"""
ASK: dict[str, Any] = {
    "model": "parrot-1",
    "messages": [{"role": "user", "content": "hello from here"}],
}
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


@pytest_asyncio.fixture
async def agent() -> AsyncIterator[VendorAgent]:
    async with vendor_agent("openai") as running:
        yield running


@pytest_asyncio.fixture
async def gateway(
    agent: VendorAgent, clean_redis_url: str, postgres_url: str, tmp_path: Path
) -> AsyncIterator[Gateway]:
    routes = routes_of(CONFIG, agent, tmp_path)
    async with running_gateway(clean_redis_url, postgres_url, routes) as running:
        yield running


def text_of(chunks: list[Any]) -> str:
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    return "".join(delta.content or "" for delta in deltas)


async def test_a_call_is_answered_and_charged_for_its_tokens(gateway: Gateway, sync: bool) -> None:
    async with openai_driver(gateway, sync=sync) as client:
        answer = await client.create(**ASK)
    assert answer.choices[0].message.content == "You said: hello from here"
    assert answer.usage.total_tokens == 8
    charged = await gateway.settlement()
    assert (charged.ending, charged.units) == ("completed", "token=8")
    assert charged.charged_microcredits == CREDIT // 10 + 8_000
    assert answer._request_id.replace("-", "") == str(charged.call_id).replace("-", "")


async def test_a_stream_comes_whole_and_its_usage_is_charged(gateway: Gateway, sync: bool) -> None:
    async with openai_driver(gateway, sync=sync) as client:
        chunks = await client.stream(**ASK, stream_options={"include_usage": True})
    assert text_of(chunks) == "You said: hello from here"
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert (chunks[-1].choices, chunks[-1].usage.total_tokens) == ([], 8)
    charged = await gateway.settlement()
    assert (charged.ending, charged.units) == ("completed", "token=8")
    assert charged.charged_microcredits == CREDIT // 10 + 8_000


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_a_tool_is_called_and_its_result_answered(
    gateway: Gateway, sync: bool, stream: bool
) -> None:
    question = {"role": "user", "content": "How is the weather in Lisbon?"}
    asked = {"model": "parrot-1", "tools": [WEATHER], "messages": [question]}
    async with openai_driver(gateway, sync=sync) as client:
        if stream:
            chunks = await client.stream(**asked, stream_options={"include_usage": True})
            pieces = [
                call
                for chunk in chunks
                if chunk.choices
                for call in chunk.choices[0].delta.tool_calls or ()
            ]
            call_id, name = pieces[0].id, pieces[0].function.name
            arguments = "".join(piece.function.arguments for piece in pieces)
        else:
            answer = await client.create(**asked)
            (call,) = answer.choices[0].message.tool_calls
            call_id, name, arguments = call.id, call.function.name, call.function.arguments
        assert (name, json.loads(arguments)) == ("weather", {"city": "Lisbon"})
        use = {
            "role": "assistant",
            "tool_calls": [
                {
                    "id": call_id,
                    "type": "function",
                    "function": {"name": name, "arguments": arguments},
                }
            ],
        }
        result = {"role": "tool", "tool_call_id": call_id, "content": "sunny, 24 degrees"}
        final = await client.create(**{**asked, "messages": [question, use, result]})
    assert final.choices[0].message.content == "The tool says: sunny, 24 degrees"
    second, first = await gateway.settlements(2)
    assert (first.units, second.units) == ("token=8", "token=15")


async def test_a_picture_of_megabytes_arrives_as_it_was_sent(
    gateway: Gateway, agent: VendorAgent, sync: bool
) -> None:
    picture = "data:image/png;base64," + base64.b64encode(bytes(range(256)) * 40_000).decode()
    message = {
        "role": "user",
        "content": [
            {"type": "text", "text": "What is this?"},
            {"type": "image_url", "image_url": {"url": picture}},
        ],
    }
    async with openai_driver(gateway, sync=sync) as client:
        answer = await client.create(model="parrot-1", messages=[message])
    assert answer.choices[0].message.content == "You said: What is this? (picture)"
    sent = json.loads(agent.heard[0].body)
    assert sent["messages"][0]["content"][1]["image_url"]["url"] == picture
    assert (await gateway.settlement()).units == f"token={answer.usage.total_tokens}"


async def test_an_error_of_the_agent_is_the_sdks_own_and_costs_nothing(
    gateway: Gateway, sync: bool
) -> None:
    async with openai_driver(gateway, sync=sync) as client:
        with pytest.raises(openai.NotFoundError) as unknown:
            await client.create(**{**ASK, "model": "parrot-9"})
        with pytest.raises(openai.BadRequestError) as empty:
            await client.create(model="parrot-1", messages=[])
    assert unknown.value.code == "model_not_found"
    assert str(unknown.value) == "Error code: 404 - The model `parrot-9` does not exist."
    assert "at least one message" in str(empty.value)
    for refused in await gateway.settlements(2):
        assert (refused.ending, refused.charged_microcredits) == ("client_error", 0)
