"""An Idempotency-Key through the vendors' SDKs: who asks twice gets one answer and pays once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import anthropic
import openai
import pytest

from tests.support.gateway import running_gateway
from tests.support.sdk import anthropic_driver, openai_driver, routes_of, vendor_agent
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.sdk import Driver

CONFIG = """
[[routes]]
name = "sold"
match = "POST /v1/**"
upstream = "{agent}"
errors = "%s"

[routes.price]
per_request = "1"
"""
VENDORS = {"openai": openai_driver, "anthropic": anthropic_driver}
MISMATCHES = {
    "openai": openai.UnprocessableEntityError,
    "anthropic": anthropic.UnprocessableEntityError,
}
KEY = {"Idempotency-Key": '"of-this-order"'}
vendors = pytest.mark.parametrize("vendor", list(VENDORS))


def ask(text: str) -> dict[str, Any]:
    return {
        "model": "parrot-1",
        "max_tokens": 1000,
        "messages": [{"role": "user", "content": text}],
        "extra_headers": KEY,
    }


def ids(parts: list[Any]) -> set[str]:
    return {
        part.message.id if hasattr(part, "message") else part.id
        for part in parts
        if hasattr(part, "message") or hasattr(part, "id")
    }


@vendors
async def test_a_repeated_call_gets_the_first_answer_and_another_body_is_refused(
    clean_redis_url: str, postgres_url: str, tmp_path: Path, sync: bool, vendor: str
) -> None:
    async with (
        vendor_agent(vendor) as agent,
        running_gateway(
            clean_redis_url, postgres_url, routes_of(CONFIG % vendor, agent, tmp_path)
        ) as gateway,
        VENDORS[vendor](gateway, sync=sync) as client,
    ):
        first = await client.create(**ask("hello"))
        again = await client.create(**ask("hello"))
        assert first.id == again.id
        with pytest.raises(MISMATCHES[vendor]) as refused:
            await client.create(**ask("goodbye"))
        assert "idempotency_mismatch" in str(refused.value.body)
        assert (client.attempts, len(agent.heard)) == (3, 1)
        await gateway.settlement()


@vendors
async def test_a_call_whose_first_attempt_still_runs_waits_for_its_answer(
    clean_redis_url: str, postgres_url: str, tmp_path: Path, sync: bool, vendor: str
) -> None:
    async with (
        vendor_agent(vendor, pace_s=0.005) as agent,
        running_gateway(
            clean_redis_url, postgres_url, routes_of(CONFIG % vendor, agent, tmp_path)
        ) as gateway,
        VENDORS[vendor](gateway, sync=sync) as client,
        VENDORS[vendor](gateway, sync=sync, max_retries=10) as other,
    ):

        async def stream(one: Driver) -> list[Any]:
            return await one.stream(**ask("Count to 100"))

        running = asyncio.create_task(stream(client))
        await eventually(lambda: agent.heard)
        again = await stream(other)
        first = await running
        assert len(ids(first)) == 1
        assert ids(again) == ids(first)
        assert len(again) == len(first)
        assert other.attempts > 1
        assert (client.attempts, len(agent.heard)) == (1, 1)
        await gateway.settlement()
