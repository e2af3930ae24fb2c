"""HTTP/1.0 clients, and what is announced and never comes, are understood as the RFC says."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.gateway import open_route, running_gateway
from tests.support.nasty_upstream import answering, nasty_upstream, speaking

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
DEADLINE_S = 15


async def test_half_an_answer_that_ends_with_the_connection_does_not_look_whole(
    clean_redis_url: str, postgres_url: str
) -> None:
    half = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n"
    async with (
        asyncio.timeout(DEADLINE_S),
        nasty_upstream(speaking(half, then_close=True)) as agent,
        running_gateway(clean_redis_url, postgres_url, [open_route(agent.url)]) as gateway,
    ):
        reader, writer = await gateway.connect()
        writer.write(gateway.head("GET /any/x HTTP/1.0"))
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()


async def test_a_connection_of_http_1_0_is_closed_and_says_so(
    clean_redis_url: str, postgres_url: str
) -> None:
    async with (
        asyncio.timeout(DEADLINE_S),
        nasty_upstream(answering(OK)) as agent,
        running_gateway(clean_redis_url, postgres_url, [open_route(agent.url)]) as gateway,
    ):
        reader, writer = await gateway.connect()
        writer.write(gateway.head("GET /any/x HTTP/1.0", "Connection: keep-alive"))
        answer = await reader.read()
        assert b"\r\nConnection: close\r\n" in answer
        assert answer.endswith(b"\r\n\r\nok")
        writer.close()


async def test_expect_means_nothing_in_http_1_0(clean_redis_url: str, postgres_url: str) -> None:
    async with (
        asyncio.timeout(DEADLINE_S),
        nasty_upstream(answering(OK)) as agent,
        running_gateway(clean_redis_url, postgres_url, [open_route(agent.url)]) as gateway,
    ):
        reader, writer = await gateway.connect()
        expect = ("Content-Length: 4", "Expect: 100-continue")
        writer.write(gateway.head("POST /any/x HTTP/1.0", *expect) + b"body")
        assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
        assert agent.requests[0].body == b"body"
        writer.close()


@pytest.mark.parametrize("lines", [(), ("Content-Length: 0",)])
async def test_expect_means_nothing_without_a_body(
    clean_redis_url: str, postgres_url: str, lines: tuple[str, ...]
) -> None:
    async with (
        asyncio.timeout(DEADLINE_S),
        nasty_upstream(answering(OK)) as agent,
        running_gateway(clean_redis_url, postgres_url, [open_route(agent.url)]) as gateway,
    ):
        reader, writer = await gateway.connect()
        writer.write(gateway.head("GET /any/x HTTP/1.1", *lines, "Expect: 100-continue"))
        assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200 ")
        assert agent.requests[0].header(b"transfer-encoding") is None
        writer.close()


async def test_a_health_check_with_a_body_hears_that_its_connection_ends(
    clean_redis_url: str, postgres_url: str
) -> None:
    route = open_route("http://127.0.0.1:9")
    async with (
        asyncio.timeout(DEADLINE_S),
        running_gateway(clean_redis_url, postgres_url, [route]) as gateway,
    ):
        reader, writer = await gateway.connect()
        writer.write(gateway.head("POST /-/healthz HTTP/1.1", "Content-Length: 4"))
        answer = await reader.readuntil(b"ok\n")
        assert b"\r\nConnection: close\r\n" in answer
        writer.write(b"body")
        assert await reader.read() == b""
        writer.close()
