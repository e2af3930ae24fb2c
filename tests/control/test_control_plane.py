"""The control plane's first resources, by status."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from gateway.control.app import BODY_BYTES_MAX, build_app, serving
from gateway.control.metrics import Metrics
from gateway.ports import held_port, hold
from tests.support.nodes import STARTING, SomeNode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

TOKEN = "tka_right"


class Client:
    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url

    async def get(self, path: str, **headers: str) -> tuple[int, Any, Any]:
        async with self._session.get(self._url + path, headers=headers) as answer:
            return answer.status, await answer.json(content_type=None), answer.headers

    async def figures(self, **headers: str) -> tuple[int, str]:
        async with self._session.get(f"{self._url}/metrics", headers=headers) as answer:
            return answer.status, await answer.text()


@contextlib.asynccontextmanager
async def served(
    node: SomeNode,
    token: str | None = TOKEN,
    *,
    metrics: Metrics | None = None,
    host: str = "127.0.0.1",
) -> AsyncIterator[Client]:
    """Serves on loopback as it would when the config says to listen on `host`."""
    app = build_app(node, token, metrics or Metrics(), None, host=host)
    bound = hold("127.0.0.1")
    async with serving(app, bound), aiohttp.ClientSession() as session:
        yield Client(session, f"http://127.0.0.1:{held_port(bound)}")


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


async def test_200_metrics_count_what_the_jobs_did_and_what_waits() -> None:
    metrics = Metrics()
    metrics.reconciled(40)
    metrics.reconciled(2)
    metrics.expired_holds(5)
    metrics.drift({"redis_lot_sum": 2})
    async with served(SomeNode(), metrics=metrics) as client:
        status, figures = await client.figures()
        lines = figures.splitlines()
    assert status == 200
    assert {line for line in lines if not line.startswith("#") and "_created" not in line} == {
        'tollkeeper_drift_findings{check="redis_lot_sum"} 2.0',
        "tollkeeper_reconciled_accounts_total 42.0",
        "tollkeeper_expired_holds_total 5.0",
        "tollkeeper_rebuilds_total 1.0",
        "tollkeeper_late_settlements 3.0",
        "tollkeeper_outbox_entries 7.0",
    }


async def test_200_metrics_say_nothing_of_what_could_not_be_asked() -> None:
    async with served(SomeNode(redis=False, postgres=False)) as client:
        status, figures = await client.figures()
    assert status == 200
    assert "\ntollkeeper_outbox_entries" not in figures
    assert "\ntollkeeper_late_settlements" not in figures
    assert "\ntollkeeper_rebuilds_total" not in figures


def test_drift_that_is_gone_goes_back_to_nought() -> None:
    metrics = Metrics()
    metrics.drift({"redis_lot_sum": 2, "lease_missing": 1})
    metrics.drift({"lease_missing": 4})
    figures = metrics.text().decode()
    assert 'tollkeeper_drift_findings{check="redis_lot_sum"} 0.0' in figures
    assert 'tollkeeper_drift_findings{check="lease_missing"} 4.0' in figures


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.8.0.1"])
async def test_200_metrics_for_everybody_on_loopback(host: str) -> None:
    async with served(SomeNode(), token=None, host=host) as client:
        assert (await client.figures())[0] == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "gateway.example"])
async def test_401_metrics_need_the_admin_token_where_others_can_reach_them(host: str) -> None:
    async with served(SomeNode(), host=host) as client:
        for sent in ("", "Bearer wrong", TOKEN):
            status, figures = await client.figures(Authorization=sent)
            assert (status, "tollkeeper_" in figures) == (401, False)
        assert (await client.figures(Authorization=f"Bearer {TOKEN}"))[0] == 200


async def test_401_metrics_for_everybody_elsewhere_when_no_admin_token_is_set() -> None:
    async with served(SomeNode(), token=None, host="0.0.0.0") as client:
        assert (await client.figures(Authorization="Bearer None"))[0] == 401


def test_bodies_are_bounded() -> None:
    app = build_app(SomeNode(), TOKEN, Metrics(), None, host="127.0.0.1")
    assert app._client_max_size == BODY_BYTES_MAX
