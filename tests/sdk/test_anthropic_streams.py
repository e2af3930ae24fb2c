"""Streams of the `anthropic` package that end early: by the client, or for lack of credits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anthropic
import pytest
import pytest_asyncio

from tests.support.gateway import CREDIT, running_gateway
from tests.support.sdk import VendorAgent, anthropic_driver, routes_of, vendor_agent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

# A word is a token, an event is a word: what is estimated is nearly what would have been told.
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
reserve_units = 10

[[routes.price.meters]]
unit = "output"
from = ["anthropic.output_tokens"]
credits_per_unit = "0.001"
reserve_units = 100
estimate_from = "response.sse.count"
estimate_per_unit = 1
"""
PRICE = 1_000
PACE_S = 0.002
COUNT: dict[str, Any] = {
    "model": "parrot-1",
    "max_tokens": 50_000,
    "messages": [{"role": "user", "content": "Count to 50000"}],
}


@pytest_asyncio.fixture
async def agent() -> AsyncIterator[VendorAgent]:
    async with vendor_agent("anthropic", pace_s=PACE_S) as running:
        yield running


async def test_who_leaves_in_mid_stream_pays_for_what_passed(
    agent: VendorAgent, clean_redis_url: str, postgres_url: str, tmp_path: Path, sync: bool
) -> None:
    async with (
        running_gateway(
            clean_redis_url, postgres_url, routes_of(CONFIG, agent, tmp_path)
        ) as gateway,
        anthropic_driver(gateway, sync=sync) as client,
    ):
        await client.stream(**COUNT, most=20)
        left = await gateway.settlement()
        assert left.ending == "client_disconnect"
        # The input is told in the first event; the output only at the end, so it is estimated.
        assert left.units == "input=3"
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
        anthropic_driver(gateway, sync=sync) as client,
    ):
        with pytest.raises(anthropic.APIStatusError) as ended:
            await client.stream(**COUNT)
        assert (ended.value.type, ended.value.error_code) == (
            "billing_error",
            "insufficient_credits",
        )
        assert "credits" in str(ended.value.api_message)
        assert ended.value.details.needed
        deltas = [event for event in client.received if event.type == "content_block_delta"]
        numbers = "".join(event.delta.text for event in deltas).split()
        assert numbers == [str(number) for number in range(1, len(numbers) + 1)]
        # It was raised beyond the first 110 units, to what there was and not further.
        assert 110 < len(client.received) <= 400
        assert client.attempts == 1
        ended_row = await gateway.settlement()
        assert ended_row.ending == "exhausted"
        assert len(numbers) * PRICE <= ended_row.charged_microcredits <= CREDIT * 4 // 10
        available, held = await gateway.balance()
        assert (available, held) == (CREDIT * 4 // 10 - ended_row.charged_microcredits, 0)
