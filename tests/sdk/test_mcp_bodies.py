"""JSON-RPC bodies that no SDK sends: batches, and what could get work for nothing."""

from __future__ import annotations

import gzip
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route as WebRoute

from gateway.proxy.forward import REQUEST_READ_MAX_BYTES
from policies.catalog import ErrorStyle, Price
from tests.support.gateway import CREDIT, open_route, running_gateway
from tests.support.mcp_shop import (
    PRICES,
    McpAgent,
    charged,
    mcp_gateway,
    serving,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request

    from tests.support.gateway import Gateway, Reply

JSON = {"Content-Type": "application/json"}


def call(rpc_id: object, tool: str = "search") -> dict[str, Any]:
    params = {"name": tool, "arguments": {}}
    return {"jsonrpc": "2.0", "id": rpc_id, "method": "tools/call", "params": params}


@asynccontextmanager
async def batching_agent() -> AsyncIterator[McpAgent]:
    """An agent that answers batches, and reads whatever Python's decoder does."""
    agent = McpAgent()

    def answer(message: dict[str, Any]) -> dict[str, Any] | None:
        params = message.get("params")
        name = params.get("name", "") if isinstance(params, dict) else ""
        agent.began.append(f"{message.get('method')} {name}".strip())
        if "id" not in message or "method" not in message:
            return None
        said = {"jsonrpc": "2.0", "id": message["id"]}
        if name == "fail":
            return {**said, "error": {"code": -32000, "message": "no"}}
        return {**said, "result": {"content": [], "isError": name == "draw"}}

    async def endpoint(request: Request) -> Response:
        body = await request.body()
        if not body:
            return Response(status_code=405)
        document = json.loads(body)
        if isinstance(document, dict):
            one = answer(document)
            return JSONResponse(one) if one else Response(status_code=202)
        answers = [one for each in document if (one := answer(each))]
        if "text/event-stream" not in request.headers.get("accept", ""):
            return JSONResponse(answers)
        events = [f"data: {json.dumps(one)}\n\n" for one in reversed(answers)]
        return StreamingResponse(iter(events), media_type="text/event-stream")

    routes = [WebRoute("/mcp", endpoint, methods=["GET", "POST", "DELETE"])]
    async with serving(Starlette(routes=routes)) as url:
        agent.url = url
        yield agent


@pytest_asyncio.fixture
async def agent() -> AsyncIterator[McpAgent]:
    async with batching_agent() as running:
        yield running


@pytest_asyncio.fixture
async def gateway(
    agent: McpAgent, clean_redis_url: str, postgres_url: str
) -> AsyncIterator[Gateway]:
    async with mcp_gateway(clean_redis_url, postgres_url, agent) as made:
        yield made


async def post(gateway: Gateway, document: object, headers: dict[str, str] | None = None) -> Reply:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return await gateway.call("/mcp", data=body, headers={**JSON, **(headers or {})})


async def nothing_ran(gateway: Gateway, agent: McpAgent) -> None:
    assert agent.began == []
    assert await gateway.ledger.settlements(gateway.account.account_id, limit=1) == []


@pytest.mark.parametrize("accept", ["application/json", "text/event-stream"])
async def test_a_batch_costs_the_sum_of_what_did_not_fail(gateway: Gateway, accept: str) -> None:
    batch = [
        call(1),
        call("two", "other"),
        {"jsonrpc": "2.0", "id": 3, "method": "tools/list"},
        call(4, "fail"),
        call(5, "draw"),
        {"jsonrpc": "2.0", "method": "notifications/progress", "params": {}},
        {"jsonrpc": "2.0", "id": 9, "method": "resources/read", "params": {"uri": "x://y"}},
    ]
    reply = await post(gateway, batch, {"Accept": accept})
    assert reply.status == 200
    await charged(gateway, "5.5")
    [row] = await gateway.settlements(1)
    assert (row.held_microcredits, row.ending, row.flags) == (155 * CREDIT // 10, "completed", "")


async def test_a_batch_without_credits_is_answered_as_a_batch(
    agent: McpAgent, clean_redis_url: str, postgres_url: str
) -> None:
    async with mcp_gateway(
        clean_redis_url, postgres_url, agent, microcredits=3 * CREDIT
    ) as gateway:
        batch = [call(1), call("two"), {"id": 3, "method": "tools/list"}, {"method": "x"}]
        reply = await post(gateway, batch)
        await charged(gateway, "0", of=3 * CREDIT)
    answers = json.loads(reply.body)
    assert reply.status == 200
    assert [one["id"] for one in answers] == [1, "two", 3]
    assert [one["result"]["isError"] for one in answers[:2]] == [True, True]
    assert answers[2]["error"]["data"]["needed"] == "4"
    assert agent.began == []


async def test_a_call_that_wants_no_answer_costs_its_price(
    gateway: Gateway, agent: McpAgent
) -> None:
    message = call(1)
    del message["id"]
    assert (await post(gateway, message)).status == 202
    assert agent.began == ["tools/call search"]
    await charged(gateway, "2")
    [row] = await gateway.settlements(1)
    assert row.flags == "units_missing"


async def test_notifications_and_answers_to_the_agent_pass_and_are_free(
    gateway: Gateway, agent: McpAgent
) -> None:
    cancelled = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}}
    assert (await post(gateway, cancelled)).status == 202
    assert (await post(gateway, {"jsonrpc": "2.0", "id": 1, "result": {}})).status == 202
    assert len(agent.began) == 2
    await charged(gateway, "0")
    assert len(await gateway.settlements(2)) == 2


TWICE = b'{"jsonrpc":"2.0","id":1,"method":"tools/list","method":"tools/call","params":{}}'
NAMED_TWICE = b'{"id":1,"method":"tools/call","params":{"name":"search","name":"draw"}}'


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        pytest.param(TWICE, {}, id="a method twice"),
        pytest.param(NAMED_TWICE, {}, id="a name twice"),
        pytest.param(b'{"id":1,"method":"ping","Method":"tools/call"}', {}, id="by case"),
        pytest.param([call(1), call(1, "draw")], {}, id="one id for two"),
        pytest.param([], {}, id="nothing"),
        pytest.param(b"tools/call", {}, id="no JSON"),
        pytest.param(b'"tools/call"', {}, id="no message"),
        pytest.param(b'{"id": NaN, "method": "tools/call"}', {}, id="JSON to some"),
        pytest.param(b"\xef\xbb\xbf\xef\xbb\xbf" + TWICE, {}, id="marked twice"),
        pytest.param(json.dumps(call(1)).encode("utf-16"), {}, id="UTF-16"),
        pytest.param(gzip.compress(b"{}"), {}, id="compressed in secret"),
        pytest.param(b"{}", {"Content-Encoding": "gzip"}, id="compressed"),
        pytest.param(b"{}", {"Content-Type": "application/json; charset=utf-7"}, id="UTF-7"),
        pytest.param(b"{}", {"Content-Type": 'application/json;Charset="UTF-16"'}, id="charset"),
    ],
)
async def test_a_body_with_two_readings_reaches_nobody(
    gateway: Gateway, agent: McpAgent, body: object, headers: dict[str, str]
) -> None:
    reply = await post(gateway, body, headers)
    assert reply.status == (415 if headers else 400)
    assert json.loads(reply.body).get("id") is None
    # Nor does it with another method: agents may read bodies of any.
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = "".join(f"{name}: {value}\r\n" for name, value in {**JSON, **headers}.items())
    head = gateway.head("GET /mcp HTTP/1.1", f"Content-Length: {len(data)}").removesuffix(b"\r\n")
    reader, writer = await gateway.connect()
    writer.write(head + lines.encode() + b"\r\n" + data)
    assert b" 4" in await reader.readline()
    writer.close()
    await nothing_ran(gateway, agent)


async def test_a_call_in_the_body_of_a_get_costs_its_price(
    gateway: Gateway, agent: McpAgent
) -> None:
    body = json.dumps(call(1, "other")).encode()
    head = gateway.head("GET /mcp HTTP/1.1", f"Content-Length: {len(body)}", "Connection: close")
    reader, writer = await gateway.connect()
    writer.write(head + body)
    assert b" 200 " in await reader.read()
    writer.close()
    assert agent.began == ["tools/call other"]
    await charged(gateway, "3")


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_too_long_to_be_read_reaches_nobody(
    gateway: Gateway, agent: McpAgent, chunked: bool
) -> None:
    body = json.dumps({**call(1), "padding": "x" * REQUEST_READ_MAX_BYTES}).encode()

    async def parts() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 2**20):
            yield body[start : start + 2**20]

    reply = await gateway.call("/mcp", data=parts() if chunked else body, headers=JSON)
    assert reply.status == 413
    assert json.loads(reply.body)["code"] == "request_too_large"
    await nothing_ran(gateway, agent)


async def test_a_long_body_that_can_be_read_is_priced_and_passes_unchanged(
    gateway: Gateway, agent: McpAgent
) -> None:
    message = call(1, "other")
    message["params"]["arguments"] = {"name": "x" * 1_000_000}
    assert (await post(gateway, message)).status == 200
    assert agent.began == ["tools/call other"]
    await charged(gateway, "3")


async def test_json_rpc_on_a_plain_route_is_priced_by_the_same_rules(
    agent: McpAgent, clean_redis_url: str, postgres_url: str
) -> None:
    price = Price(per_request_microcredits=CREDIT, rpc=PRICES)
    route = open_route(agent.url, pattern="/mcp", price=price, errors=ErrorStyle.JSONRPC)
    async with running_gateway(clean_redis_url, postgres_url, [route]) as gateway:
        await post(gateway, {"id": 1, "method": "tools/list"})
        await charged(gateway, "1")
        await post(gateway, call(1))
        await charged(gateway, "4")
        assert (await post(gateway, TWICE)).status == 400
        await charged(gateway, "4")


async def test_a_free_route_passes_whatever_comes(
    agent: McpAgent, clean_redis_url: str, postgres_url: str
) -> None:
    async with mcp_gateway(clean_redis_url, postgres_url, agent, price=None) as gateway:
        assert (await post(gateway, TWICE)).status == 200
        await charged(gateway, "0")
