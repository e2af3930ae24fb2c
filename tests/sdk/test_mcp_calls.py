"""Tools of an MCP server behind the gateway: what each call costs, in every way of answering."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from mcp.shared.exceptions import MCPError
from mcp_types import ElicitResult

from policies.catalog import Price, Rule
from tests.support.gateway import CREDIT
from tests.support.mcp_shop import MODERN, PRICES, charged, mcp_agent, mcp_client, mcp_gateway, paid

WAYS = pytest.mark.parametrize(
    ("mode", "options"),
    [
        pytest.param("legacy", {}, id="session-sse"),
        pytest.param("legacy", {"json_response": True}, id="session-json"),
        pytest.param("legacy", {"stateless_http": True}, id="stateless-sse"),
        pytest.param(
            "legacy", {"stateless_http": True, "json_response": True}, id="stateless-json"
        ),
        pytest.param(MODERN, {}, id="modern-sse"),
        pytest.param(MODERN, {"json_response": True}, id="modern-json"),
        pytest.param("auto", {}, id="auto"),
    ],
)
ERAS = pytest.mark.parametrize("mode", ["legacy", MODERN])


@WAYS
async def test_tools_cost_their_price_and_all_else_is_free(
    clean_redis_url: str, postgres_url: str, mode: str, options: dict[str, Any]
) -> None:
    async with (
        mcp_agent(**options) as agent,
        mcp_gateway(clean_redis_url, postgres_url, agent) as gateway,
        mcp_client(gateway, mode) as client,
    ):
        assert len((await client.list_tools()).tools) > 4
        await charged(gateway, "0")
        found = await client.call_tool("search", {"words": "a hat"})
        assert found.content[0].text == "found a hat"
        await charged(gateway, "2")
        await client.call_tool("draw", {"words": "a hat"})
        await charged(gateway, "9")
        await client.call_tool("unlisted")
        await charged(gateway, "12")
        await client.call_tool("ping")
        await charged(gateway, "12")
        assert (await client.call_tool("fail")).is_error
        await charged(gateway, "12")
        assert (await client.read_resource("text://price-list")).contents[0].text == "cheap"
        await charged(gateway, "12.5")
        rows = await gateway.ledger.settlements(gateway.account.account_id, limit=100)
    assert {(row.ending, row.flags) for row in rows} == {("completed", "")}


@ERAS
async def test_a_tool_that_is_not_there_costs_nothing(
    clean_redis_url: str, postgres_url: str, mode: str
) -> None:
    async with (
        mcp_agent() as agent,
        mcp_gateway(clean_redis_url, postgres_url, agent) as gateway,
        mcp_client(gateway, mode) as client,
    ):
        try:
            refused = (await client.call_tool("paint")).is_error
        except MCPError:
            refused = True
        assert refused
        with pytest.raises(MCPError):
            await client.read_resource("text://nothing")
        await charged(gateway, "0")
        assert len(await gateway.settlements(2)) >= 2


@ERAS
async def test_a_failed_tool_costs_its_price_where_the_owner_says_so(
    clean_redis_url: str, postgres_url: str, mode: str
) -> None:
    price = Price(rpc=replace(PRICES, tool_error=Rule.ACTUAL))
    async with (
        mcp_agent() as agent,
        mcp_gateway(clean_redis_url, postgres_url, agent, price=price) as gateway,
        mcp_client(gateway, mode) as client,
    ):
        assert (await client.call_tool("fail")).is_error
        await charged(gateway, "3")


@ERAS
async def test_progress_passes_and_the_call_costs_its_price(
    clean_redis_url: str, postgres_url: str, mode: str
) -> None:
    seen: list[float] = []

    async def note(progress: float, _total: float | None, _message: str | None) -> None:
        seen.append(progress)

    async with (
        mcp_agent() as agent,
        mcp_gateway(clean_redis_url, postgres_url, agent) as gateway,
        mcp_client(gateway, mode) as client,
    ):
        done = await client.call_tool("steps", {"count": 20}, progress_callback=note)
        assert done.content[0].text == "20 steps"
        await charged(gateway, "3")
    assert seen == list(range(1, 21))


@ERAS
async def test_a_tool_that_asks_its_user_is_paid_once(
    clean_redis_url: str, postgres_url: str, mode: str
) -> None:
    """With a session in one call, whose client is asked meanwhile; without one in two."""

    async def answer(_context: object, _params: object) -> ElicitResult:
        return ElicitResult(action="accept", content={"width": 3})

    async with (
        mcp_agent() as agent,
        mcp_gateway(clean_redis_url, postgres_url, agent) as gateway,
        mcp_client(gateway, mode, elicitation_callback=answer) as client,
    ):
        done = await client.call_tool("frame")
        assert done.content[0].text == "3 wide"
        await charged(gateway, "3")
        assert await paid(gateway) == [(3 * CREDIT, "completed")]


@ERAS
async def test_calls_side_by_side_each_cost_their_price(
    clean_redis_url: str, postgres_url: str, mode: str
) -> None:
    async with (
        mcp_agent() as agent,
        mcp_gateway(clean_redis_url, postgres_url, agent) as gateway,
        mcp_client(gateway, mode) as client,
    ):
        calls = [client.call_tool("search", {"words": str(number)}) for number in range(10)]
        calls += [client.call_tool("fail") for _ in range(5)]
        await asyncio.gather(*calls)
        await charged(gateway, "20")
        assert await paid(gateway) == [(2 * CREDIT, "completed")] * 10


async def test_a_price_per_request_is_for_requests_with_a_call(
    clean_redis_url: str, postgres_url: str
) -> None:
    price = Price(per_request_microcredits=CREDIT)
    async with (
        mcp_agent() as agent,
        mcp_gateway(clean_redis_url, postgres_url, agent, price=price) as gateway,
        mcp_client(gateway) as client,
    ):
        await client.list_tools()
        await charged(gateway, "0")
        await client.call_tool("ping")
        await charged(gateway, "1")


async def test_a_quote_tells_what_a_tool_costs(clean_redis_url: str, postgres_url: str) -> None:
    call = b'{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "%b"}}'
    async with (
        mcp_agent() as agent,
        mcp_gateway(clean_redis_url, postgres_url, agent) as gateway,
    ):
        for tool, ceiling in ((b"draw", b'"7"'), (b"search", b'"2"'), (b"other", b'"3"')):
            asked = b'{"path": "/mcp", "body": %b}' % (call % tool)
            quote = await gateway.call("/-/quote", data=asked)
            assert b'"ceiling":%b' % ceiling in quote.body
        assert not agent.began
        await charged(gateway, "0")
