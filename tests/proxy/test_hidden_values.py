"""A caller can't hide from the gateway what he asks the agent for, to get it at another price."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING

import orjson
import pytest

from policies.catalog import Price, Protocol, Source, Table
from tests.proxy.test_sold_at_terms import usage_agent
from tests.support.gateway import CREDIT, chat_route, running_gateway
from tests.support.nasty_upstream import nasty_upstream

if TYPE_CHECKING:
    from policies.catalog import Route
    from tests.support.gateway import Gateway

LARGE = b'{"model": "large"}'
BY_MODEL = Price(
    0,
    CREDIT,
    table=Table(
        Source("request.json", "/model"),
        {"large": Price(0, 50 * CREDIT)},
        listed_only=False,
    ),
)


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b'{"model": "large", "model": "large"}', {}),
        (b'{"model": "large", "x": NaN}', {}),
        (gzip.compress(LARGE), {"Content-Encoding": "gzip"}),
        (LARGE, {"Content-Type": "application/json; charset=utf-7"}),
        (LARGE.ljust(8 * 1024 * 1024 + 1), {}),
    ],
    ids=["twice", "lenient JSON", "compressed", "charset", "too long"],
)
async def test_a_request_that_hides_its_model_is_refused(
    clean_redis_url: str, postgres_url: str, body: bytes, headers: dict[str, str]
) -> None:
    async with nasty_upstream(usage_agent) as agent:
        route = chat_route(agent.url, price=BY_MODEL, body_max_bytes=20 * 1024 * 1024)
        async with running_gateway(clean_redis_url, postgres_url, [route]) as gateway:
            reply = await gateway.call(data=body, headers=headers)
            assert (reply.status, orjson.loads(reply.body)["code"]) == (400, "bad_request")
            assert agent.requests == []


def tool(name: str, rpc_id: int) -> dict[str, object]:
    params = {"name": name, "arguments": {}}
    return {"jsonrpc": "2.0", "id": rpc_id, "method": "tools/call", "params": params}


BY_TOOL = Price(
    0,
    CREDIT,
    table=Table(Source("jsonrpc.tool", ""), {"draw": Price(0, 5 * CREDIT)}, listed_only=False),
)


@pytest.mark.parametrize(
    "batch",
    [
        [tool("draw", 1), tool("draw", 2)],
        [tool("draw", 1), {"jsonrpc": "2.0", "id": 2, "method": "ping"}],
        [tool("draw", 1), {"jsonrpc": "2.0", "id": 2, "result": {}}],
    ],
)
@pytest.mark.parametrize("protocol", [Protocol.HTTP, Protocol.MCP])
async def test_a_batch_is_not_sold_at_the_price_of_one_call(
    clean_redis_url: str, postgres_url: str, batch: list[object], protocol: Protocol
) -> None:
    async def ask(gateway: Gateway, document: object) -> tuple[int, str | None]:
        reply = await gateway.call(data=json.dumps(document).encode())
        return reply.status, reply.headers.get("X-Credits-Charged")

    async with nasty_upstream(usage_agent) as agent:
        routes: list[Route] = [chat_route(agent.url, protocol=protocol, price=BY_TOOL)]
        async with running_gateway(clean_redis_url, postgres_url, routes) as gateway:
            assert (await ask(gateway, batch))[0] == 400
            assert agent.requests == []
            assert await ask(gateway, batch[:1]) == (200, "5")


@pytest.mark.parametrize(
    "headers",
    [{"Content-Encoding": "gzip"}, {"Content-Type": "application/json; charset=utf-7"}],
)
async def test_a_request_of_a_task_is_not_free_if_its_agent_may_read_another(
    clean_redis_url: str, postgres_url: str, headers: dict[str, str]
) -> None:
    body = b'{"jsonrpc": "2.0", "id": 1, "method": "tasks/get", "params": {"id": "T"}}'
    async with nasty_upstream(usage_agent) as agent:
        routes = [chat_route(agent.url, protocol=Protocol.A2A, price=Price(0, CREDIT))]
        async with running_gateway(clean_redis_url, postgres_url, routes) as gateway:
            assert (await gateway.call(data=body, headers=headers)).status == 415
            assert agent.requests == []
            assert (await gateway.call(data=body)).headers["X-Credits-Charged"] == "0"
