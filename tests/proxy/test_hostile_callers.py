"""What callers may try to get work for less, or to hold up others."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import orjson
import pytest

from policies.catalog import Ending, Price, Rule, Source
from tests.proxy.test_sold_at_terms import priced, tokens, usage_agent
from tests.support.gateway import CHAT_PRICE, chat_route, running_gateway
from tests.support.nasty_upstream import nasty_upstream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.nasty_upstream import Conversation


BY_MAX_TOKENS = tokens(reserve_from=(Source("request.json", "/max_tokens"),))


async def test_a_chunked_body_that_is_read_ahead_is_held_to_the_routes_limit(
    clean_redis_url: str, postgres_url: str
) -> None:
    async def upload() -> AsyncIterator[bytes]:
        yield b'{"use": 1'.ljust(150_000)
        yield b"}"

    price = priced(meters=(BY_MAX_TOKENS,))
    async with (
        nasty_upstream(usage_agent) as agent,
        running_gateway(
            clean_redis_url,
            postgres_url,
            [chat_route(agent.url, price=price, body_max_bytes=100_000)],
        ) as gateway,
    ):
        assert (await gateway.call(data=upload())).status == 413
        assert agent.requests == []


@pytest.mark.parametrize(
    "price",
    [
        priced(meters=(BY_MAX_TOKENS,)),
        priced(meters=(tokens(reserve_units=50, included_units=100),), minimum_microcredits=0),
    ],
    ids=["nothing asked for", "included"],
)
async def test_nobody_without_credits_gets_work_that_may_cost_some(
    clean_redis_url: str, postgres_url: str, price: Price
) -> None:
    async with (
        nasty_upstream(usage_agent) as agent,
        running_gateway(
            clean_redis_url,
            postgres_url,
            [chat_route(agent.url, price=price)],
            microcredits=500_000,
        ) as gateway,
    ):
        body = orjson.dumps({"max_tokens": 0, "use": 1_000})
        assert (await gateway.call(data=body)).status == 200
        assert await gateway.balance() == (0, 0)
        assert (await gateway.call(data=body)).status == 402
        assert len(agent.requests) == 1


async def test_a_call_that_costs_what_is_reserved_is_not_sold_for_the_callers_bound(
    clean_redis_url: str, postgres_url: str
) -> None:
    rules = {**chat_route("http://x").rules, Ending.COMPLETED: Rule.RESERVED}
    async with (
        nasty_upstream(usage_agent) as agent,
        running_gateway(
            clean_redis_url, postgres_url, [chat_route(agent.url, price=CHAT_PRICE, rules=rules)]
        ) as gateway,
    ):
        reply = await gateway.call(headers={"X-Max-Credits": "0.2"})
        assert (reply.status, orjson.loads(reply.body)["needed"]) == (402, "1.1")
        assert agent.requests == []
        reply = await gateway.call(headers={"X-Max-Credits": "1.1"})
        assert (reply.status, reply.headers["X-Credits-Charged"]) == (200, "1.1")


async def test_an_answer_in_chunks_is_kept_back_too_when_it_costs_more_than_its_caller_allows(
    clean_redis_url: str, postgres_url: str
) -> None:
    async def script(talk: Conversation) -> None:
        while True:
            await talk.request()
            await answer(talk)

    async def answer(talk: Conversation) -> None:
        await talk.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        for part in (b'{"secret": "', b"s" * 100, b'", "usage": {"total_tokens": 500}}'):
            await asyncio.sleep(0.01)
            await talk.send(b"%x\r\n%b\r\n" % (len(part), part))
        await asyncio.sleep(0.01)
        await talk.send(b"0\r\n\r\n")

    async with (
        nasty_upstream(script) as agent,
        running_gateway(clean_redis_url, postgres_url, [chat_route(agent.url)]) as gateway,
    ):
        reply = await gateway.call(headers={"X-Max-Credits": "0.2"})
        assert (reply.status, reply.headers["X-Credits-Charged"]) == (402, "0.2")
        assert b"sss" not in reply.body
        assert (await gateway.settlement()).ending == "exhausted"
        reply = await gateway.call(headers={"X-Max-Credits": "0.6"})
        assert (reply.status, reply.headers["X-Credits-Charged"]) == (200, "0.6")
        assert b"s" * 100 in reply.body


async def test_a_body_that_can_not_be_written_anew_leaves_no_hold(
    clean_redis_url: str, postgres_url: str
) -> None:
    deep = b"[" * 500 + b"]" * 500
    body = b'{"stream": true, "messages": [%b], "stream_options": {}}' % deep
    async with (
        nasty_upstream(usage_agent) as agent,
        running_gateway(
            clean_redis_url, postgres_url, [chat_route(agent.url, ensure_usage="openai")]
        ) as gateway,
    ):
        assert (await gateway.call(data=body)).status == 200
        assert await gateway.holds() == []
