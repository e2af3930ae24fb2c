"""What is made by the API is served, charged and sent from the first call after its answer."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple

import aiohttp
import pytest_asyncio

from gateway.app import WorkerSettings, run_worker
from gateway.config import GatewayConfig
from tests.support.api import LOCAL_NETWORKS, SHARDS
from tests.support.nasty_upstream import Agent, answering, nasty_upstream
from tests.support.upstream_calls import HI

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.api import Api, Client

ROUTES = "/v1/routes"


class Reply(NamedTuple):
    """How a call ended."""

    status: int
    charged: str | None


class Shop(NamedTuple):
    """An owner's client, his agent, and a worker that serves calls to it."""

    client: Client
    agent: Agent
    url: str
    key: str

    async def sells(self, name: str = "chat", **fields: object) -> None:
        """A route from now on."""
        document = {
            "name": name,
            "match": f"POST /{name}",
            "upstream": self.agent.url,
            "price": {"per_request": "1"},
            **fields,
        }
        answer = await self.client.post(ROUTES, document)
        assert answer.status == 201, answer.body

    async def call(self, path: str = "/chat") -> Reply:
        """One call."""
        headers = {"Authorization": f"Bearer {self.key}"}
        async with (
            aiohttp.ClientSession() as session,
            session.post(self.url + path, json={}, headers=headers) as answer,
        ):
            await answer.read()
            return Reply(answer.status, answer.headers.get("X-Credits-Charged"))

    def shown(self) -> bytes | None:
        """The credential that the agent was shown last."""
        return self.agent.requests[-1].header(b"Authorization")


@asynccontextmanager
async def serving(api: Api, redis_url: str) -> AsyncIterator[str]:
    """A worker of the API's deployment; its URL."""
    config = GatewayConfig(
        redis_url=redis_url,
        postgres_url=api.postgres_url,
        shards=SHARDS,
        private_upstreams=LOCAL_NETWORKS,
    )
    credentials = api.credentials
    settings = WorkerSettings(config, credentials.pepper, credentials.master_key)
    async with run_worker(settings) as worker:
        loop = asyncio.get_running_loop()
        listening = await loop.create_server(worker.server, "127.0.0.1", 0)
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        listening.close()


@pytest_asyncio.fixture
async def shop(api: Api, clean_redis_url: str) -> AsyncIterator[Shop]:
    async with nasty_upstream(answering(HI)) as agent, serving(api, clean_redis_url) as url:
        yield Shop(api.as_("owner"), agent, url, api.demo.key.text)


async def test_a_route_serves_is_dearer_and_is_gone_each_time_on_the_next_call(shop: Shop) -> None:
    assert (await shop.call()).status == 404
    await shop.sells()
    assert await shop.call() == Reply(200, "1")
    await shop.client.patch(f"{ROUTES}/chat", {"price": {"per_request": "2.5"}})
    assert await shop.call() == Reply(200, "2.5")
    await shop.client.delete(f"{ROUTES}/chat")
    assert (await shop.call()).status == 404
    await shop.sells(price={"per_request": "3"})
    assert await shop.call() == Reply(200, "3")


async def test_the_agent_is_shown_a_secrets_new_value_on_the_next_call(shop: Shop) -> None:
    secret = "/v1/secrets/agent"
    await shop.client.put(secret, {"value": "Bearer first"})
    await shop.sells(headers={"Authorization": "secret:agent"})
    assert await shop.call() == Reply(200, "1")
    assert shop.shown() == b"Bearer first"
    await shop.client.put(secret, {"value": "Bearer second"})
    await shop.call()
    assert shop.shown() == b"Bearer second"
    await shop.client.patch(f"{ROUTES}/chat", {"headers": None})
    assert (await shop.client.delete(secret)).status == 204
    await shop.call()
    assert shop.shown() is None


async def test_a_route_that_cannot_be_offered_takes_nothing_with_it(shop: Shop, api: Api) -> None:
    await shop.client.put("/v1/secrets/agent", {"value": "Bearer first"})
    await shop.sells("broken", headers={"Authorization": "secret:agent"})
    await api.ledger.set_secret(api.demo.platform_id, "agent", b"damaged")
    await shop.sells()
    assert (await shop.call("/broken")).status == 404
    assert (await shop.call()).status == 200
    await shop.client.put("/v1/secrets/agent", {"value": "Bearer again"})
    assert (await shop.call("/broken")).status == 200


async def test_a_changed_plan_binds_the_next_call(shop: Shop) -> None:
    plans = "/v1/plans"
    await shop.client.post(plans, {"slug": "team"})
    await shop.sells()
    account = (await shop.client.get("/v1/accounts")).body["data"][0]["id"]
    await shop.client.patch(f"/v1/accounts/{account}", {"plan": "team"})
    assert (await shop.call()).status == 200
    assert (await shop.client.patch(f"{plans}/team", {"requests_per_minute": 1})).status == 200
    statuses = [(await shop.call()).status for _ in range(2)]
    assert statuses[-1] == 429
    assert (await shop.client.patch(f"{plans}/team", {"discount": "50"})).status == 200
    patch = {"requests_per_minute": None}
    assert (await shop.client.patch(f"{plans}/team", patch)).status == 200
    assert await shop.call() == Reply(200, "0.5")


async def test_a_platform_serves_as_soon_as_it_is_made(shop: Shop, api: Api) -> None:
    operator = api.as_("operator")
    there = {"Tollkeeper-Platform": "third"}
    assert (await operator.post("/v1/platforms", {"slug": "third"})).status == 201
    document = {
        "name": "own",
        "match": "POST /own",
        "upstream": shop.agent.url,
        "price": {"per_request": "4"},
    }
    await operator.ask("POST", ROUTES, document, headers=there)
    account = await operator.ask(
        "POST", "/v1/accounts", {"name": "carol", "credits": "10"}, headers=there
    )
    keys = f"/v1/accounts/{account.body['id']}/keys"
    key = await operator.ask("POST", keys, {"name": "ci"}, headers=there)
    assert await shop._replace(key=key.body["secret"]).call("/own") == Reply(200, "4")
    assert (await shop.call("/own")).status == 404, "other platforms do not sell it"
