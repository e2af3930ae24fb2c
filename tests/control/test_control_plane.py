"""The control plane's first resources, by status."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from gateway.control.app import BODY_BYTES_MAX, build_app, serving
from gateway.control.node import WorkerState
from gateway.embedded.ports import free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

TOKEN = "tka_right"
READY = WorkerState(0, 11, ready=True, restarts=0)
STARTING = WorkerState(1, None, ready=False, restarts=3)


@dataclass
class SomeNode:
    """A node in a state of the test's choosing."""

    places: list[WorkerState] = field(default_factory=lambda: [READY, STARTING])
    redis: bool = True
    postgres: bool = True
    platform: str = "demo"

    def workers(self) -> Sequence[WorkerState]:
        return self.places

    async def redis_answers(self) -> bool:
        return self.redis

    async def postgres_answers(self) -> bool:
        return self.postgres


class Client:
    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url

    async def get(self, path: str, **headers: str) -> tuple[int, Any, Any]:
        async with self._session.get(self._url + path, headers=headers) as answer:
            return answer.status, await answer.json(content_type=None), answer.headers


@contextlib.asynccontextmanager
async def served(node: SomeNode, token: str | None = TOKEN) -> AsyncIterator[Client]:
    port = free_port()
    app = build_app(node, token)
    async with serving(app, "127.0.0.1", port), aiohttp.ClientSession() as session:
        yield Client(session, f"http://127.0.0.1:{port}")


async def test_200_healthz_whatever_else_is_away() -> None:
    async with served(SomeNode([STARTING], redis=False, postgres=False)) as client:
        status, told, _ = await client.get("/-/healthz")
    assert (status, told) == (200, {"status": "ok"})


async def test_200_readyz_while_postgres_is_away_since_calls_still_pass() -> None:
    async with served(SomeNode(postgres=False)) as client:
        status, told, _ = await client.get("/-/readyz")
    assert (status, told["status"], told["checks"]["postgres"]) == (200, "ready", False)


@pytest.mark.parametrize("node", [SomeNode(redis=False), SomeNode([STARTING]), SomeNode([])])
async def test_503_readyz_with_retry_after_while_no_call_can_pass(node: SomeNode) -> None:
    async with served(node) as client:
        status, told, headers = await client.get("/-/readyz")
    assert (status, told["status"], headers["Retry-After"]) == (503, "unavailable", "1")


async def test_200_status_tells_its_admin_the_state_of_every_part() -> None:
    async with served(SomeNode(redis=False)) as client:
        status, told, _ = await client.get("/v1/status", Authorization=f"Bearer {TOKEN}")
    assert status == 200
    assert (told["platform"], told["redis"], told["postgres"]) == (
        "demo",
        {"answers": False},
        {"answers": True},
    )
    assert told["workers"] == [
        {"index": 0, "pid": 11, "ready": True, "restarts": 0},
        {"index": 1, "pid": None, "ready": False, "restarts": 3},
    ]


@pytest.mark.parametrize(
    "sent", ["", "Bearer", "Bearer ", "Bearer wrong", f"Basic {TOKEN}", TOKEN, "Bearer \xff"]
)
async def test_401_status_has_one_body_for_all_strangers(sent: str) -> None:
    async with served(SomeNode()) as client:
        status, told, headers = await client.get("/v1/status", Authorization=sent)
        expected = await client.get("/v1/status")
    assert (status, told, headers["Content-Type"]) == (401, expected[1], "application/problem+json")
    assert told["code"] == "unauthenticated"
    assert TOKEN not in str(told)


async def test_401_status_for_everybody_when_no_admin_token_is_set() -> None:
    async with served(SomeNode(), token=None) as client:
        for sent in ("Bearer ", "Bearer None", f"Bearer {TOKEN}"):
            assert (await client.get("/v1/status", Authorization=sent))[0] == 401


def test_bodies_are_bounded() -> None:
    assert build_app(SomeNode(), TOKEN)._client_max_size == BODY_BYTES_MAX
