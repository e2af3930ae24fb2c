"""The `anthropic` package from PyPI, unchanged: what it gets is what it asked the agent for.

Its answers, streams, tool calls and errors are those of the agent, and each is charged exactly.
"""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import anthropic
import pytest
import pytest_asyncio

from tests.support.gateway import Gateway, running_gateway
from tests.support.sdk import VendorAgent, anthropic_driver, routes_of, vendor_agent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

CONFIG = """
[[routes]]
name = "messages"
match = "POST /v1/messages"
upstream = "{agent}"
errors = "anthropic"

[[routes.price.meters]]
unit = "input"
from = ["anthropic.input_tokens"]
credits_per_unit = "0.001"
reserve_units = 1000

[[routes.price.meters]]
unit = "output"
from = ["anthropic.output_tokens"]
credits_per_unit = "0.005"
reserve_from = ["request.json:/max_tokens"]
reserve_units = 1000
"""
ASK: dict[str, Any] = {
    "model": "parrot-1",
    "max_tokens": 100,
    "messages": [{"role": "user", "content": "hello from here"}],
}
WEATHER = {
    "name": "weather",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
}


@pytest_asyncio.fixture
async def agent() -> AsyncIterator[VendorAgent]:
    async with vendor_agent("anthropic") as running:
        yield running


@pytest_asyncio.fixture
async def gateway(
    agent: VendorAgent, clean_redis_url: str, postgres_url: str, tmp_path: Path
) -> AsyncIterator[Gateway]:
    routes = routes_of(CONFIG, agent, tmp_path)
    async with running_gateway(clean_redis_url, postgres_url, routes) as running:
        yield running


async def test_a_call_is_answered_and_charged_for_its_tokens(gateway: Gateway, sync: bool) -> None:
    async with anthropic_driver(gateway, sync=sync) as client:
        answer = await client.create(**ASK)
    assert answer.content[0].text == "You said: hello from here"
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (3, 5)
    charged = await gateway.settlement()
    assert (charged.ending, charged.units) == ("completed", "input=3;output=5")
    assert charged.charged_microcredits == 3 * 1_000 + 5 * 5_000


async def test_a_stream_comes_whole_and_its_usage_is_charged(gateway: Gateway, sync: bool) -> None:
    async with anthropic_driver(gateway, sync=sync) as client:
        events = await client.stream(**ASK)
    kinds = [event.type for event in events]
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    text = "".join(event.delta.text for event in events if event.type == "content_block_delta")
    assert text == "You said: hello from here"
    assert events[-2].usage.output_tokens == 5
    charged = await gateway.settlement()
    assert (charged.ending, charged.units) == ("completed", "input=3;output=5")
    assert charged.charged_microcredits == 3 * 1_000 + 5 * 5_000


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_a_tool_is_called_and_its_result_answered(
    gateway: Gateway, sync: bool, stream: bool
) -> None:
    question = {"role": "user", "content": "How is the weather in Lisbon?"}
    asked = {**ASK, "tools": [WEATHER], "messages": [question]}
    async with anthropic_driver(gateway, sync=sync) as client:
        if stream:
            events = await client.stream(**asked)
            (begun,) = [event for event in events if event.type == "content_block_start"]
            deltas = [event.delta for event in events if event.type == "content_block_delta"]
            use_id, name = begun.content_block.id, begun.content_block.name
            given = json.loads("".join(delta.partial_json for delta in deltas))
        else:
            answer = await client.create(**asked)
            assert answer.stop_reason == "tool_use"
            use_id, name, given = (getattr(answer.content[0], it) for it in ("id", "name", "input"))
        assert (name, given) == ("weather", {"city": "Lisbon"})
        use = {"type": "tool_use", "id": use_id, "name": name, "input": given}
        result = {"type": "tool_result", "tool_use_id": use_id, "content": "sunny, 24 degrees"}
        turns = [
            question,
            {"role": "assistant", "content": [use]},
            {"role": "user", "content": [result]},
        ]
        final = await client.create(**{**asked, "messages": turns})
    assert final.content[0].text == "The tool says: sunny, 24 degrees"
    second, first = await gateway.settlements(2)
    assert (first.units, second.units) == ("input=6;output=2", "input=10;output=6")


async def test_a_picture_of_megabytes_arrives_as_it_was_sent(
    gateway: Gateway, agent: VendorAgent, sync: bool
) -> None:
    data = base64.b64encode(bytes(range(256)) * 40_000).decode()
    source = {"type": "base64", "media_type": "image/png", "data": data}
    content = [{"type": "text", "text": "What is this?"}, {"type": "image", "source": source}]
    async with anthropic_driver(gateway, sync=sync) as client:
        answer = await client.create(**{**ASK, "messages": [{"role": "user", "content": content}]})
    assert answer.content[0].text == "You said: What is this? (image)"
    sent = json.loads(agent.heard[0].body)
    assert sent["messages"][0]["content"][1]["source"]["data"] == data
    assert (await gateway.settlement()).units == "input=4;output=6"


async def test_an_error_of_the_agent_is_the_sdks_own_and_costs_nothing(
    gateway: Gateway, sync: bool
) -> None:
    async with anthropic_driver(gateway, sync=sync) as client:
        with pytest.raises(anthropic.NotFoundError) as unknown:
            await client.create(**{**ASK, "model": "parrot-9"})
        with pytest.raises(anthropic.BadRequestError) as empty:
            await client.create(**{**ASK, "messages": []})
    assert (unknown.value.type, unknown.value.api_message) == ("not_found_error", "model: parrot-9")
    assert empty.value.api_message == "messages: at least one message is required"
    for refused in await gateway.settlements(2):
        assert (refused.ending, refused.charged_microcredits) == ("client_error", 0)
