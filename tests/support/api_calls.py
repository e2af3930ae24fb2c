"""A worker beside a running API, on the same Redis and Postgres: what people change, calls feel."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import aiohttp

from gateway.app import WorkerSettings, run_worker
from gateway.config import GatewayConfig
from policies.catalog import Platform
from tests.support.api import PLANS, SHARDS
from tests.support.gateway import PEPPER, Reply, open_route
from tests.support.nasty_upstream import answering, nasty_upstream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.api import Api

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Proxy:
    """The proxy's side: `/any/**` and `/more/**` of platform `demo` cost a credit."""

    def __init__(self, port: int, session: aiohttp.ClientSession) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._session = session

    async def call(self, credential: str, path: str = "/any/x") -> Reply:
        """One call."""
        headers = {"Authorization": f"Bearer {credential}"}
        async with self._session.get(self.url + path, headers=headers) as answer:
            return Reply(answer.status, answer.headers, await answer.read())

    async def status(self, credential: str, path: str = "/any/x") -> int:
        """What a call ends with."""
        return (await self.call(credential, path)).status


@asynccontextmanager
async def serving_calls(api: Api, redis_url: str) -> AsyncIterator[Proxy]:
    """One worker and its agent."""
    settings = WorkerSettings(
        GatewayConfig(redis_url=redis_url, postgres_url=api.postgres_url, shards=SHARDS), PEPPER
    )
    async with nasty_upstream(answering(OK)) as agent:
        more = replace(open_route(agent.url), name="more", pattern="/more/**")
        routes = [open_route(agent.url), more]
        await api.ledger.apply_catalog(Platform("demo", "Demo", None), PLANS, routes)
        async with run_worker(settings) as worker, aiohttp.ClientSession() as session:
            loop = asyncio.get_running_loop()
            listening = await loop.create_server(worker.server, "127.0.0.1", 0)
            yield Proxy(listening.sockets[0].getsockname()[1], session)
            listening.close()
