"""Bytes pass as they are, framed so that neither side can be misled."""

from __future__ import annotations

import asyncio
import zlib
from typing import TYPE_CHECKING

import aiohttp
import pytest

from policies.catalog import Timeouts
from tests.support.gateway import CREDIT, chat_route, open_route, running_gateway
from tests.support.nasty_upstream import answering, nasty_upstream
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.nasty_upstream import Conversation

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


async def test_headers_pass_both_ways_but_for_what_is_ours(
    clean_redis_url: str, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENT_KEY", "sk-agent")
    answer = (
        b"HTTP/1.1 200 Fine\r\nContent-Length: 2\r\nX-Agent: 1\r\n"
        b"Set-Cookie: a=1\r\nSet-Cookie: b=2\r\n"
        b"X-Credits-Charged: 0\r\nX-Credits-Remaining: 7\r\nX-Request-Id: fake\r\nKeep-Alive: 5\r\n"
        b"Connection: keep-alive, X-Hop\r\nX-Hop: 1\r\n\r\nok"
    )
    async with (
        nasty_upstream(answering(answer)) as agent,
        running_gateway(
            clean_redis_url,
            postgres_url,
            [open_route(agent.url, headers=(("Authorization", "env:AGENT_KEY"),))],
        ) as gateway,
    ):
        reply = await gateway.call(
            "/any/a%3ab/%7Ec?q=%2F&r", headers={"X-Client": "1", "Cookie": "c=1"}
        )
        assert reply.headers.getall("Set-Cookie") == ["a=1", "b=2"]
        assert reply.headers["X-Agent"] == "1"
        assert reply.headers["X-Credits-Charged"] == "1"
        assert reply.headers["X-Credits-Remaining"] == "99"
        assert reply.headers["X-Request-Id"] != "fake"
        assert not {"X-Hop", "Keep-Alive"} & set(reply.headers)
        sent = agent.requests[0]
        assert sent.head.startswith(b"POST /any/a%3Ab/~c?q=%2F&r HTTP/1.1\r\n")
        assert sent.header(b"authorization") == b"sk-agent"
        assert sent.header(b"x-client") == b"1"
        assert sent.header(b"cookie") == b"c=1"
        assert sent.header(b"host") == f"127.0.0.1:{agent.port}".encode()
        assert sent.header(b"x-forwarded-for") == b"127.0.0.1"
        assert sent.header(b"x-forwarded-host") == f"127.0.0.1:{gateway.port}".encode()
        assert sent.header(b"x-request-id") == reply.request_id.encode()


@pytest.mark.parametrize(
    ("upstream_path", "pattern", "path", "expected"),
    [
        ("", "/any/**", "/any/a/b", b"/any/a/b"),
        ("/", "/any/**", "/any/a/b", b"/any/a/b"),
        ("/base", "/any/**", "/any/a/b", b"/base/a/b"),
        ("/base", "/any/{id}", "/any/a", b"/base"),
    ],
)
async def test_an_upstreams_path_stands_for_the_patterns(
    clean_redis_url: str,
    postgres_url: str,
    upstream_path: str,
    pattern: str,
    path: str,
    expected: bytes,
) -> None:
    async with (
        nasty_upstream(answering(OK)) as agent,
        running_gateway(
            clean_redis_url,
            postgres_url,
            [open_route(agent.url + upstream_path, pattern=pattern)],
        ) as gateway,
    ):
        assert (await gateway.call(path)).status == 200
        assert agent.requests[0].head.split(b" ")[1] == expected


@pytest.mark.parametrize(
    ("method", "answer", "status", "length"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", 200, "9"),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n", 204, None),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", 304, "9"),
        ("GET", b"HTTP/1.1 103 Hints\r\nLink: x\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", 204, None),
    ],
)
async def test_answers_without_body_keep_the_connection(
    clean_redis_url: str,
    postgres_url: str,
    method: str,
    answer: bytes,
    status: int,
    length: str | None,
) -> None:
    async with (
        nasty_upstream(answering(answer, answer)) as agent,
        running_gateway(clean_redis_url, postgres_url, [open_route(agent.url)]) as gateway,
        aiohttp.ClientSession() as session,
    ):
        for _ in range(2):
            async with session.request(
                method, gateway.url + "/any/x", headers=gateway.authorization
            ) as reply:
                assert reply.status == status
                assert reply.headers.get("Content-Length") == length
                assert await reply.read() == b""
        assert agent.connections == 1


async def test_chunked_uploads_pass_and_trailers_do_not(
    clean_redis_url: str, postgres_url: str
) -> None:
    trailing = (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-T: 1\r\n\r\n"
    )

    async def parts() -> AsyncIterator[bytes]:
        for part in (b"one", b"two", b"three"):
            yield part

    async with (
        nasty_upstream(answering(trailing)) as agent,
        running_gateway(clean_redis_url, postgres_url, [open_route(agent.url)]) as gateway,
    ):
        reply = await gateway.call("/any/x", data=parts())
        assert reply.body == b"ok"
        assert "X-T" not in reply.headers
        assert agent.requests[0].body == b"onetwothree"
        assert agent.requests[0].header(b"content-length") is None


async def test_a_close_delimited_answer_becomes_a_framed_one(
    clean_redis_url: str, postgres_url: str
) -> None:
    answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nall there is"
    async with (
        nasty_upstream(answering(answer, then_close=True)) as agent,
        running_gateway(clean_redis_url, postgres_url, [open_route(agent.url)]) as gateway,
    ):
        reply = await gateway.call("/any/x")
        assert reply.body == b"all there is"
        assert {"Content-Length", "Transfer-Encoding"} & set(reply.headers)


async def test_old_clients_get_an_answer_that_ends_with_the_connection(
    clean_redis_url: str, postgres_url: str
) -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

    async def script(talk: Conversation) -> None:
        await talk.request()
        await talk.send(chunked)
        await talk.send(b"2\r\nok\r\n0\r\n\r\n")

    async with (
        nasty_upstream(script) as agent,
        running_gateway(clean_redis_url, postgres_url, [open_route(agent.url)]) as gateway,
    ):
        reader, writer = await gateway.connect()
        writer.write(gateway.head("GET /any/x HTTP/1.0"))
        answer = await reader.read()
        writer.close()
        assert b"chunked" not in answer
        assert answer.endswith(b"\r\n\r\nok")


async def test_100_continue_comes_only_once_credits_are_held(
    clean_redis_url: str, postgres_url: str
) -> None:
    async with (
        nasty_upstream(answering(OK)) as agent,
        running_gateway(
            clean_redis_url, postgres_url, [open_route(agent.url)], microcredits=CREDIT
        ) as gateway,
    ):
        reader, writer = await gateway.connect()
        asking = gateway.head("POST /any/x HTTP/1.1", "Content-Length: 4", "Expect: 100-continue")
        writer.write(asking)
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"body")
        assert (await reader.readuntil(b"\r\n\r\nok")).startswith(b"HTTP/1.1 200 OK\r\n")
        assert agent.requests[0].body == b"body"
        assert agent.requests[0].header(b"expect") is None
        writer.write(asking)
        assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 402 ")
        writer.close()


async def test_compressed_answers_pass_untouched_and_are_metered(
    clean_redis_url: str, postgres_url: str
) -> None:
    packer = zlib.compressobj(wbits=31)
    body = packer.compress(b'{"usage": {"total_tokens": 30}}') + packer.flush()
    head = (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\n"
        b"Content-Length: %d\r\n\r\n" % len(body)
    )
    async with (
        nasty_upstream(answering(head + body)) as agent,
        running_gateway(clean_redis_url, postgres_url, [chat_route(agent.url)]) as gateway,
    ):
        reply = await gateway.call(headers={"Accept-Encoding": "lz4;q=1, gzip;q=0.9"})
        assert reply.body == body
        assert reply.headers["Content-Encoding"] == "gzip"
        assert agent.requests[0].header(b"accept-encoding") == b"gzip;q=0.9"
        assert (await gateway.settlement()).units == "token=30"


async def test_a_late_head_is_closed_and_a_late_body_is_408(
    clean_redis_url: str, postgres_url: str
) -> None:
    async with (
        nasty_upstream(answering(OK)) as agent,
        running_gateway(
            clean_redis_url,
            postgres_url,
            [open_route(agent.url)],
            header_timeout_s=0.1,
            body_timeout_s=0.1,
        ) as gateway,
    ):
        reader, writer = await gateway.connect()
        writer.write(b"GET /any/x HTTP/1.1\r\nHost: a\r\nX-Slow: ")
        assert await reader.read() == b""
        writer.close()
        reader, writer = await gateway.connect()
        writer.write(gateway.head("POST /any/x HTTP/1.1", "Content-Length: 5") + b"ab")
        assert (await reader.read()).startswith(b"HTTP/1.1 408 ")
        writer.close()
        assert agent.requests == []
        assert await gateway.balance() == (0, 0) or (await gateway.balance())[1] == 0


async def test_connections_over_the_bound_are_closed(
    clean_redis_url: str, postgres_url: str
) -> None:
    async with (
        nasty_upstream(answering(OK)) as agent,
        running_gateway(
            clean_redis_url, postgres_url, [open_route(agent.url)], connections_max=2
        ) as gateway,
    ):
        kept = [await gateway.connect() for _ in range(2)]
        await eventually(lambda: len(gateway.worker.server.connections) == 2)
        reader, writer = await gateway.connect()
        assert await reader.read() == b""
        for _, other in [*kept, (reader, writer)]:
            other.close()


async def test_a_stalled_stream_is_cut_and_not_charged(
    clean_redis_url: str, postgres_url: str
) -> None:
    async def stall(talk: Conversation) -> None:
        await talk.request()
        await talk.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n")
        await talk.gone()

    timeouts = Timeouts(idle_ms=100)
    async with (
        nasty_upstream(stall) as agent,
        running_gateway(
            clean_redis_url, postgres_url, [open_route(agent.url, timeouts=timeouts)]
        ) as gateway,
    ):
        with pytest.raises(aiohttp.ClientError):
            await gateway.call("/any/x")
        row = await gateway.settlement()
        assert (row.ending, row.charged_microcredits) == ("upstream_timeout", 0)
        await eventually(lambda: agent.open == 0)


async def test_a_stopping_worker_finishes_running_calls(
    clean_redis_url: str, postgres_url: str
) -> None:
    go_on = asyncio.Event()

    async def script(talk: Conversation) -> None:
        await talk.request()
        await go_on.wait()
        await talk.send(OK)
        await talk.gone()

    async with (
        nasty_upstream(script) as agent,
        running_gateway(clean_redis_url, postgres_url, [open_route(agent.url)]) as gateway,
    ):
        running = asyncio.create_task(gateway.call("/any/x"))
        await agent.arrived.wait()
        stopping = asyncio.create_task(gateway.worker.finish_calls())
        await asyncio.sleep(0)
        go_on.set()
        assert (await running).status == 200
        await stopping
        assert (await gateway.settlement()).ending == "completed"
