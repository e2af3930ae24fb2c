"""Streams of the `openai` package: usage that is asked for on its behalf, and early ends."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import openai
import pytest
import pytest_asyncio

from tests.support.gateway import CREDIT, running_gateway
from tests.support.sdk import VendorAgent, openai_driver, routes_of, vendor_agent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.sdk import Driver

# A word is a token, an event is a word: what is estimated is nearly what would have been told.
CONFIG = """
[[routes]]
name = "chat"
match = "POST /v1/chat/completions"
upstream = "{agent}"
errors = "openai"
ensure_usage = "openai"

[[routes.price.meters]]
unit = "token"
from = ["openai.total_tokens"]
credits_per_unit = "0.001"
reserve_units = 100
estimate_from = "response.sse.count"
estimate_per_unit = 1
"""
PRICE = 1_000
PACE_S = 0.002
HELLO: dict[str, Any] = {
    "model": "parrot-1",
    "messages": [{"role": "user", "content": "hello from here"}],
}
COUNT: dict[str, Any] = {
    "model": "parrot-1",
    "messages": [{"role": "user", "content": "Count to 50000"}],
}


@pytest_asyncio.fixture
async def agent() -> AsyncIterator[VendorAgent]:
    async with vendor_agent("openai", pace_s=PACE_S) as running:
        yield running


def usages(client: Driver) -> list[int]:
    return [chunk.usage.total_tokens for chunk in client.received if chunk.usage]


async def test_usage_is_asked_for_and_not_shown_to_who_did_not_ask(
    agent: VendorAgent, clean_redis_url: str, postgres_url: str, tmp_path: Path, sync: bool
) -> None:
    async with (
        running_gateway(
            clean_redis_url, postgres_url, routes_of(CONFIG, agent, tmp_path)
        ) as gateway,
        openai_driver(gateway, sync=sync) as client,
    ):
        for more in ({}, {"stream_options": {"include_usage": False}}):
            await client.stream(**HELLO, **more)
            assert usages(client) == []
            assert all(len(chunk.choices) == 1 for chunk in client.received)
            assert client.received[-1].choices[0].finish_reason == "stop"
        for charged in await gateway.settlements(2):
            assert (charged.ending, charged.units, charged.flags) == ("completed", "token=8", "")
            assert charged.charged_microcredits == 8 * PRICE
    for heard in agent.heard:
        assert json.loads(heard.body)["stream_options"] == {"include_usage": True}


async def test_usage_is_shown_to_who_asked(
    agent: VendorAgent, clean_redis_url: str, postgres_url: str, tmp_path: Path, sync: bool
) -> None:
    async with (
        running_gateway(
            clean_redis_url, postgres_url, routes_of(CONFIG, agent, tmp_path)
        ) as gateway,
        openai_driver(gateway, sync=sync) as client,
    ):
        await client.stream(**HELLO, stream_options={"include_usage": True})
        assert usages(client) == [8]
        assert client.received[-1].choices == []
        assert (await gateway.settlement()).charged_microcredits == 8 * PRICE


async def test_a_whole_answer_is_left_as_it_is(
    agent: VendorAgent, clean_redis_url: str, postgres_url: str, tmp_path: Path, sync: bool
) -> None:
    async with (
        running_gateway(
            clean_redis_url, postgres_url, routes_of(CONFIG, agent, tmp_path)
        ) as gateway,
        openai_driver(gateway, sync=sync) as client,
    ):
        answer = await client.create(**HELLO)
        assert answer.usage.total_tokens == 8
        assert (await gateway.settlement()).units == "token=8"
    assert "stream_options" not in json.loads(agent.heard[0].body)


async def test_who_leaves_in_mid_stream_pays_for_what_passed(
    agent: VendorAgent, clean_redis_url: str, postgres_url: str, tmp_path: Path, sync: bool
) -> None:
    async with (
        running_gateway(
            clean_redis_url, postgres_url, routes_of(CONFIG, agent, tmp_path)
        ) as gateway,
        openai_driver(gateway, sync=sync) as client,
    ):
        await client.stream(**COUNT, most=20)
        left = await gateway.settlement()
        assert left.ending == "client_disconnect"
        assert 20 * PRICE <= left.charged_microcredits < 50_000 * PRICE
        assert set(left.flags.split(",")) == {"units_missing", "estimated"}
        assert await gateway.balance() == (100 * CREDIT - left.charged_microcredits, 0)


async def test_a_stream_that_nobody_can_pay_further_ends_with_an_error_to_read(
    agent: VendorAgent, clean_redis_url: str, postgres_url: str, tmp_path: Path, sync: bool
) -> None:
    routes = routes_of(CONFIG, agent, tmp_path)
    async with (
        running_gateway(
            clean_redis_url, postgres_url, routes, microcredits=CREDIT * 4 // 10
        ) as gateway,
        openai_driver(gateway, sync=sync) as client,
    ):
        with pytest.raises(openai.APIError) as ended:
            await client.stream(**COUNT)
        assert ended.value.code == "insufficient_credits"
        assert "credits" in str(ended.value)
        assert ended.value.body["needed"]
        numbers = "".join(chunk.choices[0].delta.content or "" for chunk in client.received)
        assert numbers.split() == [str(number) for number in range(1, len(numbers.split()) + 1)]
        # It was raised beyond the first 100 units, to what there was and not further.
        assert 100 < len(client.received) <= 400
        assert client.attempts == 1
        ended_row = await gateway.settlement()
        assert ended_row.ending == "exhausted"
        assert len(client.received) * PRICE <= ended_row.charged_microcredits <= CREDIT * 4 // 10
        available, held = await gateway.balance()
        assert (available, held) == (CREDIT * 4 // 10 - ended_row.charged_microcredits, 0)
