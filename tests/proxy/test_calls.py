"""A call passes, is charged for what it used, and is recorded, in each way it can end."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import aiohttp
import pytest

from policies.catalog import Timeouts
from tests.support.gateway import CREDIT, chat_route, open_route, running_gateway
from tests.support.nasty_upstream import answering, nasty_upstream, speaking
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from tests.support.nasty_upstream import Conversation

JSON_ANSWER = json.dumps({"text": "hello", "usage": {"total_tokens": 30}}).encode()
JSON_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
WHOLE = JSON_HEAD + b"Content-Length: %d\r\n\r\n" % len(JSON_ANSWER) + JSON_ANSWER
SSE_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
)
USAGE_EVENT = b'data: {"usage": {"total_tokens": 30}}\n\n'
CHARGED = 130_000


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


async def test_a_call_is_charged_for_what_it_used(clean_redis_url: str, postgres_url: str) -> None:
    async with (
        nasty_upstream(answering(WHOLE)) as agent,
        running_gateway(clean_redis_url, postgres_url, [chat_route(agent.url)]) as gateway,
    ):
        reply = await gateway.call()
        assert (reply.status, reply.body) == (200, JSON_ANSWER)
        assert reply.headers["X-Credits-Charged"] == "0.13"
        assert reply.headers["X-Credits-Remaining"] == "99.87"
        row = await gateway.settlement()
        assert row.call_id == reply.request_id
        assert (row.ending, row.status, row.units) == ("completed", 200, "token=30")
        assert row.charged_microcredits == CHARGED
        assert row.held_microcredits == 1_100_000
        assert await gateway.balance() == (100 * CREDIT - CHARGED, 0)


async def test_a_stream_passes_as_it_comes_and_ends_with_its_price(
    clean_redis_url: str, postgres_url: str
) -> None:
    go_on = asyncio.Event()

    async def script(talk: Conversation) -> None:
        await talk.request()
        await talk.send(SSE_HEAD, chunk(b"data: first\n\n"))
        await go_on.wait()
        await talk.send(chunk(USAGE_EVENT), chunk(b"data: [DONE]\n\n"), chunk(b""))
        await talk.gone()

    async with (
        nasty_upstream(script) as agent,
        running_gateway(clean_redis_url, postgres_url, [chat_route(agent.url)]) as gateway,
        aiohttp.ClientSession() as session,
        session.post(gateway.url + "/chat", headers=gateway.authorization) as answer,
    ):
        assert answer.headers["X-Credits-Reserved"] == "1.1"
        assert answer.headers["X-Credits-Remaining"] == "98.9"
        assert await answer.content.readany() == b"data: first\n\n"
        go_on.set()
        rest = await answer.content.read()
        assert rest == (
            USAGE_EVENT + b"data: [DONE]\n\n: credits-charged=0.13 credits-remaining=99.87\n\n"
        )
        row = await gateway.settlement()
        assert (row.ending, row.units, row.charged_microcredits) == (
            "completed",
            "token=30",
            CHARGED,
        )


async def test_a_stream_that_came_at_once_ends_with_its_price_too(
    clean_redis_url: str, postgres_url: str
) -> None:
    whole = SSE_HEAD + chunk(USAGE_EVENT) + chunk(b"")
    async with (
        nasty_upstream(answering(whole)) as agent,
        running_gateway(clean_redis_url, postgres_url, [chat_route(agent.url)]) as gateway,
    ):
        reply = await gateway.call()
        assert reply.body.endswith(b"\n\n: credits-charged=0.13 credits-remaining=99.87\n\n")


async def test_an_answer_without_usage_costs_the_reserve_and_says_so(
    clean_redis_url: str, postgres_url: str
) -> None:
    no_usage = JSON_HEAD + b"Content-Length: 2\r\n\r\n{}"
    async with (
        nasty_upstream(answering(no_usage)) as agent,
        running_gateway(clean_redis_url, postgres_url, [chat_route(agent.url)]) as gateway,
    ):
        assert (await gateway.call()).headers["X-Credits-Charged"] == "1.1"
        assert (await gateway.settlement()).flags == "units_missing"


async def test_use_beyond_the_reserve_is_charged_as_far_as_credits_go(
    clean_redis_url: str, postgres_url: str
) -> None:
    body = json.dumps({"usage": {"total_tokens": 5_000}}).encode()
    answer = JSON_HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body
    async with (
        nasty_upstream(answering(answer)) as agent,
        running_gateway(
            clean_redis_url, postgres_url, [chat_route(agent.url)], microcredits=2 * CREDIT
        ) as gateway,
    ):
        reply = await gateway.call()
        assert reply.headers["X-Credits-Charged"] == "2"
        assert reply.headers["X-Credits-Remaining"] == "0"
        row = await gateway.settlement()
        assert row.uncollected_microcredits == 3_100_000


@pytest.mark.parametrize(("status", "ending"), [(404, "client_error"), (500, "upstream_error")])
async def test_an_error_of_the_agent_passes_and_costs_nothing(
    clean_redis_url: str, postgres_url: str, status: int, ending: str
) -> None:
    answer = b"HTTP/1.1 %d Oh\r\nContent-Length: 4\r\n\r\noops" % status
    async with (
        nasty_upstream(answering(answer)) as agent,
        running_gateway(clean_redis_url, postgres_url, [chat_route(agent.url)]) as gateway,
    ):
        reply = await gateway.call()
        assert (reply.status, reply.body) == (status, b"oops")
        row = await gateway.settlement()
        assert (row.ending, row.status, row.charged_microcredits) == (ending, status, 0)
        assert await gateway.balance() == (100 * CREDIT, 0)


async def test_an_agent_that_can_not_be_reached_is_502_and_costs_nothing(
    clean_redis_url: str, postgres_url: str, unused_tcp_port: int
) -> None:
    route = chat_route(f"http://127.0.0.1:{unused_tcp_port}")
    async with running_gateway(clean_redis_url, postgres_url, [route]) as gateway:
        reply = await gateway.call()
        assert reply.status == 502
        assert json.loads(reply.body)["code"] == "upstream_error"
        assert str(unused_tcp_port).encode() not in reply.body
        assert (await gateway.settlement()).ending == "upstream_error"
        assert await gateway.balance() == (100 * CREDIT, 0)


async def test_an_agent_that_is_too_slow_is_504(clean_redis_url: str, postgres_url: str) -> None:
    async def hang(talk: Conversation) -> None:
        await talk.request()
        await talk.gone()

    timeouts = Timeouts(first_byte_ms=100)
    async with (
        nasty_upstream(hang) as agent,
        running_gateway(
            clean_redis_url, postgres_url, [chat_route(agent.url, timeouts=timeouts)]
        ) as gateway,
    ):
        reply = await gateway.call()
        assert (reply.status, json.loads(reply.body)["code"]) == (504, "upstream_timeout")
        assert (await gateway.settlement()).ending == "upstream_timeout"


@pytest.mark.parametrize(
    "half",
    [
        JSON_HEAD + b"Content-Length: 100000\r\n\r\nhalf",
        SSE_HEAD + chunk(b"data: half\n\n"),
        SSE_HEAD + b"5\r\nhal",
    ],
)
async def test_a_truncated_answer_never_ends_cleanly(
    clean_redis_url: str, postgres_url: str, half: bytes
) -> None:
    async with (
        nasty_upstream(answering(half, then_close=True)) as agent,
        running_gateway(clean_redis_url, postgres_url, [chat_route(agent.url)]) as gateway,
    ):
        with pytest.raises(aiohttp.ClientError):
            await gateway.call()
        row = await gateway.settlement()
        assert (row.ending, row.charged_microcredits) == ("upstream_error", 0)


async def test_garbage_from_the_agent_is_502(clean_redis_url: str, postgres_url: str) -> None:
    async with (
        nasty_upstream(speaking(b"\x00\x01garbage\r\n\r\n", then_close=True)) as agent,
        running_gateway(clean_redis_url, postgres_url, [chat_route(agent.url)]) as gateway,
    ):
        assert (await gateway.call()).status == 502


async def test_a_client_that_leaves_closes_the_agent_and_pays_what_was_metered(
    clean_redis_url: str, postgres_url: str
) -> None:
    async def script(talk: Conversation) -> None:
        await talk.request()
        await talk.send(SSE_HEAD, chunk(USAGE_EVENT))
        await talk.gone()

    async with (
        nasty_upstream(script) as agent,
        running_gateway(clean_redis_url, postgres_url, [chat_route(agent.url)]) as gateway,
    ):
        reader, writer = await gateway.connect()
        writer.write(gateway.head("POST /chat HTTP/1.1", "Content-Length: 0"))
        await reader.readuntil(USAGE_EVENT)
        assert agent.open == 1
        writer.transport.abort()
        await eventually(lambda: agent.open == 0)
        row = await gateway.settlement()
        assert (row.ending, row.charged_microcredits) == ("client_disconnect", CHARGED)
        assert await gateway.balance() == (100 * CREDIT - CHARGED, 0)


async def test_a_client_that_leaves_before_the_first_byte_is_settled(
    clean_redis_url: str, postgres_url: str
) -> None:
    async def hang(talk: Conversation) -> None:
        await talk.request()
        await talk.gone()

    async with (
        nasty_upstream(hang) as agent,
        running_gateway(clean_redis_url, postgres_url, [open_route(agent.url)]) as gateway,
    ):
        _, writer = await gateway.connect()
        writer.write(gateway.head("GET /any/thing HTTP/1.1"))
        await agent.arrived.wait()
        writer.transport.abort()
        await eventually(lambda: agent.open == 0)
        row = await gateway.settlement()
        assert (row.ending, row.status) == ("client_disconnect", 499)
        assert row.charged_microcredits == CREDIT


async def test_parallel_calls_never_spend_more_than_there_is(
    clean_redis_url: str, postgres_url: str
) -> None:
    async with (
        nasty_upstream(answering(WHOLE)) as agent,
        running_gateway(
            clean_redis_url, postgres_url, [open_route(agent.url)], microcredits=20 * CREDIT
        ) as gateway,
    ):
        replies = await asyncio.gather(*(gateway.call("/any/x") for _ in range(60)))
        statuses = sorted(reply.status for reply in replies)
        assert statuses == [200] * 20 + [402] * 40
        assert len(agent.requests) == 20
        assert len(await gateway.settlements(20)) == 20
        assert await gateway.balance() == (0, 0)
