"""What users of MCP clients see when the gateway refuses: a sentence, the facts, a way out."""

from __future__ import annotations

import json
import traceback
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
import pytest_asyncio
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

from gateway import errors
from gateway.operations.keys import revoke_key
from policies.catalog import Timeouts
from tests.support.faulty_redis import OwnRedis
from tests.support.gateway import CREDIT
from tests.support.keys import key_of
from tests.support.mcp_shop import (
    MODERN,
    UPGRADE_URL,
    McpAgent,
    charged,
    mcp_agent,
    mcp_client,
    mcp_gateway,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mcp_types import CallToolResult

    from tests.support.gateway import Gateway

BOTH = {"Accept": "application/json, text/event-stream"}
ERAS = pytest.mark.parametrize("mode", ["legacy", MODERN])


@pytest_asyncio.fixture
async def agent() -> AsyncIterator[McpAgent]:
    async with mcp_agent() as running:
        yield running


@pytest_asyncio.fixture
async def gateway(
    agent: McpAgent, clean_redis_url: str, postgres_url: str
) -> AsyncIterator[Gateway]:
    async with mcp_gateway(clean_redis_url, postgres_url, agent, microcredits=8 * CREDIT) as made:
        yield made


def said(result: CallToolResult) -> tuple[str, dict[str, Any]]:
    """The text of a refused tool, and what its result says to programs."""
    assert result.is_error
    return result.content[0].text, result.meta["tollkeeper/refusal"]  # type: ignore[union-attr,index]


async def draw(client: Client) -> CallToolResult:
    return await client.call_tool("draw", {"words": "a hat"})


@ERAS
async def test_a_tool_without_credits_fails_and_says_what_is_needed(
    gateway: Gateway, agent: McpAgent, mode: str
) -> None:
    async with mcp_client(gateway, mode) as client:
        await client.list_tools()  # so that the client knows what the tool promises to return
        assert not (await draw(client)).is_error
        text, facts = said(await draw(client))
        await charged(gateway, "7", of=8 * CREDIT)
        assert not (await client.call_tool("ping")).is_error
    assert text == (f"This call may cost 7 credits; 1 are available. Get more at {UPGRADE_URL}")
    assert len(facts.pop("request_id")) == 32
    assert facts == {
        "status": 402,
        "code": "insufficient_credits",
        "needed": "7",
        "available": "1",
        "upgrade_url": UPGRADE_URL,
    }
    assert agent.began == ["draw", "ping"]


@ERAS
async def test_another_method_without_credits_is_an_error_with_the_facts(
    gateway: Gateway, mode: str
) -> None:
    async with mcp_client(gateway, mode) as client:
        await draw(client)
        await client.session.read_resource("text://price-list")
        await client.session.read_resource("text://price-list")
        with pytest.raises(MCPError) as refused:
            await client.session.read_resource("text://price-list")
        await charged(gateway, "8", of=8 * CREDIT)
    error = refused.value.error
    assert error.code == 402
    assert error.message == (
        f"This call may cost 0.5 credits; 0 are available. Get more at {UPGRADE_URL}"
    )
    assert len(error.data.pop("request_id")) == 32
    assert error.data == {
        "status": 402,
        "code": "insufficient_credits",
        "needed": "0.5",
        "available": "0",
        "upgrade_url": UPGRADE_URL,
    }


@ERAS
async def test_a_cap_is_told_like_lack_of_credits(gateway: Gateway, mode: str) -> None:
    async with mcp_client(gateway, mode) as client:
        await client.call_tool("ping")
        await gateway.amend(rules=f"ct:{5 * CREDIT}")
        text, facts = said(await draw(client))
    assert "5 credits that this account may spend in all" in text
    assert (facts["code"], facts["limit"], facts["spent"]) == ("spend_cap_reached", "5", "0")


@ERAS
async def test_a_rate_limit_says_when_to_come_again(gateway: Gateway, mode: str) -> None:
    async with mcp_client(gateway, mode) as client:
        await client.call_tool("ping")
        await gateway.amend(rules="rm:1")
        await client.call_tool("ping")
        text, facts = said(await client.call_tool("ping"))
        with pytest.raises(MCPError) as refused:
            await client.list_tools(cache_mode="refresh")
    assert text.startswith("Too many requests for now")
    assert (facts["status"], facts["code"], facts["limit"]) == (429, "rate_limited", 1)
    assert 1 <= facts["retry_after_s"] <= 60
    error = refused.value.error
    assert (error.code, error.data["code"]) == (429, "rate_limited")
    assert error.message == text


async def test_headers_say_the_same_as_the_answer(gateway: Gateway) -> None:
    call = b'{"jsonrpc": "2.0", "id": "a", "method": "tools/list"}'
    await gateway.call("/mcp", data=call)
    await gateway.amend(rules="rm:1")
    await gateway.call("/mcp", data=call)
    reply = await gateway.call("/mcp", data=call, headers={"Content-Type": "application/json"})
    assert (reply.status, reply.headers["Content-Type"]) == (200, "application/json")
    assert int(reply.headers["Retry-After"]) >= 1
    assert reply.request_id.encode() in reply.body
    # A notification has nobody to be told: as everywhere else.
    reply = await gateway.call("/mcp", data=b'{"jsonrpc": "2.0", "method": "notifications/x"}')
    assert (reply.status, reply.headers["Content-Type"]) == (429, "application/problem+json")


@ERAS
async def test_a_revoked_key_is_told_by_status_and_in_words(gateway: Gateway, mode: str) -> None:
    async with mcp_client(gateway, mode) as client:
        await client.call_tool("ping")
        platform_id = gateway.account.platform_id
        key = await key_of(gateway.ledger, platform_id, gateway.key.key_id)
        await revoke_key(gateway.ledger, gateway.counters, platform_id, key)
        with pytest.raises(MCPError) as refused:
            await client.call_tool("ping")
        # The next one does not come as far as to a route, and so to its style.
        with pytest.raises(MCPError) as again:
            await client.call_tool("ping")
    for error in (refused.value.error, again.value.error):
        assert error.code == 401
        assert error.message.startswith("Send a valid API key")


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_a_key_that_nobody_knows_is_told_when_the_client_connects(
    gateway: Gateway, mode: str
) -> None:
    stranger = {"Authorization": f"Bearer {gateway.key.text[:-1]}"}
    async with httpx2.AsyncClient(headers=stranger) as http:
        transport = streamable_http_client(f"{gateway.url}/mcp", http_client=http)
        with pytest.raises((MCPError, ExceptionGroup)) as failed:
            async with Client(transport, mode=mode):
                pass
    assert "Send a valid API key" in "".join(traceback.format_exception(failed.value))


async def test_a_path_that_nobody_serves_is_told_when_the_client_connects(
    gateway: Gateway,
) -> None:
    headers = {**BOTH, **gateway.authorization}
    reply = await gateway.call("/mpc", data=b'{"id": 1}', headers=headers)
    assert (reply.status, reply.headers["Content-Type"]) == (404, "application/json")
    error = json.loads(reply.body)["error"]
    assert (error["code"], error["message"]) == (404, errors.NO_ROUTE.detail)


@ERAS
async def test_an_agent_that_is_gone_is_a_failed_tool_that_costs_nothing(
    clean_redis_url: str, postgres_url: str, mode: str
) -> None:
    async with AsyncExitStack() as running:
        agent = await running.enter_async_context(mcp_agent())
        async with (
            mcp_gateway(clean_redis_url, postgres_url, agent) as gateway,
            mcp_client(gateway, mode) as client,
        ):
            await draw(client)
            await running.aclose()
            text, facts = said(await draw(client))
            await charged(gateway, "7")
    assert text == "The agent could not be reached."
    assert (facts["status"], facts["code"]) == (502, "upstream_error")


@ERAS
async def test_a_tool_that_is_too_slow_to_begin_is_told_so(
    clean_redis_url: str, postgres_url: str, mode: str
) -> None:
    async with (
        mcp_agent(json_response=True) as agent,
        mcp_gateway(
            clean_redis_url, postgres_url, agent, timeouts=Timeouts(first_byte_ms=300)
        ) as gateway,
        mcp_client(gateway, mode) as client,
    ):
        text, facts = said(await client.call_tool("wait"))
        await charged(gateway, "0")
        agent.go_on.set()
    assert text == "The agent did not answer in time."
    assert facts["status"] == 504


@ERAS
async def test_without_redis_a_tool_fails_and_may_be_tried_again(
    postgres_url: str, mode: str
) -> None:
    async with (
        OwnRedis() as own,
        mcp_agent() as agent,
        mcp_gateway(own.url, postgres_url, agent, microcredits=8 * CREDIT) as gateway,
        mcp_client(gateway, mode) as client,
    ):
        await client.call_tool("ping")
        own.kill()
        text, facts = said(await draw(client))
        assert "at the moment" in text
        assert (facts["status"], facts["retry_after_s"]) == (503, 1)
        assert agent.began == ["ping"]
        await own.start()
