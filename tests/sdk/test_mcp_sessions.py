"""Sessions of MCP: headers, the long stream, leaving in mid-call, resuming, and the end."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from mcp.server.streamable_http import EventMessage, EventStore

from gateway.proxy import listening
from policies.catalog import DEFAULT_RULES, Ending, Rule, Timeouts
from tests.support.gateway import CREDIT
from tests.support.mcp_shop import MODERN, charged, mcp_agent, mcp_client, mcp_gateway, paid
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from mcp.client.session import IncomingMessage

    from tests.support.gateway import Gateway, Reply

BOTH = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}
DEADLINE_S = 30
SHORT_MS = 400
SHORT = Timeouts(first_byte_ms=SHORT_MS, idle_ms=SHORT_MS, total_ms=SHORT_MS)


def message(method: str, rpc_id: int | None = None, **params: Any) -> bytes:
    said = {"jsonrpc": "2.0", "method": method, "params": params}
    return json.dumps(said if rpc_id is None else {**said, "id": rpc_id}).encode()


async def open_session(gateway: Gateway) -> dict[str, str]:
    """Shake hands; the headers of all that comes after."""
    info = {"name": "raw", "version": "1"}
    hello = message("initialize", 1, protocolVersion="2025-11-25", capabilities={}, clientInfo=info)
    reply = await gateway.call("/mcp", data=hello, headers=BOTH)
    assert reply.status == 200
    headers = {
        **BOTH,
        "Mcp-Session-Id": reply.headers["Mcp-Session-Id"],
        "MCP-Protocol-Version": "2025-11-25",
    }
    reply = await send(gateway, headers, message("notifications/initialized"))
    assert (reply.status, reply.body) == (202, b"")
    return headers


async def send(gateway: Gateway, headers: dict[str, str], data: bytes) -> Reply:
    return await gateway.call("/mcp", data=data, headers=headers)


async def listen(
    gateway: Gateway, headers: dict[str, str]
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, bytes]:
    """The stream of a session, and the head of its answer."""
    lines = [f"{name}: {value}" for name, value in headers.items() if name != "Accept"]
    reader, writer = await gateway.connect()
    writer.write(gateway.head("GET /mcp HTTP/1.1", "Accept: text/event-stream", *lines))
    return reader, writer, await reader.readuntil(b"\r\n\r\n")


async def running(gateway: Gateway) -> int:
    """Calls that count against the account's concurrency."""
    keys = gateway.counters.keys(gateway.account.account_id)
    return int((await gateway.counters.inspect(keys)).fields["running"])


async def test_a_session_lasts_from_its_first_answer_to_its_delete(
    clean_redis_url: str, postgres_url: str
) -> None:
    async with (
        asyncio.timeout(DEADLINE_S),
        mcp_agent() as agent,
        mcp_gateway(clean_redis_url, postgres_url, agent) as gateway,
    ):
        headers = await open_session(gateway)
        assert (await send(gateway, headers, message("tools/list", 2))).status == 200
        wrong = {**headers, "MCP-Protocol-Version": "1999-01-01"}
        assert (await send(gateway, wrong, message("tools/list", 3))).status == 400
        assert (await gateway.call("/mcp", method="DELETE", headers=headers)).status == 200
        reply = await send(gateway, headers, message("tools/call", 4, name="search"))
        assert reply.status == 404
        assert agent.began == []
        await charged(gateway, "0")


async def test_the_long_stream_takes_no_place_among_running_calls(
    clean_redis_url: str, postgres_url: str
) -> None:
    async with (
        asyncio.timeout(DEADLINE_S),
        mcp_agent() as agent,
        mcp_gateway(clean_redis_url, postgres_url, agent) as gateway,
    ):
        headers = await open_session(gateway)
        await gateway.amend(conc=1)
        _reader, writer, head = await listen(gateway, headers)
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert headers["Mcp-Session-Id"].encode() in head
        assert (await running(gateway), await gateway.holds()) == (0, [])
        async with mcp_client(gateway) as client:
            assert not (await client.call_tool("search", {"words": "x"})).is_error
        writer.close()
        await charged(gateway, "2")
        assert await running(gateway) == 0


async def test_what_a_server_says_by_itself_passes_however_long_it_was_silent(
    clean_redis_url: str, postgres_url: str
) -> None:
    heard = asyncio.Event()

    async def hear(said: IncomingMessage) -> None:
        if type(said).__name__ == "ToolListChangedNotification":
            heard.set()

    async with (
        asyncio.timeout(DEADLINE_S),
        mcp_agent() as agent,
        mcp_gateway(clean_redis_url, postgres_url, agent, timeouts=SHORT) as gateway,
        mcp_client(gateway, message_handler=hear) as client,
    ):
        await client.list_tools()
        await asyncio.sleep(3 * SHORT_MS / 1000)
        await client.call_tool("restock")
        await heard.wait()
        await charged(gateway, "3")


async def test_subscriptions_are_such_a_stream_too(clean_redis_url: str, postgres_url: str) -> None:
    async with (
        asyncio.timeout(DEADLINE_S),
        mcp_agent() as agent,
        mcp_gateway(clean_redis_url, postgres_url, agent, timeouts=SHORT) as gateway,
        mcp_client(gateway, MODERN) as client,
    ):
        await client.list_tools()
        await gateway.amend(conc=1)
        async with client.listen(tools_list_changed=True) as subscription:
            assert (await running(gateway), await gateway.holds()) == (0, [])
            await asyncio.sleep(3 * SHORT_MS / 1000)
            assert not (await client.call_tool("restock")).is_error
            async for _ in subscription:
                break
        await charged(gateway, "3")


async def test_an_account_listens_to_so_many_streams_and_no_more(
    clean_redis_url: str, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "LISTENERS_PER_ACCOUNT_MAX", 1)
    async with (
        asyncio.timeout(DEADLINE_S),
        mcp_agent() as agent,
        mcp_gateway(clean_redis_url, postgres_url, agent) as gateway,
    ):
        first, second = await open_session(gateway), await open_session(gateway)
        _, writer, head = await listen(gateway, first)
        assert head.startswith(b"HTTP/1.1 200 ")
        reply = await gateway.call("/mcp", method="GET", headers=second)
        assert (reply.status, json.loads(reply.body)["code"]) == (429, "concurrency_limited")
        assert "Retry-After" in reply.headers
        writer.close()

        async def again() -> bool:
            _, writer, head = await listen(gateway, second)
            writer.close()
            return head.startswith(b"HTTP/1.1 200 ")

        await eventually(again)
        await charged(gateway, "0")


async def test_a_worker_that_stops_ends_such_a_stream_at_once_and_in_order(
    clean_redis_url: str, postgres_url: str
) -> None:
    async with (
        asyncio.timeout(DEADLINE_S),
        mcp_agent() as agent,
        mcp_gateway(clean_redis_url, postgres_url, agent) as gateway,
    ):
        headers = await open_session(gateway)
        reader, writer, _ = await listen(gateway, headers)
        await asyncio.wait_for(gateway.worker.finish_calls(), 5)
        assert (await reader.read()).endswith(b"0\r\n\r\n")
        writer.close()


async def test_a_cancelled_tool_in_a_session_costs_what_a_failed_one_does(
    clean_redis_url: str, postgres_url: str
) -> None:
    """Its client tells the agent, and the agent answers with an error."""
    async with (
        asyncio.timeout(DEADLINE_S),
        mcp_agent() as agent,
        mcp_gateway(clean_redis_url, postgres_url, agent) as gateway,
        mcp_client(gateway) as client,
    ):
        await cancelled(client)
        await eventually(lambda: agent.ended == ["wait: CancelledError"])

        async def held() -> bool:
            rows = await gateway.ledger.settlements(gateway.account.account_id, limit=100)
            return any(row.held_microcredits == 3 * CREDIT for row in rows)

        await eventually(held)
        await charged(gateway, "0")


@pytest.mark.parametrize(("rule", "amount"), [(Rule.ACTUAL, "3"), (Rule.NOTHING, "0")])
async def test_a_cancelled_tool_without_a_session_costs_as_its_ending_says(
    clean_redis_url: str, postgres_url: str, rule: Rule, amount: str
) -> None:
    """Its client closes the stream, which is how that protocol cancels."""
    rules = {**DEFAULT_RULES, Ending.CLIENT_DISCONNECT: rule}
    async with (
        asyncio.timeout(DEADLINE_S),
        mcp_agent() as agent,
        mcp_gateway(clean_redis_url, postgres_url, agent, rules=rules) as gateway,
        mcp_client(gateway, MODERN) as client,
    ):
        await cancelled(client)
        await eventually(lambda: agent.ended == ["wait: CancelledError"])
        await charged(gateway, amount)
        [row] = await gateway.settlements(1)
        assert row.ending == "client_disconnect"


async def cancelled(client: Any) -> None:
    """Call a tool that does not end, and give up when it has begun."""
    with anyio.CancelScope() as scope:

        async def give_up(*_: object) -> None:
            scope.cancel()

        await client.call_tool("wait", progress_callback=give_up)
    assert scope.cancelled_caught


async def test_a_client_that_vanishes_in_mid_call_pays_for_it_once(
    clean_redis_url: str, postgres_url: str
) -> None:
    async with (
        asyncio.timeout(DEADLINE_S),
        mcp_agent() as agent,
        mcp_gateway(clean_redis_url, postgres_url, agent) as gateway,
    ):
        headers = await open_session(gateway)
        call = message("tools/call", 2, name="wait", arguments={}, _meta={"progressToken": 1})
        lines = [f"{name}: {value}" for name, value in headers.items()]
        reader, writer = await gateway.connect()
        length = f"Content-Length: {len(call)}"
        writer.write(gateway.head("POST /mcp HTTP/1.1", *lines, length) + call)
        await reader.readuntil(b"notifications/progress")
        writer.close()
        await charged(gateway, "3")
        agent.go_on.set()
        assert await paid(gateway) == [(3 * CREDIT, "client_disconnect")]


async def test_a_tool_that_is_answered_on_a_resumed_stream_is_paid_once(
    clean_redis_url: str, postgres_url: str
) -> None:
    store = _Store()
    async with (
        asyncio.timeout(DEADLINE_S),
        mcp_agent(event_store=store, retry_interval=50) as agent,
        mcp_gateway(clean_redis_url, postgres_url, agent) as gateway,
        mcp_client(gateway) as client,
    ):
        done = await client.call_tool("poll")
        assert done.content[0].text == "resumed"
        await charged(gateway, "3")
        assert await paid(gateway) == [(3 * CREDIT, "completed")]
        rows = await gateway.ledger.settlements(gateway.account.account_id, limit=100)
        assert [row.flags for row in rows if row.charged_microcredits] == ["units_missing"]


class _Store(EventStore):
    """Keeps every event, in order."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Any]] = []

    async def store_event(self, stream_id: str, message: Any) -> str:
        self.events.append((stream_id, message))
        return str(len(self.events))

    async def replay_events_after(self, last_event_id: str, send_callback: Any) -> str | None:
        place = int(last_event_id)
        stream_id = self.events[place - 1][0]
        for number, (stream, said) in enumerate(self.events[place:], place + 1):
            if stream == stream_id and said is not None:
                await send_callback(EventMessage(said, str(number)))
        return stream_id
