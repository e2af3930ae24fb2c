"""The Model Context Protocol's SDK, unchanged, on both sides of an in-process gateway."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import httpx2
import uvicorn
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.resolve import Elicit, Resolve
from pydantic import BaseModel

from policies.catalog import ErrorStyle, Price, Protocol, Route, RpcPrices
from policies.units import parse_credits
from tests.support.gateway import CREDIT, running_gateway
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tests.support.gateway import Gateway

MODERN = "2026-07-28"
UPGRADE_URL = "https://shop.example/credits"
PRICES = RpcPrices(
    tools={"search": 2 * CREDIT, "draw": 7 * CREDIT, "ping": 0},
    default_tool=3 * CREDIT,
    methods={"resources/read": CREDIT // 2},
)
PRICE = Price(rpc=PRICES)


class Size(BaseModel):
    """What a picture's buyer is asked."""

    width: int


def ask_size() -> Elicit[Size]:
    return Elicit("How wide?", Size)


@dataclass
class McpAgent:
    """A server with tools; it notes what runs and how it ends."""

    url: str = ""
    began: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)

    @contextmanager
    def noted(self, name: str) -> Iterator[None]:
        """Note that a tool runs."""
        self.began.append(name)
        try:
            yield
        except BaseException as error:
            self.ended.append(f"{name}: {type(error).__name__}")
            raise
        self.ended.append(name)


def _server(agent: McpAgent) -> MCPServer:
    server = MCPServer("shop")
    noted = agent.noted

    @server.tool()
    def search(words: str) -> str:
        with noted("search"):
            return f"found {words}"

    @server.tool()
    def draw(words: str) -> str:
        with noted("draw"):
            return f"drew {words}"

    @server.tool()
    def ping() -> str:
        with noted("ping"):
            return "pong"

    @server.tool()
    def unlisted() -> str:
        with noted("unlisted"):
            return "done"

    @server.tool()
    def fail() -> str:
        with noted("fail"):
            raise ValueError("the printer is on fire")

    @server.resource("text://price-list")
    def price_list() -> str:
        with noted("price-list"):
            return "cheap"

    _add_patient_tools(server, agent)
    return server


def _add_patient_tools(server: MCPServer, agent: McpAgent) -> None:
    noted = agent.noted

    @server.tool()
    async def steps(count: int, ctx: Context) -> str:
        with noted("steps"):
            for step in range(count):
                await ctx.report_progress(step + 1, count)
            return f"{count} steps"

    @server.tool()
    async def wait(ctx: Context) -> str:
        with noted("wait"):
            await ctx.report_progress(0, 1)
            await agent.go_on.wait()
            return "waited"

    @server.tool()
    async def frame(size: Annotated[Size, Resolve(ask_size)]) -> str:
        with noted("frame"):
            return f"{size.width} wide"

    @server.tool()
    async def restock(ctx: Context) -> str:
        with noted("restock"):
            await ctx.session.send_tool_list_changed()  # on the session's own stream
            await ctx.notify_tools_changed()  # to who has subscribed
            return "restocked"

    @server.tool()
    async def poll(ctx: Context) -> str:
        with noted("poll"):
            await ctx.close_sse_stream()
            return "resumed"


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # they are the test run's


@asynccontextmanager
async def serving(app: Any) -> AsyncIterator[str]:
    """An ASGI application on a free port of the loopback; its URL."""
    config = uvicorn.Config(
        app, host="127.0.0.1", port=0, log_level="warning", timeout_graceful_shutdown=1
    )
    server = _Server(config)
    task = asyncio.create_task(server.serve())

    async def started() -> bool:
        assert not task.done()
        return server.started

    await eventually(started)
    try:
        host, port = server.servers[0].sockets[0].getsockname()[:2]
        yield f"http://{host}:{port}"
    finally:
        server.should_exit = True
        await task


@asynccontextmanager
async def mcp_agent(**options: Any) -> AsyncIterator[McpAgent]:
    """The server under uvicorn; options of `streamable_http_app`."""
    agent = McpAgent()
    async with serving(_server(agent).streamable_http_app(**options)) as url:
        agent.url = url
        yield agent


def mcp_route(agent: McpAgent, **changes: Any) -> Route:
    """Everything at /mcp."""
    fields = {
        "name": "shop",
        "methods": ("GET", "POST", "DELETE"),
        "pattern": "/mcp",
        "upstream": agent.url,
        "price": PRICE,
        "protocol": Protocol.MCP,
        "errors": ErrorStyle.JSONRPC,
        **changes,
    }
    return Route(**fields)


@asynccontextmanager
async def mcp_gateway(
    redis_url: str,
    postgres_url: str,
    agent: McpAgent,
    *,
    microcredits: int = 100 * CREDIT,
    **changes: Any,
) -> AsyncIterator[Gateway]:
    """A gateway in front of an agent, `changes` being those of its route."""
    route = mcp_route(agent, **changes)
    async with running_gateway(
        redis_url, postgres_url, [route], microcredits=microcredits, upgrade_url=UPGRADE_URL
    ) as gateway:
        yield gateway


@asynccontextmanager
async def mcp_client(
    gateway: Gateway, mode: str = "legacy", **options: Any
) -> AsyncIterator[Client]:
    """A connected client. `mode` legacy: with a handshake and a session; `MODERN`: without."""
    async with (
        httpx2.AsyncClient(headers=gateway.authorization, timeout=30) as http,
        Client(
            streamable_http_client(f"{gateway.url}/mcp", http_client=http), mode=mode, **options
        ) as client,
    ):
        yield client


async def charged(gateway: Gateway, amount: str, *, of: int = 100 * CREDIT) -> None:
    """Wait until exactly that much is charged, in Redis and in Postgres, and nothing is held."""
    expected = parse_credits(amount)

    async def in_redis() -> bool:
        return await gateway.balance() == (of - expected, 0)

    async def in_postgres() -> bool:
        rows = await gateway.ledger.settlements(gateway.account.account_id, limit=1_000)
        return (
            sum(row.charged_microcredits for row in rows) == expected and not await gateway.holds()
        )

    await eventually(in_redis)
    await eventually(in_postgres)


async def paid(gateway: Gateway) -> list[tuple[int, str]]:
    """The charges above 0 and their endings, oldest first."""
    rows = await gateway.ledger.settlements(gateway.account.account_id, limit=1_000)
    return [
        (row.charged_microcredits, row.ending) for row in reversed(rows) if row.charged_microcredits
    ]
