"""What the gateway refuses surfaces in the `anthropic` package as errors of its own.

A sentence to read, a code and facts for programs; retried only where trying again can help.
"""

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

CONFIG = """
[[routes]]
name = "messages"
match = "POST /v1/messages"
upstream = "{agent}"
errors = "anthropic"

[routes.price]
per_request = "1"
"""
ASK: dict[str, Any] = {
    "model": "parrot-1",
    "max_tokens": 10,
    "messages": [{"role": "user", "content": "hello"}],
}


@pytest_asyncio.fixture
async def agent() -> AsyncIterator[VendorAgent]:
    async with vendor_agent("anthropic") as running:
        yield running


async def test_lack_of_credits_is_a_402_to_read_that_is_not_tried_again(
    agent: VendorAgent, clean_redis_url: str, postgres_url: str, tmp_path: Path, sync: bool
) -> None:
    routes = routes_of(CONFIG, agent, tmp_path)
    async with (
        running_gateway(
            clean_redis_url, postgres_url, routes, microcredits=CREDIT * 3 // 2
        ) as gateway,
        anthropic_driver(gateway, sync=sync) as client,
    ):
        await client.create(**ASK)
        with pytest.raises(anthropic.PaymentRequiredError) as refused:
            await client.create(**ASK)
    error = refused.value
    assert (error.type, error.error_code) == ("billing_error", "insufficient_credits")
    assert error.api_message == "This call may cost 1 credits; 0.5 are available."
    assert error.api_message in str(error)
    assert (error.details.needed, error.details.available) == ("1", "0.5")
    assert error.request_id == error.body["request_id"]
    assert (client.attempts, len(agent.heard)) == (2, 1)


async def test_an_unknown_key_is_an_authentication_error_that_says_what_to_send(
    agent: VendorAgent, clean_redis_url: str, postgres_url: str, tmp_path: Path, sync: bool
) -> None:
    routes = routes_of(CONFIG, agent, tmp_path)
    async with (
        running_gateway(clean_redis_url, postgres_url, routes) as gateway,
        anthropic_driver(gateway, sync=sync, api_key="sk-of-somebody-else") as client,
    ):
        with pytest.raises(anthropic.AuthenticationError) as refused:
            await client.create(**ASK)
    assert refused.value.error_code == "unauthenticated"
    assert "Send a valid API key" in str(refused.value)
    assert (client.attempts, agent.heard) == (1, [])


async def test_what_is_not_sold_is_a_not_found_error(
    agent: VendorAgent, clean_redis_url: str, postgres_url: str, tmp_path: Path, sync: bool
) -> None:
    routes = routes_of(CONFIG, agent, tmp_path)
    async with (
        running_gateway(clean_redis_url, postgres_url, routes) as gateway,
        anthropic_driver(gateway, sync=sync, base_url=f"{gateway.url}/other") as client,
    ):
        with pytest.raises(anthropic.NotFoundError) as refused:
            await client.create(**ASK)
    assert refused.value.error_code == "no_route"
    assert "No agent is offered" in str(refused.value)


async def test_a_call_over_the_rate_waits_as_told_and_then_succeeds(
    agent: VendorAgent, clean_redis_url: str, postgres_url: str, tmp_path: Path, sync: bool
) -> None:
    limited = CONFIG + "[routes.limits]\nrequests_per_second = 1\nburst = 1\n"
    routes = routes_of(limited, agent, tmp_path)
    async with (
        running_gateway(clean_redis_url, postgres_url, routes) as gateway,
        anthropic_driver(gateway, sync=sync) as client,
    ):
        await client.create(**ASK)
        await client.create(**ASK)
        # Trying again sooner than told would have taken one attempt more.
        assert (client.attempts, len(agent.heard)) == (3, 2)
        await gateway.settlements(2)


async def test_a_used_up_quota_is_told_at_once_instead_of_slept_through(
    agent: VendorAgent, clean_redis_url: str, postgres_url: str, tmp_path: Path, sync: bool
) -> None:
    limited = CONFIG + "[routes.limits]\nrequests_per_month = 1\n"
    routes = routes_of(limited, agent, tmp_path)
    async with (
        running_gateway(clean_redis_url, postgres_url, routes) as gateway,
        anthropic_driver(gateway, sync=sync) as client,
    ):
        await client.create(**ASK)
        with pytest.raises(anthropic.RateLimitError) as refused:
            await client.create(**ASK)
    assert refused.value.error_code == "quota_exceeded"
    assert "for this period are used" in str(refused.value)
    assert (client.attempts, len(agent.heard)) == (2, 1)


async def test_a_gateway_that_is_not_ready_is_asked_again(
    agent: VendorAgent,
    clean_redis_url: str,
    postgres_url: str,
    tmp_path: Path,
    sync: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    routes = routes_of(CONFIG, agent, tmp_path)
    async with (
        running_gateway(clean_redis_url, postgres_url, routes) as gateway,
        anthropic_driver(gateway, sync=sync) as client,
    ):
        answers = iter(["Starting.", None])
        monkeypatch.setattr(gateway.worker._proxy, "_unready", lambda: next(answers))
        await client.create(**ASK)
        assert (client.attempts, len(agent.heard)) == (2, 1)
        await gateway.settlement()
