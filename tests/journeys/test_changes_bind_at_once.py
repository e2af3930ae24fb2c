"""What is changed by the API binds the first call after its answer, on each of four workers.

Every change is followed by calls at once, each on a connection of its own: the kernel spreads these
over the workers, so that with so many of them each worker gets some.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest_asyncio

from tests.support import dev as support
from tests.support.dev import HELLO

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

WORKERS = 4
CALLS = 48
PATH = "/bought/chat"


class Deployment:
    """A `tollkeeper dev` of four workers, its operator, and an account with a key on a route."""

    def __init__(self, dev: support.Dev, session: aiohttp.ClientSession, agent_url: str) -> None:
        self.dev = dev
        self.agent_url = agent_url
        self.key = ""
        self._session = session

    async def ask(self, method: str, path: str, body: object = None) -> Any:
        """What the API answers to the operator."""
        headers = {"Authorization": f"Bearer {self.dev.ready['admin_token']}"}
        url = self.dev.ready["control_url"] + path
        async with self._session.request(method, url, json=body, headers=headers) as answer:
            document = await answer.json(content_type=None) if answer.status != 204 else None
            assert answer.status < 300, document
            return document

    async def route(self, price: str, name: str = "bought", path: str = PATH) -> Any:
        """A route that people made, not the config."""
        document = {
            "name": name,
            "match": f"POST {path}",
            "upstream": f"{self.agent_url}/v1/chat/completions",
            "price": {"per_request": price},
        }
        return await self.ask("POST", "/v1/routes", document)

    async def account(self, name: str, credits_: str = "1000") -> int:
        """A new account, whose key is used from now on."""
        made = await self.ask("POST", "/v1/accounts", {"name": name, "credits": credits_})
        account_id = int(made["id"])
        key = await self.ask("POST", f"/v1/accounts/{account_id}/keys", {"name": "ci"})
        self.key, self.key_id = key["secret"], key["id"]
        return account_id

    async def outcomes(self) -> set[tuple[int, str | None]]:
        """Status and charge of many calls at once, each on its own connection."""
        return set(await asyncio.gather(*(self._call() for _ in range(CALLS))))

    async def statuses(self) -> set[int]:
        """The same without the charge."""
        return {status for status, _ in await self.outcomes()}

    async def _call(self) -> tuple[int, str | None]:
        headers: Mapping[str, str] = {"Authorization": f"Bearer {self.key}"}
        url = self.dev.ready["proxy_url"] + PATH
        async with (
            aiohttp.ClientSession() as session,
            session.post(url, json=HELLO, headers=headers) as answer,
        ):
            await answer.read()
            return answer.status, answer.headers.get("X-Credits-Charged")


@pytest_asyncio.fixture(scope="module")
async def deployment(tmp_path_factory: Any, agent_url: str) -> AsyncIterator[Deployment]:
    folder: Path = tmp_path_factory.mktemp("four")
    config = folder / "config.toml"
    config.write_text(
        f'[gateway]\nworkers = {WORKERS}\nprivate_upstreams = ["127.0.0.0/8"]\n'
        '[platform]\nslug = "demo"\n[[plans]]\nslug = "free"\ncredits = "1000"\n'
    )
    dev = await support.start(config, folder / "data")
    try:
        async with aiohttp.ClientSession() as session:
            yield Deployment(dev, session, agent_url)
    finally:
        await dev.stop()


async def test_a_route_serves_at_its_price_from_the_first_call_on(deployment: Deployment) -> None:
    await deployment.account("routes")
    assert await deployment.statuses() == {404}

    await deployment.route("1")
    assert await deployment.outcomes() == {(200, "1")}

    await deployment.ask("PATCH", "/v1/routes/bought", {"price": {"per_request": "2"}})
    assert await deployment.outcomes() == {(200, "2")}

    await deployment.ask("DELETE", "/v1/routes/bought")
    assert await deployment.statuses() == {404}


async def test_a_key_calls_and_is_bound_from_the_first_call_on(deployment: Deployment) -> None:
    await deployment.account("keys")
    await deployment.route("1")
    await deployment.route("1", "elsewhere", "/elsewhere")
    assert await deployment.statuses() == {200}
    key = f"/v1/keys/{deployment.key_id}"

    await deployment.ask("PATCH", key, {"routes": ["elsewhere"]})
    assert await deployment.statuses() == {403}

    await deployment.ask("PATCH", key, {"routes": []})
    assert await deployment.statuses() == {200}

    await deployment.ask("PATCH", key, {"addresses": ["192.0.2.0/24"]})
    assert await deployment.statuses() == {403}

    await deployment.ask("PATCH", key, {"addresses": ["127.0.0.0/8"]})
    assert await deployment.statuses() == {200}

    await deployment.ask("PATCH", key, {"caps": {"total": "0.5"}})
    assert await deployment.statuses() == {402}

    await deployment.ask("PATCH", key, {"caps": {"total": "0"}})
    assert await deployment.statuses() == {200}

    await deployment.ask("POST", f"{key}/revoke")
    assert await deployment.statuses() == {401}
    await deployment.ask("DELETE", "/v1/routes/bought")


async def test_credits_status_and_plan_bind_from_the_first_call_on(deployment: Deployment) -> None:
    account_id = await deployment.account("credits", "0")
    account = f"/v1/accounts/{account_id}"
    await deployment.route("1")
    assert await deployment.statuses() == {402}

    grant = await deployment.ask("POST", f"{account}/grants", {"credits": "500"})
    assert await deployment.statuses() == {200}

    await deployment.ask("PATCH", account, {"status": "suspended"})
    assert await deployment.statuses() == {403}

    await deployment.ask("PATCH", account, {"status": "active"})
    assert await deployment.statuses() == {200}

    await deployment.ask("POST", "/v1/plans", {"slug": "slow", "caps": {"total": "0.5"}})
    await deployment.ask("PATCH", account, {"plan": "slow"})
    assert await deployment.statuses() == {402}

    await deployment.ask("PATCH", "/v1/plans/slow", {"caps": {"total": "100000"}})
    assert await deployment.statuses() == {200}

    await deployment.ask("POST", f"/v1/grants/{grant['id']}/revoke")
    assert await deployment.statuses() == {402}
    await deployment.ask("DELETE", "/v1/routes/bought")
