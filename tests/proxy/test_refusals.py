"""Who may not call is told so in the contract's words, and nothing reaches the agent."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from gateway.ledger.periods import AccountChange
from gateway.operations.accounts import change_account
from gateway.operations.grants import add_grant
from gateway.operations.keys import revoke_key
from gateway.operations.publish import publish_account
from policies.apikeys import compose_key
from policies.catalog import ErrorStyle, Plan, Platform
from tests.support.gateway import (
    CREDIT,
    CREDIT_PRICE,
    Gateway,
    chat_route,
    open_route,
    running_gateway,
)
from tests.support.keys import key_of
from tests.support.nasty_upstream import Agent, answering, nasty_upstream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest_asyncio.fixture
async def agent() -> AsyncIterator[Agent]:
    async with nasty_upstream(answering(OK)) as running:
        yield running


@pytest_asyncio.fixture
async def gateway(agent: Agent, clean_redis_url: str, postgres_url: str) -> AsyncIterator[Gateway]:
    routes = [
        open_route(agent.url, body_max_bytes=1_000),
        chat_route(agent.url, price=CREDIT_PRICE, errors=ErrorStyle.OPENAI),
    ]
    async with running_gateway(
        clean_redis_url, postgres_url, routes, microcredits=3 * CREDIT
    ) as running:
        yield running


@pytest.mark.parametrize(
    "key", ["", "tk_dev_short", "tk_dev_" + "A" * 28, compose_key("dev", "B" * 22), "sk-other"]
)
async def test_what_is_no_key_is_401_with_one_body(
    gateway: Gateway, agent: Agent, key: str
) -> None:
    reply = await gateway.call("/any/x", headers={"Authorization": f"Bearer {key}"})
    problem = json.loads(reply.body)
    assert (reply.status, problem["code"]) == (401, "unauthenticated")
    assert problem.pop("request_id") == reply.request_id
    assert problem["detail"].startswith("Send a valid API key")
    assert reply.headers["Content-Type"] == "application/problem+json"
    assert agent.requests == []


async def test_both_ways_to_send_a_key_work(gateway: Gateway) -> None:
    text = gateway.key.text
    assert (await gateway.call("/any/x", headers={"Authorization": f"bearer {text}"})).status == 200
    other = {"Authorization": "Basic eDp5", "X-API-Key": text}
    assert (await gateway.call("/any/x", headers=other)).status == 200


async def test_revocation_works_on_the_next_call(gateway: Gateway, agent: Agent) -> None:
    assert (await gateway.call("/any/x")).status == 200
    platform_id = gateway.account.platform_id
    key = await key_of(gateway.ledger, platform_id, gateway.key.key_id)
    await revoke_key(gateway.ledger, gateway.counters, platform_id, key)
    assert (await gateway.call("/any/x")).status == 401
    assert len(agent.requests) == 1


async def test_suspension_works_on_the_next_call_and_so_does_its_end(gateway: Gateway) -> None:
    assert (await gateway.call("/any/x")).status == 200
    await change_account(
        gateway.ledger, gateway.counters, gateway.account, AccountChange(status="suspended")
    )
    reply = await gateway.call("/any/x")
    assert (reply.status, json.loads(reply.body)["code"]) == (403, "forbidden")
    await change_account(
        gateway.ledger, gateway.counters, gateway.account, AccountChange(status="active")
    )
    assert (await gateway.call("/any/x")).status == 200


async def test_lack_of_credits_is_402_with_what_is_needed(gateway: Gateway, agent: Agent) -> None:
    for _ in range(3):
        assert (await gateway.call("/any/x")).status == 200
    reply = await gateway.call("/any/x")
    problem = json.loads(reply.body)
    assert (reply.status, problem["code"]) == (402, "insufficient_credits")
    assert (problem["needed"], problem["available"]) == ("1", "0")
    assert "Retry-After" not in reply.headers
    assert len(agent.requests) == 3
    await add_grant(gateway.ledger, gateway.counters, gateway.account, CREDIT)
    assert (await gateway.call("/any/x")).status == 200


async def test_openai_routes_answer_in_openai_style(gateway: Gateway) -> None:
    for _ in range(3):
        await gateway.call("/chat")
    reply = await gateway.call("/chat")
    error = json.loads(reply.body)["error"]
    assert (error["code"], error["type"]) == ("insufficient_credits", "insufficient_quota")
    assert (error["needed"], error["available"]) == ("1", "0")


async def test_a_path_without_route_is_404(gateway: Gateway) -> None:
    reply = await gateway.call("/nothing")
    assert (reply.status, json.loads(reply.body)["code"]) == (404, "no_route")


async def test_a_body_over_the_limit_is_413_whether_announced_or_not(
    gateway: Gateway, agent: Agent
) -> None:
    assert (await gateway.call("/any/x", data=b"x" * 1_001)).status == 413
    assert agent.requests == []

    async def unannounced() -> AsyncIterator[bytes]:
        for _ in range(30):
            yield b"x" * 100

    reply = await gateway.call("/any/x", data=unannounced())
    assert (reply.status, json.loads(reply.body)["code"]) == (413, "request_too_large")
    assert await gateway.balance() == (3 * CREDIT, 0)


@pytest.mark.parametrize(
    "raw",
    [
        "GET /any/../x HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /any/x HTTP/1.1\r\n\r\n",
        "GET /any/x HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        (
            "POST /any/x HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n"
            "Transfer-Encoding: chunked\r\n\r\n"
        ),
        "POST /any/x HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "GET /any/x HTTP/1.1\r\nHost: a\r\nX-API-Key : tk_dev_canary\r\n\r\n",
        "GET /any/x HTTP/1.1\r\nHost: a\r\nX-API-Key: tk_dev_canary\x00\r\n\r\n",
        "tk_dev_canary\r\n\r\n",
    ],
)
async def test_unsafe_requests_are_400_closed_and_not_echoed(
    gateway: Gateway, agent: Agent, raw: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    reader, writer = await gateway.connect()
    writer.write(raw.encode("latin-1"))
    answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["code"] == "bad_request"
    assert b"canary" not in answer
    assert "canary" not in caplog.text
    assert agent.requests == []


async def test_the_key_reaches_neither_agent_nor_log(
    gateway: Gateway, agent: Agent, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    await gateway.call("/any/x", headers={"X-API-Key": gateway.key.text})
    assert gateway.key.text.encode() not in agent.requests[0].head
    assert gateway.key.text not in caplog.text


async def test_plan_limits_are_429_with_retry_after(
    agent: Agent, clean_redis_url: str, postgres_url: str
) -> None:
    async with running_gateway(clean_redis_url, postgres_url, [open_route(agent.url)]) as gateway:
        slow = Plan("slow", credits_microcredits=10 * CREDIT, requests_per_minute=2)
        await gateway.ledger.apply_catalog(Platform("demo"), [slow], [open_route(agent.url)])
        await gateway.ledger.change_account(
            gateway.account.platform_id, gateway.account.account_id, AccountChange(plan_slug="slow")
        )
        await publish_account(gateway.ledger, gateway.counters, gateway.account.account_id, "demo")
        first = await gateway.call("/any/x")
        assert first.headers["RateLimit-Policy"] == '"plan";q=2;w=60'
        assert first.headers["RateLimit"] == '"plan";r=1'
        await gateway.call("/any/x")
        limited = await gateway.call("/any/x")
        assert (limited.status, json.loads(limited.body)["code"]) == (429, "rate_limited")
        assert 1 <= int(limited.headers["Retry-After"]) <= 60


async def test_the_gateways_own_paths_need_no_key(gateway: Gateway) -> None:
    for path in ("/-/healthz", "/-/readyz"):
        assert (await gateway.call(path, method="GET", headers={"Authorization": ""})).status == 200
    assert (await gateway.call("/-/other", method="GET")).status == 404
