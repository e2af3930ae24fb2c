"""`POST /-/quote` says what a call may cost and whether it would be admitted, and does nothing."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from policies.catalog import Limits, Price, Source, Table
from tests.support.gateway import CHAT_PRICE, CREDIT, chat_route, open_route, running_gateway
from tests.support.nasty_upstream import answering, nasty_upstream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.gateway import Gateway
    from tests.support.nasty_upstream import Agent

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@asynccontextmanager
async def served(
    redis_url: str, postgres_url: str, microcredits: int = 100 * CREDIT, **changes: object
) -> AsyncIterator[tuple[Gateway, Agent]]:
    async with (
        nasty_upstream(answering(OK)) as agent,
        running_gateway(
            redis_url,
            postgres_url,
            [chat_route(agent.url, **changes), open_route(agent.url)],
            microcredits=microcredits,
        ) as gateway,
    ):
        yield gateway, agent


async def quote(gateway: Gateway, headers: dict[str, str] | None = None, **call: object) -> Any:
    wanted = {"method": "POST", "path": "/chat", **call}
    reply = await gateway.call("/-/quote", data=orjson.dumps(wanted), headers=headers)
    assert reply.status == 200, reply.body
    return orjson.loads(reply.body)


async def test_a_quote_tells_the_ceiling_and_leaves_no_trace(
    clean_redis_url: str, postgres_url: str
) -> None:
    async with served(clean_redis_url, postgres_url) as (gateway, agent):
        told = await quote(gateway, body={"model": "any"})
        assert {name: told[name] for name in ("route", "ceiling", "floor", "available")} == {
            "route": "chat",
            "ceiling": "1.1",
            "floor": "0.1",
            "available": "100",
        }
        assert (told["admitted"], told["reason"]) == (True, None)
        assert await gateway.balance() == (100 * CREDIT, 0)
        assert await gateway.holds() == []
        assert agent.requests == []
        call = await gateway.call("/any/x")
        assert call.headers["X-Credits-Remaining"] == "99"


async def test_a_quote_says_why_a_call_would_be_refused_in_the_calls_own_words(
    clean_redis_url: str, postgres_url: str
) -> None:
    async with served(clean_redis_url, postgres_url, microcredits=CREDIT) as (gateway, _):
        told = await quote(gateway)
        assert (told["admitted"], told["available"]) == (False, "1")
        refused = orjson.loads((await gateway.call()).body)
        for name in ("code", "status", "detail", "needed", "available"):
            assert told["reason"][name] == refused[name]


async def test_a_quote_takes_the_callers_bound_into_account(
    clean_redis_url: str, postgres_url: str
) -> None:
    async with served(clean_redis_url, postgres_url) as (gateway, _):
        assert (await quote(gateway, headers={"X-Max-Credits": "0.5"}))["ceiling"] == "0.5"
        told = await quote(gateway, headers={"X-Max-Credits": "0.05"})
        assert told["admitted"] is False
        assert told["reason"]["limit_source"] == "caller"
        assert (told["floor"], told["ceiling"], told["available"]) == ("0.1", "1.1", "100")


async def test_a_quote_prices_by_what_the_request_says(
    clean_redis_url: str, postgres_url: str
) -> None:
    cases = {"large": Price(per_request_microcredits=3 * CREDIT)}
    price = Price(
        per_request_microcredits=CREDIT, table=Table(Source("request.json", "/model"), cases)
    )
    async with served(clean_redis_url, postgres_url, price=price) as (gateway, _):
        assert (await quote(gateway, body={"model": "large"}))["ceiling"] == "3"
        assert (await quote(gateway, body='{"model": "large"}'))["ceiling"] == "3"
        assert (await quote(gateway))["ceiling"] == "1"


async def test_quotes_are_not_counted_by_limits(clean_redis_url: str, postgres_url: str) -> None:
    limits = Limits(requests_per_minute=1)
    async with served(clean_redis_url, postgres_url, limits=limits) as (gateway, _):
        for _ in range(3):
            assert (await quote(gateway))["admitted"] is True
        assert (await gateway.call()).status == 200
        told = await quote(gateway)
        assert (told["admitted"], told["available"]) == (False, None)
        assert told["reason"]["code"] == "rate_limited"
        assert told["reason"]["retry_after_s"] >= 1


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"[]", 400),
        (b'{"path": 5}', 400),
        (b'{"path": "/chat", "body": %b}' % (b"[" * 500 + b"]" * 500), 400),
        (b'{"path": "/chat", "more": 1}', 400),
        (b'{"path": "/../chat"}', 400),
        (b'{"path": "/nowhere"}', 404),
        (b'{"path": "/chat", "method": "DELETE"}', 404),
    ],
)
async def test_what_can_not_be_quoted_is_refused_with_a_hint(
    clean_redis_url: str, postgres_url: str, body: bytes, status: int
) -> None:
    async with served(clean_redis_url, postgres_url) as (gateway, _):
        reply = await gateway.call("/-/quote", data=body)
        assert reply.status == status
        assert orjson.loads(reply.body)["detail"]


async def test_a_revoked_key_is_told_nothing(clean_redis_url: str, postgres_url: str) -> None:
    async with served(clean_redis_url, postgres_url) as (gateway, _):
        await quote(gateway)
        await gateway.amend(**{f"k:{gateway.key.key_id}": -1})
        for headers in ({}, {"X-Max-Credits": "0.05"}):
            reply = await gateway.call("/-/quote", data=b'{"path": "/chat"}', headers=headers)
            assert reply.status == 401
            assert b"ceiling" not in reply.body


async def test_a_body_that_waits_to_be_asked_for_is_asked_for(
    clean_redis_url: str, postgres_url: str
) -> None:
    body = b'{"path": "/chat"}'
    length = f"Content-Length: {len(body)}"
    async with served(clean_redis_url, postgres_url) as (gateway, _):
        reader, writer = await gateway.connect()
        writer.write(gateway.head("POST /-/quote HTTP/1.1", length, "Expect: 100-continue"))
        async with asyncio.timeout(5):
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            writer.write(body)
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        writer.close()


async def test_a_quote_needs_a_key_and_post(clean_redis_url: str, postgres_url: str) -> None:
    async with served(clean_redis_url, postgres_url, price=CHAT_PRICE) as (gateway, _):
        reply = await gateway.call("/-/quote", headers={"Authorization": "Bearer tk_wrong"})
        assert reply.status == 401
        assert (await gateway.call("/-/quote", method="GET")).status == 405
