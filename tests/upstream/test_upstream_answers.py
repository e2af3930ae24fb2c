"""Every framing an agent may use arrives whole, in order, and at once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.support.nasty_upstream import Conversation, answering, nasty_upstream, speaking
from tests.support.upstream_calls import OK, get, whole

if TYPE_CHECKING:
    from gateway.upstream import UpstreamClient

ANSWERS = {
    "length": (OK + b"Content-Length: 5\r\n\r\nhello", 5),
    "length_of_zero": (OK + b"Content-Length: 0\r\n\r\n", 0),
    "length_with_spaces": (OK + b"content-LENGTH:   5 \r\n\r\nhello", 5),
    "chunked": (
        OK + b"Transfer-Encoding: Chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\n\r\n",
        None,
    ),
    "trailers": (
        OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Cost: 1\r\n\r\n",
        None,
    ),
    "hint_first": (
        b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n" + OK + b"Content-Length: 5\r\n\r\nhello",
        5,
    ),
    "two_hints": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\nA: b\r\n\r\n"
        + OK
        + b"Content-Length: 5\r\n\r\nhello",
        5,
    ),
    "blank_line_first": (b"\r\n" + OK + b"Content-Length: 5\r\n\r\nhello", 5),
}


@pytest.mark.parametrize("kind", ANSWERS)
async def test_an_answer_in_one_packet_is_whole_and_the_connection_is_kept(
    client: UpstreamClient, kind: str
) -> None:
    raw, length = ANSWERS[kind]
    async with nasty_upstream(answering(raw)) as agent:
        for _ in range(3):
            answer = await get(client, agent)
            assert answer.body == (b"" if length == 0 else b"hello")
            assert (answer.status, answer.reason, answer.http_version) == (200, b"OK", "1.1")
            assert answer.content_length == length
            assert not answer.ended
            assert await whole(answer) == answer.body
            assert answer.ended
        assert agent.connections == 1
        assert len(agent.requests) == 3


@pytest.mark.parametrize("kind", ANSWERS)
async def test_an_answer_in_single_bytes_is_the_same_and_the_connection_is_kept(
    client: UpstreamClient, kind: str
) -> None:
    raw, _ = ANSWERS[kind]

    async def script(talk: Conversation) -> None:
        while True:
            await talk.request()
            await talk.send_slowly(raw)

    async with nasty_upstream(script) as agent:
        for _ in range(2):
            answer = await get(client, agent)
            assert await whole(answer) == (b"" if kind == "length_of_zero" else b"hello")
            assert answer.ended
            names = {name.lower() for name, _ in answer.headers}
            assert names <= {b"content-length", b"transfer-encoding"}
        assert agent.connections == 1


async def test_headers_keep_their_order_case_and_repetition(client: UpstreamClient) -> None:
    raw = OK + b"Set-Cookie: a=1\r\nX-ODD:\r\nset-cookie: b=\xff\r\nContent-Length: 0\r\n\r\n"
    async with nasty_upstream(answering(raw)) as agent:
        answer = await get(client, agent)
    assert answer.headers == [
        (b"Set-Cookie", b"a=1"),
        (b"X-ODD", b""),
        (b"set-cookie", b"b=\xff"),
        (b"Content-Length", b"0"),
    ]


@pytest.mark.parametrize(
    "raw",
    [
        OK + b"Content-Length: 1000\r\n\r\n",
        OK + b"Content-Length: 0\r\n\r\n",
        b"HTTP/1.1 404 Nope\r\nContent-Length: 7\r\n\r\n",
    ],
)
async def test_a_head_answer_has_its_length_but_no_body_and_keeps_the_connection(
    client: UpstreamClient, raw: bytes
) -> None:
    async with nasty_upstream(answering(raw, raw, OK + b"Content-Length: 2\r\n\r\nhi")) as agent:
        for _ in range(2):
            answer = await get(client, agent, method=b"HEAD")
            assert answer.body == b""
            assert answer.content_length == int(raw.split(b": ")[1].split(b"\r")[0])
        assert (await get(client, agent)).body == b"hi"
        assert agent.connections == 1


@pytest.mark.parametrize(
    "bad",
    [
        b"Content-Length: 5\r\n\r\n" + OK + b"Content-Length: 4\r\n\r\nevil",
        b"Content-Length: 5\r\n\r\nevil",
        b"Content-Length: 0\r\n\r\nHTTP/1.1 2",
        b"Transfer-Encoding: chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n4\r\nev",
        b"Transfer-Encoding: chunked\r\n\r\n4",
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
)
async def test_a_body_behind_a_head_answer_is_dropped_and_never_taken_for_the_next_answer(
    client: UpstreamClient, bad: bytes
) -> None:
    async with nasty_upstream(
        speaking(OK + bad), answering(OK + b"Content-Length: 2\r\n\r\nhi")
    ) as agent:
        assert (await get(client, agent, method=b"HEAD")).body == b""
        assert (await get(client, agent)).body == b"hi"
        assert agent.connections == 2


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 500\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
)
async def test_204_and_304_have_no_body_whatever_their_headers_say(
    client: UpstreamClient, raw: bytes
) -> None:
    async with nasty_upstream(answering(raw)) as agent:
        for _ in range(2):
            assert (await get(client, agent)).body == b""
        assert agent.connections == 1


@pytest.mark.parametrize(
    "head",
    [OK, b"HTTP/1.0 200 OK\r\n", b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n"],
)
async def test_a_body_without_framing_ends_with_the_connection(
    client: UpstreamClient, head: bytes
) -> None:
    async with nasty_upstream(speaking(head + b"\r\n", b"hel", b"lo", then_close=True)) as agent:
        for _ in range(2):
            answer = await get(client, agent)
            assert await whole(answer) == b"hello"
            assert answer.ended
        assert agent.connections == 2


@pytest.mark.parametrize(
    ("head", "kept"),
    [
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\n", False),
        (b"HTTP/1.1 200 OK\r\nConnection: x, Close\r\n", False),
        (b"HTTP/1.0 200 OK\r\n", False),
        (b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\n", True),
    ],
)
async def test_a_connection_is_kept_only_if_the_answer_lets_it(
    client: UpstreamClient, head: bytes, kept: bool
) -> None:
    async with nasty_upstream(answering(head + b"Content-Length: 2\r\n\r\nhi")) as agent:
        for _ in range(2):
            assert (await get(client, agent)).body == b"hi"
        assert agent.connections == (1 if kept else 2)


async def test_chunks_of_a_1_0_server_are_read_but_its_connection_is_not_trusted(
    client: UpstreamClient,
) -> None:
    raw = (
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"2\r\nhi\r\n0\r\n\r\n"
    )
    async with nasty_upstream(answering(raw)) as agent:
        for _ in range(2):
            assert (await get(client, agent)).body == b"hi"
        assert agent.connections == 2


async def test_a_stream_gives_each_chunk_before_the_next_is_sent(client: UpstreamClient) -> None:
    seen = asyncio.Event()

    async def script(talk: Conversation) -> None:
        await talk.request()
        await talk.send(OK + b"Transfer-Encoding: chunked\r\n\r\n")
        for number in range(5):
            await talk.send(b"1\r\n%d\r\n" % number)
            await seen.wait()
            seen.clear()
        await talk.send(b"0\r\n\r\n")
        await talk.gone()

    async with nasty_upstream(script) as agent:
        answer = await get(client, agent)
        assert answer.body is None
        for number in range(5):
            assert await answer.read() == b"%d" % number
            seen.set()
        assert await answer.read() == b""
        assert answer.ended


async def test_a_small_length_that_dawdles_is_handed_over_as_a_stream(
    client: UpstreamClient,
) -> None:
    seen = asyncio.Event()

    async def script(talk: Conversation) -> None:
        await talk.request()
        await talk.send(OK + b"Content-Length: 4\r\n\r\nab")
        await seen.wait()
        await talk.send(b"cd")
        await talk.gone()

    async with nasty_upstream(script) as agent:
        answer = await get(client, agent)
        assert answer.body is None
        assert await answer.read() == b"ab"
        seen.set()
        assert await whole(answer) == b"cd"
        assert answer.ended


async def test_head_and_small_body_in_two_packets_come_as_one(client: UpstreamClient) -> None:
    async with nasty_upstream(speaking(OK + b"Content-Length: 4\r\n\r\n", b"abcd")) as agent:
        assert (await get(client, agent)).body == b"abcd"


async def test_a_large_length_is_streamed(client: UpstreamClient) -> None:
    body = bytes(range(256)) * 4096
    async with nasty_upstream(
        answering(OK + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    ) as agent:
        for _ in range(2):
            answer = await get(client, agent)
            assert answer.content_length == len(body)
            assert await whole(answer) == body
        assert agent.connections == 1
