"""Bodies go out as they come, framed as promised, and stop when nobody wants them any more."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from gateway.upstream import UpstreamClient, UpstreamError, UpstreamTruncated, upload
from tests.support.nasty_upstream import Conversation, answering, nasty_upstream
from tests.support.upstream_calls import (
    HI,
    OK,
    connections_of,
    get,
    idle_of,
    origin_of,
    post,
    whole,
)
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


async def pieces(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        await asyncio.sleep(0)
        yield part


@pytest.mark.parametrize("length", [None, 11])
async def test_a_body_in_pieces_arrives_whole_and_the_connection_is_kept(
    client: UpstreamClient, length: int | None
) -> None:
    async with nasty_upstream(answering(HI)) as agent:
        for _ in range(2):
            body = pieces(b"hello", b"", b" ", b"world")
            assert (await post(client, agent, body, length=length)).body == b"hi"
        assert [each.body for each in agent.requests] == [b"hello world"] * 2
        assert agent.connections == 1


async def test_an_empty_body_in_pieces_is_a_request_of_its_own(client: UpstreamClient) -> None:
    async with nasty_upstream(answering(HI)) as agent:
        for length in (None, 0):
            assert (await post(client, agent, pieces(), length=length)).body == b"hi"
        assert [each.body for each in agent.requests] == [b"", b""]


@pytest.mark.parametrize("size", [1, 64 * 1024, 64 * 1024 + 1, 5_000_000])
async def test_a_body_of_bytes_arrives_whole(client: UpstreamClient, size: int) -> None:
    async with nasty_upstream(answering(HI)) as agent:
        assert (await post(client, agent, b"x" * size)).body == b"hi"
        assert len(agent.requests[0].body) == size


@pytest.mark.parametrize("body", [(b"12345", b"6"), (b"123",), (b"1234", b"567")])
async def test_a_body_of_another_length_than_promised_fails_and_poisons_no_connection(
    client: UpstreamClient, body: tuple[bytes, ...]
) -> None:
    async with nasty_upstream(answering(HI)) as agent:
        with pytest.raises(ValueError, match="Content-Length"):
            await post(client, agent, pieces(*body), length=5)
        assert (await get(client, agent)).body == b"hi"
        assert agent.connections == 2


async def test_not_a_byte_beyond_the_promised_length_leaves(client: UpstreamClient) -> None:
    raw = bytearray()

    async def script(talk: Conversation) -> None:
        await talk.head()
        while data := await talk.reader.read(65536):
            raw.extend(data)

    async with nasty_upstream(script) as agent:
        with pytest.raises(ValueError, match="Content-Length"):
            await post(client, agent, pieces(b"12345", b"GET /evil HTTP/1.1\r\n\r\n"), length=5)
        await eventually(lambda: agent.open == 0)
    assert b"12345".startswith(raw)


async def test_a_body_in_pieces_needs_framing(client: UpstreamClient) -> None:
    async with nasty_upstream(answering(HI)) as agent:
        for head in (
            b"POST / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"POST / HTTP/1.1\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n",
        ):
            with pytest.raises(ValueError, match="Content-Length"):
                await client.send(origin_of(agent), head, pieces(b"hi"), method=b"POST", safe=False)
        assert agent.connections == 0


async def test_what_the_body_raises_is_what_the_caller_gets(client: UpstreamClient) -> None:
    class GoneError(Exception):
        pass

    async def body() -> AsyncIterator[bytes]:
        yield b"hello"
        raise GoneError

    async with nasty_upstream(answering(HI)) as agent:
        with pytest.raises(GoneError):
            await post(client, agent, body())
        await eventually(lambda: agent.open == 0)
        assert agent.requests == []


async def test_an_upload_that_fails_under_a_running_answer_fails_its_reader(
    client: UpstreamClient,
) -> None:
    fail = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b"hello"
        await fail.wait()
        raise KeyError

    async def script(talk: Conversation) -> None:
        await talk.head()
        await talk.send(OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n")
        await talk.gone()

    async with nasty_upstream(script) as agent:
        answer = await post(client, agent, body())
        assert await answer.read() == b"hi"
        fail.set()
        with pytest.raises(KeyError):
            await answer.read()


async def test_request_and_answer_may_stream_at_the_same_time(client: UpstreamClient) -> None:
    turn: asyncio.Queue[bytes] = asyncio.Queue()

    async def body() -> AsyncIterator[bytes]:
        for _ in range(4):
            yield await turn.get()

    async def script(talk: Conversation) -> None:
        await talk.head()
        await talk.send(OK + b"Transfer-Encoding: chunked\r\n\r\n")
        while (line := await talk.reader.readuntil(b"\r\n")) != b"0\r\n":
            piece = await talk.reader.readexactly(int(line, 16) + 2)
            await talk.send(line + piece)
        await talk.reader.readexactly(2)
        await talk.send(b"0\r\n\r\n")
        await talk.gone()

    async with nasty_upstream(script) as agent:
        answer = await post(client, agent, body())
        for number in range(4):
            turn.put_nowait(b"%d" % number)
            assert await answer.read() == b"%d" % number
        assert await answer.read() == b""
        assert len(idle_of(client)) == 1  # both sides are done


async def test_a_whole_early_answer_is_delivered_and_stops_the_upload(
    client: UpstreamClient,
) -> None:
    stopped = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        try:
            yield b"x" * 1000
            await asyncio.sleep(3600)
        finally:
            stopped.set()

    async def script(talk: Conversation) -> None:
        await talk.head()
        await talk.send(b"HTTP/1.1 413 Too Much\r\nContent-Length: 2\r\n\r\nno")
        await talk.gone()

    async with nasty_upstream(script) as agent:
        answer = await post(client, agent, body())
        assert (answer.status, await whole(answer)) == (413, b"no")
        await asyncio.wait_for(stopped.wait(), 5)
        await eventually(lambda: agent.open == 0)


async def test_an_upload_waits_for_100_and_tells_its_caller(
    client: UpstreamClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload, "CONTINUE_WAIT_S", 3600.0)
    told: list[str] = []

    async def body() -> AsyncIterator[bytes]:
        told.append("body")
        yield b"hello"

    async def script(talk: Conversation) -> None:
        head = await talk.head()
        await asyncio.sleep(0.05)
        assert not told
        await talk.send(CONTINUE)
        assert b"chunked" in head
        assert await talk.reader.readuntil(b"0\r\n\r\n") == b"5\r\nhello\r\n0\r\n\r\n"
        await talk.send(HI)
        await talk.gone()

    async with nasty_upstream(script) as agent:
        call = post(client, agent, body(), expect_continue=lambda: told.append("continue"))
        answer = await asyncio.wait_for(call, 20)
        assert await whole(answer) == b"hi"
        assert told == ["continue", "body"]


@pytest.mark.parametrize("small", [False, True])
async def test_a_server_that_never_says_100_gets_the_body_after_a_while(
    client: UpstreamClient, monkeypatch: pytest.MonkeyPatch, small: bool
) -> None:
    monkeypatch.setattr(upload, "CONTINUE_WAIT_S", 0.05)
    async with nasty_upstream(answering(HI)) as agent:
        body = b"hello" if small else pieces(b"hel", b"lo")
        answer = await post(client, agent, body, expect_continue=lambda: None)
        assert answer.body == b"hi"
        assert agent.requests[0].body == b"hello"


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_final_answer_instead_of_100_keeps_the_body_back_and_the_connection_closed(
    client: UpstreamClient, monkeypatch: pytest.MonkeyPatch, streamed: bool
) -> None:
    monkeypatch.setattr(upload, "CONTINUE_WAIT_S", 0.3)
    touched: list[str] = []
    answer_head = b"HTTP/1.1 403 No\r\n"

    async def body() -> AsyncIterator[bytes]:
        touched.append("body")
        yield b"hello"

    async def script(talk: Conversation) -> None:
        await talk.head()
        if streamed:
            await talk.send(answer_head + b"Transfer-Encoding: chunked\r\n\r\n2\r\nno\r\n")
            await asyncio.sleep(0.6)  # longer than 100 (Continue) is waited for
            await talk.send(b"0\r\n\r\n")
        else:
            await talk.send(answer_head + b"Content-Length: 2\r\n\r\nno")
        assert await talk.reader.read() == b""
        touched.append("closed")

    async with nasty_upstream(script) as agent:
        answer = await post(
            client, agent, body(), expect_continue=lambda: touched.append("continue")
        )
        assert (answer.status, await whole(answer)) == (403, b"no")
        await eventually(lambda: touched)
        assert touched == ["closed"]


async def test_a_cancelled_upload_closes_its_connection_and_its_body(
    client: UpstreamClient,
) -> None:
    stopped = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"x" * 65536
        finally:
            stopped.set()

    async def script(talk: Conversation) -> None:
        await talk.head()
        talk.agent.arrived.set()
        await asyncio.sleep(3600)

    async with nasty_upstream(script) as agent:
        task = asyncio.create_task(post(client, agent, body()))
        await agent.arrived.wait()
        await asyncio.sleep(0.05)  # the sockets are full, the upload waits
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(stopped.wait(), 5)
        assert not connections_of(client)


async def test_an_agent_that_closes_under_an_upload_fails_the_call(client: UpstreamClient) -> None:
    async def body() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 65536

    async def script(talk: Conversation) -> None:
        await talk.head()
        await talk.reader.readexactly(200_000)
        talk.reset()

    async with nasty_upstream(script) as agent:
        with pytest.raises(UpstreamError) as caught:
            await post(client, agent, body())
        assert caught.value.sent
        assert not isinstance(caught.value, UpstreamTruncated)
