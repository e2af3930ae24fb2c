"""Bodies that break, stall or never end hold neither credits nor connections for long."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from gateway.proxy.authenticate import Authenticator
from tests.support.gateway import CREDIT, open_route, running_gateway
from tests.support.nasty_upstream import answering, nasty_upstream
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from tests.support.nasty_upstream import Conversation

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CHUNKED = "Transfer-Encoding: chunked"
BROKEN_CHUNK = b"no size\r\n"
DEADLINE_S = 15  # below body_timeout_s


async def ended(reader: asyncio.StreamReader) -> bytes:
    """What still comes until the connection is closed or reset."""
    read = b""
    try:
        while part := await reader.read(65_536):
            read += part
    except ConnectionResetError:
        pass
    return read


async def test_an_upload_whose_framing_breaks_ends_its_call(
    clean_redis_url: str, postgres_url: str
) -> None:
    begun = asyncio.Event()

    async def script(talk: Conversation) -> None:
        await talk.head()
        begun.set()
        await talk.gone()

    async with (
        asyncio.timeout(DEADLINE_S),
        nasty_upstream(script) as agent,
        running_gateway(clean_redis_url, postgres_url, [open_route(agent.url)]) as gateway,
    ):
        reader, writer = await gateway.connect()
        writer.write(gateway.head("POST /any/x HTTP/1.1", CHUNKED) + b"3\r\none\r\n")
        await begun.wait()
        assert (await gateway.balance())[1] == CREDIT
        writer.write(BROKEN_CHUNK)
        await ended(reader)
        writer.close()
        assert (await gateway.settlement()).ending == "client_disconnect"
        assert (await gateway.balance())[1] == 0
        await eventually(lambda: agent.open == 0)


async def test_a_pipelined_upload_whose_framing_broke_while_it_waited_ends_its_call(
    clean_redis_url: str, postgres_url: str
) -> None:
    go_on = asyncio.Event()

    async def first(talk: Conversation) -> None:
        await talk.request()
        await go_on.wait()
        await talk.send(OK)
        await talk.gone()

    async with (
        asyncio.timeout(DEADLINE_S),
        nasty_upstream(first) as agent,
        running_gateway(clean_redis_url, postgres_url, [open_route(agent.url)]) as gateway,
    ):
        reader, writer = await gateway.connect()
        writer.write(gateway.head("GET /any/x HTTP/1.1"))
        await agent.arrived.wait()
        [connection] = gateway.worker.server.connections
        writer.write(gateway.head("POST /any/x HTTP/1.1", CHUNKED) + b"3\r\none\r\n")
        await eventually(lambda: len(connection._messages) == 1)
        writer.write(BROKEN_CHUNK)
        await eventually(lambda: len(connection._messages) == 2)
        go_on.set()
        assert (await ended(reader)).startswith(b"HTTP/1.1 200 ")
        writer.close()
        await eventually(lambda: not gateway.worker.server.connections)
        assert (await gateway.balance())[1] == 0


async def test_an_upload_that_breaks_before_its_call_has_begun_ends_it(
    clean_redis_url: str, postgres_url: str
) -> None:
    async with (
        asyncio.timeout(DEADLINE_S),
        nasty_upstream(answering(OK)) as agent,
        running_gateway(clean_redis_url, postgres_url, [open_route(agent.url)]) as gateway,
    ):
        reader, writer = await gateway.connect()
        await eventually(lambda: gateway.worker.server.connections)
        [connection] = gateway.worker.server.connections
        await asyncio.sleep(0)
        connection.data_received(gateway.head("POST /any/x HTTP/1.1", CHUNKED) + b"3\r\none\r\n")
        connection.data_received(BROKEN_CHUNK)
        await ended(reader)
        writer.close()
        await eventually(lambda: not gateway.worker.server.connections)
        assert (await gateway.balance())[1] == 0


@pytest.mark.parametrize("digits", [20, 5_000])
async def test_a_length_of_too_many_digits_is_refused(
    clean_redis_url: str, postgres_url: str, digits: int
) -> None:
    route = open_route("http://127.0.0.1:9")
    async with (
        asyncio.timeout(DEADLINE_S),
        running_gateway(clean_redis_url, postgres_url, [route]) as gateway,
    ):
        reader, writer = await gateway.connect()
        writer.write(gateway.head("POST /any/x HTTP/1.1", "Content-Length: " + "0" * digits))
        assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
        writer.close()


async def test_a_client_that_leaves_during_its_keys_look_up_is_no_failure(
    clean_redis_url: str,
    postgres_url: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    asked, go_on = asyncio.Event(), asyncio.Event()
    look_up = Authenticator.look_up

    async def slow_look_up(self: Authenticator, credential: bytes) -> Any:
        asked.set()
        await go_on.wait()
        return await look_up(self, credential)

    monkeypatch.setattr(Authenticator, "look_up", slow_look_up)
    async with (
        asyncio.timeout(DEADLINE_S),
        nasty_upstream(answering(OK)) as agent,
        running_gateway(clean_redis_url, postgres_url, [open_route(agent.url)]) as gateway,
    ):
        _, writer = await gateway.connect()
        writer.write(gateway.head("POST /any/x HTTP/1.1", "Content-Length: 4") + b"body")
        await asked.wait()
        [connection] = gateway.worker.server.connections
        writer.close()
        await eventually(lambda: connection.transport is None)
        go_on.set()
        await eventually(lambda: not gateway.worker.server.connections)
        assert "failed in the gateway" not in caplog.text
        assert agent.requests == []
        assert await gateway.balance() == (100 * CREDIT, 0)


async def test_a_small_body_has_one_deadline_however_steadily_it_trickles(
    clean_redis_url: str, postgres_url: str
) -> None:
    async with (
        asyncio.timeout(DEADLINE_S),
        nasty_upstream(answering(OK)) as agent,
        running_gateway(
            clean_redis_url, postgres_url, [open_route(agent.url)], body_timeout_s=0.3
        ) as gateway,
    ):
        reader, writer = await gateway.connect()
        writer.write(gateway.head("POST /any/x HTTP/1.1", "Content-Length: 60000"))
        answer = asyncio.create_task(reader.readuntil(b"\r\n"))
        for _ in range(400):
            writer.write(b"x")
            await asyncio.wait([answer], timeout=0.01)
            if answer.done():
                break
        assert answer.done()
        assert (await answer).startswith(b"HTTP/1.1 408 ")
        assert agent.requests == []
        writer.close()
