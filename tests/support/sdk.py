"""Vendors' SDKs from PyPI, unchanged, against an in-process gateway and an example's agent.

One `Driver` for all four: sync and async clients of either vendor do the same things.
"""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anthropic
import httpx2
import openai
from aiohttp import web

from gateway.config import load_config
from tests.support.dev import ROOT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from policies.catalog import Route
    from tests.support.gateway import Gateway


@dataclass
class Heard:
    """A request as the agent got it."""

    path: str
    headers: dict[str, str]  # names in lower case
    body: bytes


@dataclass
class VendorAgent:
    """An example's agent in this process; `heard` is every request it got."""

    url: str
    heard: list[Heard] = field(default_factory=list)


@asynccontextmanager
async def vendor_agent(name: str, *, pace_s: float = 0.0) -> AsyncIterator[VendorAgent]:
    """examples/<name>/agent.py, served as its `main` does. `pace_s`: between parts of a stream."""
    agent = VendorAgent("")

    @web.middleware
    async def listen(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        agent.heard.append(Heard(request.path, headers, await request.read()))
        return await handler(request)

    app = _load(name).build_app(pace_s)
    app.middlewares.append(listen)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        agent.url = f"http://{host}:{port}"
        yield agent
    finally:
        await runner.cleanup()


def _load(name: str) -> Any:
    path = ROOT / "examples" / name / "agent.py"
    spec = importlib.util.spec_from_file_location(f"{name}_example_agent", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def routes_of(text: str, agent: VendorAgent, folder: Path) -> list[Route]:
    """The routes of a config, "{agent}" in it being the agent's URL."""
    path = folder / "config.toml"
    path.write_text(text.replace("{agent}", agent.url))
    return list(load_config(path).routes)


class Driver:
    """A client of an SDK, sync or async, that counts its attempts."""

    def __init__(self, create: Callable[..., Any], *, sync: bool) -> None:
        self._create = create
        self._sync = sync
        self.attempts = 0  # requests sent, retries too
        self.received: list[Any] = []  # what the last stream gave, up to its end or error

    async def create(self, **fields: Any) -> Any:
        """A whole answer. Raises: what the SDK does."""
        if self._sync:
            return await asyncio.to_thread(self._create, **fields)
        return await self._create(**fields)

    async def stream(self, *, most: int | None = None, **fields: Any) -> list[Any]:
        """The parts of a streamed answer; after `most` of them the client leaves."""
        self.received = []
        if self._sync:
            await asyncio.to_thread(self._read, most, fields)
        else:
            async with await self._create(**fields, stream=True) as parts:
                async for part in parts:
                    self.received.append(part)
                    if len(self.received) == most:
                        break
        return self.received

    def _read(self, most: int | None, fields: dict[str, Any]) -> None:
        with self._create(**fields, stream=True) as parts:
            for part in parts:
                self.received.append(part)
                if len(self.received) == most:
                    break


@asynccontextmanager
async def openai_driver(
    gateway: Gateway, *, sync: bool, responses: bool = False, **options: Any
) -> AsyncIterator[Driver]:
    """`openai.OpenAI` or `AsyncOpenAI` on chat completions, or on the Responses API."""
    options = {"base_url": f"{gateway.url}/v1", "api_key": gateway.key.text, **options}
    kind = openai.OpenAI if sync else openai.AsyncOpenAI
    async with _driving(
        kind, lambda one: one.responses if responses else one.chat.completions, sync, options
    ) as driver:
        yield driver


@asynccontextmanager
async def anthropic_driver(
    gateway: Gateway, *, sync: bool, **options: Any
) -> AsyncIterator[Driver]:
    """`anthropic.Anthropic` or `AsyncAnthropic` on messages."""
    options = {"base_url": gateway.url, "api_key": gateway.key.text, **options}
    kind = anthropic.Anthropic if sync else anthropic.AsyncAnthropic
    async with _driving(kind, lambda one: one.messages, sync, options) as driver:
        yield driver


@asynccontextmanager
async def _driving(
    kind: type[Any], resource: Callable[[Any], Any], sync: bool, options: dict[str, Any]
) -> AsyncIterator[Driver]:
    def count(_request: httpx2.Request) -> None:
        driver.attempts += 1

    async def count_async(request: httpx2.Request) -> None:
        count(request)

    if sync:
        http: Any = httpx2.Client(event_hooks={"request": [count]})
    else:
        http = httpx2.AsyncClient(event_hooks={"request": [count_async]})
    client = kind(http_client=http, **options)
    driver = Driver(resource(client).create, sync=sync)
    try:
        yield driver
    finally:
        if sync:
            client.close()
        else:
            await client.close()
