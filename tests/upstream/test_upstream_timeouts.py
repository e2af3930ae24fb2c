"""Each phase of a call has its end, and a slow reader is not a slow agent."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

import pytest

from gateway.upstream import Origin, UpstreamTimeout, client
from gateway.upstream.protocol import READ_BUFFER_MAX_BYTES
from policies.catalog import Timeouts
from tests.support.nasty_upstream import Agent, Conversation, answering, nasty_upstream, speaking
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

    from gateway.upstream import UpstreamClient

CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize("first", [b"", b"HTTP/1.1 102 Wait\r\n\r\n", OK + b"A: b\r\n"])
async def test_a_head_that_does_not_come_runs_out_of_first_byte_time(
    client: UpstreamClient, first: bytes
) -> None:
    async with nasty_upstream(speaking(first), answering(HI)) as agent:
        with pytest.raises(UpstreamTimeout) as caught:
            await get(client, agent, origin_of(agent, first_byte=80))
        assert caught.value.phase == "first_byte"
        assert caught.value.sent
        await eventually(lambda: agent.open == 0)
        assert (await get(client, agent)).body == b"hi"


async def test_a_head_that_drips_does_not_extend_its_time(client: UpstreamClient) -> None:
    async def script(talk: Conversation) -> None:
        await talk.request()
        await talk.send_slowly(OK + b"A: b\r\n" * 1000, pause_s=0.01)

    async with nasty_upstream(script) as agent:
        with pytest.raises(UpstreamTimeout) as caught:
            await get(client, agent, origin_of(agent, first_byte=150, total=3000))
        assert caught.value.phase == "first_byte"


async def test_silence_within_a_stream_runs_out_of_idle_time(client: UpstreamClient) -> None:
    async with nasty_upstream(speaking(CHUNKED + b"2\r\nhi\r\n")) as agent:
        answer = await get(client, agent, origin_of(agent, idle=80))
        assert await answer.read() == b"hi"
        with pytest.raises(UpstreamTimeout) as caught:
            await answer.read()
        assert caught.value.phase == "idle"
        await eventually(lambda: agent.open == 0)


async def test_a_late_head_is_followed_by_idle_time_not_by_the_first_byte_time(
    client: UpstreamClient,
) -> None:
    async def script(talk: Conversation) -> None:
        await talk.request()
        await asyncio.sleep(0.15)
        await talk.send(CHUNKED + b"2\r\nhi\r\n")
        await talk.gone()

    async with nasty_upstream(script) as agent:
        answer = await get(client, agent, origin_of(agent, idle=80))
        with pytest.raises(UpstreamTimeout) as caught:
            await asyncio.wait_for(whole(answer), 20)
        assert caught.value.phase == "idle"


async def test_a_slow_stream_is_not_idle_but_its_total_time_ends(client: UpstreamClient) -> None:
    async def script(talk: Conversation) -> None:
        await talk.request()
        await talk.send(CHUNKED)
        await talk.send_slowly(b"1\r\nx\r\n" * 1000, size=6, pause_s=0.02)

    async with nasty_upstream(script) as agent:
        answer = await get(client, agent, origin_of(agent, idle=200, total=500))
        body = b""
        with pytest.raises(UpstreamTimeout) as caught:  # noqa: PT012  # the stream is read on
            while chunk := await answer.read():
                body += chunk
        assert caught.value.phase == "total"
        assert len(body) > 3


async def test_a_connection_that_does_not_open_runs_out_of_connect_time(
    client: UpstreamClient,
) -> None:
    # A listener whose queue is full drops what comes: the connection stays half open.
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.settimeout(0)
            filler.connect_ex(full.getsockname())
        origin, _ = Origin.parse(
            f"http://127.0.0.1:{full.getsockname()[1]}", timeouts=Timeouts(connect_ms=80)
        )
        with pytest.raises(UpstreamTimeout) as caught:
            await get(client, Agent("", 0), origin)
        assert caught.value.phase == "connect"
        assert not caught.value.sent
        for filler in fillers:
            filler.close()


async def test_a_reader_that_is_slow_is_no_idle_agent(client: UpstreamClient) -> None:
    size = READ_BUFFER_MAX_BYTES * 16
    head = OK + b"Content-Length: %d\r\n\r\n" % size
    async with nasty_upstream(speaking(head + b"x" * size)) as agent:
        answer = await get(client, agent, origin_of(agent, idle=60))
        await asyncio.sleep(0.3)
        assert len(await whole(answer)) == size


async def test_at_most_the_bound_is_read_ahead(client: UpstreamClient) -> None:
    size = READ_BUFFER_MAX_BYTES * 64
    head = OK + b"Content-Length: %d\r\n\r\n" % size
    async with nasty_upstream(speaking(head + b"x" * size)) as agent:
        answer = await get(client, agent)
        (connection,) = connections_of(client)
        await eventually(lambda: connection.paused)
        await asyncio.sleep(0.05)
        first = await answer.read()
        assert READ_BUFFER_MAX_BYTES <= len(first) <= 2 * READ_BUFFER_MAX_BYTES + 65536
        assert len(first) + len(await whole(answer)) == size
        assert not connection.paused
        assert idle_of(client) == [connection]


async def test_an_agent_that_stops_reading_an_upload_runs_out_of_idle_time(
    client: UpstreamClient,
) -> None:
    async def script(talk: Conversation) -> None:
        await talk.head()
        talk.writer.transport.pause_reading()
        await asyncio.sleep(3600)

    async def body() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 65536

    async with nasty_upstream(script) as agent:
        with pytest.raises(UpstreamTimeout) as caught:
            await post(client, agent, body(), origin_of(agent, idle=150, first_byte=50))
        assert caught.value.phase == "idle"


async def test_an_agent_that_reads_slowly_is_not_idle(client: UpstreamClient) -> None:
    body = b"x" * (32 << 20)

    async def script(talk: Conversation) -> None:
        await talk.head()
        left = len(body)
        while left:
            left -= len(await talk.reader.read(1 << 20))
            await asyncio.sleep(0.004)
        await talk.send(HI)
        await talk.gone()

    async with nasty_upstream(script) as agent:
        answer = await post(client, agent, body, origin_of(agent, idle=120, first_byte=60_000))
        assert answer.body == b"hi"


async def test_the_first_byte_time_begins_when_the_upload_ends(client: UpstreamClient) -> None:
    async def body() -> AsyncIterator[bytes]:
        await asyncio.sleep(0.5)
        yield b"x"

    async def script(talk: Conversation) -> None:
        await talk.request()
        await asyncio.sleep(0.4)
        await talk.send(HI)
        await talk.gone()

    async with nasty_upstream(script) as agent:
        answer = await post(client, agent, body(), origin_of(agent, first_byte=600))
        assert answer.body == b"hi"


async def test_a_client_that_uploads_slowly_does_not_use_up_the_first_byte_time(
    client: UpstreamClient,
) -> None:
    async def body() -> AsyncIterator[bytes]:
        for _ in range(6):
            await asyncio.sleep(0.05)
            yield b"x"

    async with nasty_upstream(answering(HI)) as agent:
        answer = await post(client, agent, body(), origin_of(agent, first_byte=150, idle=150))
        assert answer.body == b"hi"
        assert agent.requests[0].body == b"xxxxxx"


async def test_deadlines_are_kept_to_a_tick_even_after_the_client_dozed(
    client: UpstreamClient,
) -> None:
    loop = asyncio.get_running_loop()
    async with nasty_upstream(answering(HI, b"", then_close=False)) as agent:
        await get(client, agent, origin_of(agent, first_byte=100))
        await eventually(lambda: client._dozing)
        started = loop.time()
        with pytest.raises(UpstreamTimeout):
            await get(client, agent, origin_of(agent, first_byte=100))
        # Far less than an idle tick: only a lazy watchdog would take that long.
        assert loop.time() - started < _idle_tick_s()


def _idle_tick_s() -> float:
    return client.IDLE_TICK_S
