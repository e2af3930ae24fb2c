"""How a WebSocket ends: what each end is told, which ending it is, and that it is paid for."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.frames import Close, Frame, Opcode

from gateway.proxy import websocket_relay
from gateway.proxy.websocket_cover import Cover
from gateway.upstream.websocket import accept_of
from policies.catalog import Timeouts, WebSocketRule
from tests.support.conversations import (
    PER_CALL,
    PER_MESSAGE,
    agreeing,
    closed,
    masked,
    raw_client,
    silent,
    talk,
    talk_route,
    talking_agent,
)
from tests.support.gateway import CREDIT, running_gateway
from tests.support.nasty_upstream import nasty_upstream
from tests.support.waiting import DEADLINE_S, eventually

if TYPE_CHECKING:
    from websockets.asyncio.server import ServerConnection

    from tests.support.nasty_upstream import Conversation

TEXT = Opcode.TEXT


async def test_silence_and_age_end_it_as_routes_say(
    clean_redis_url: str, postgres_url: str
) -> None:
    async with (
        asyncio.timeout(DEADLINE_S),
        talking_agent(silent) as agent,
        running_gateway(
            clean_redis_url,
            postgres_url,
            [
                talk_route(agent.url, timeouts=Timeouts(idle_ms=80)),
                talk_route(agent.url, timeouts=Timeouts(total_ms=150), name="old", pattern="/old"),
            ],
        ) as gateway,
    ):
        async with talk(gateway) as client:
            assert await closed(client) == Close(1001, "idle_timeout")
        async with talk(gateway, "/old") as client:
            await client.send("hello")
            assert await closed(client) == Close(1001, "total_timeout")
        await eventually(lambda: len(agent.closes) == 2)
        assert agent.closes == [(1001, "idle_timeout"), (1001, "total_timeout")]
        rows = await gateway.settlements(2)
        assert [row.ending for row in rows] == ["completed", "completed"]
        assert [row.charged_microcredits for row in rows] == [CREDIT + CREDIT // 2, CREDIT // 2]


async def test_pings_keep_a_silent_one_open(clean_redis_url: str, postgres_url: str) -> None:
    async with (
        asyncio.timeout(DEADLINE_S),
        talking_agent(silent) as agent,
        running_gateway(
            clean_redis_url, postgres_url, [talk_route(agent.url, timeouts=Timeouts(idle_ms=250))]
        ) as gateway,
        talk(gateway, ping_interval=0.05) as client,
    ):
        await asyncio.sleep(0.6)
        await client.send("still here")
        assert client.protocol.close_rcvd is None


async def test_a_client_that_vanishes_is_a_disconnect_that_is_charged(
    clean_redis_url: str, postgres_url: str
) -> None:
    async with (
        asyncio.timeout(DEADLINE_S),
        talking_agent() as agent,
        running_gateway(clean_redis_url, postgres_url, [talk_route(agent.url)]) as gateway,
    ):
        async with raw_client(gateway) as client:
            client.send(masked(TEXT, b"hello"))
            assert await client.frame() == Frame(TEXT, b"hello")
        row = await gateway.settlement()
        assert (row.ending, row.charged_microcredits) == (
            "client_disconnect",
            CREDIT + CREDIT // 2,
        )
        await agent.ended.wait()
        assert agent.closes == [(1001, "client_gone")]


@pytest.mark.parametrize(
    ("data", "code", "begun"),
    [
        (Frame(TEXT, b"not masked").serialize(mask=False), 1002, 0),
        (bytes([0xC1, 0x80, 0, 0, 0, 0]), 1002, 0),
        (masked(Opcode.CONT, b"of nothing"), 1002, 0),
        (masked(TEXT, bytes(101)), 1009, 0),
        (masked(TEXT, bytes(60), fin=False) + masked(Opcode.CONT, bytes(60)), 1009, 1),
        (masked(Opcode.CLOSE, b"\x03\xed"), 1002, 0),
        (masked(Opcode.CLOSE, b"\x03\xe8\xff"), 1007, 0),
    ],
    ids=["unmasked", "reserved", "of-nothing", "long", "long-in-two", "code-1005", "not-utf-8"],
)
async def test_a_client_that_breaks_the_protocol_pays_for_what_passed(
    clean_redis_url: str, postgres_url: str, data: bytes, code: int, begun: int
) -> None:
    rule = WebSocketRule(message_max_bytes=100)
    async with (
        asyncio.timeout(DEADLINE_S),
        talking_agent() as agent,
        running_gateway(
            clean_redis_url,
            postgres_url,
            [talk_route(agent.url, price=PER_MESSAGE, websocket=rule)],
        ) as gateway,
        raw_client(gateway) as client,
    ):
        client.send(masked(TEXT, b"hello"))
        assert await client.frame() == Frame(TEXT, b"hello")
        client.send(data)
        assert (await client.close_frame())[0] == code
        client.writer.close()
        row = await gateway.settlement()
        assert (row.ending, row.charged_microcredits) == (
            "client_disconnect",
            (1 + begun) * CREDIT,
        )
        await agent.ended.wait()
        assert agent.closes == [(1001, "")]


async def resets(talk: Conversation) -> None:
    talk.reset()


async def leaves(_talk: Conversation) -> None:
    """Closes without a close frame."""


async def stays(talk: Conversation) -> None:
    await talk.gone()


@pytest.mark.parametrize("how", [resets, leaves])
async def test_an_agent_that_vanishes_is_an_upstream_error(
    clean_redis_url: str, postgres_url: str, how: Any
) -> None:
    script = agreeing(Frame(TEXT, b"hello").serialize(mask=False), then=how)
    async with (
        asyncio.timeout(DEADLINE_S),
        nasty_upstream(script) as agent,
        running_gateway(clean_redis_url, postgres_url, [talk_route(agent.url)]) as gateway,
        talk(gateway) as client,
    ):
        assert await closed(client) == Close(1011, "upstream_error")
        row = await gateway.settlement()
        assert (row.ending, row.charged_microcredits) == ("upstream_error", 0)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (Frame(TEXT, b"masked").serialize(mask=True), 1002),
        (Frame(TEXT, bytes(101)).serialize(mask=False), 1009),
        (b"\x88\x03\x03\xe8\xff", 1007),
    ],
    ids=["masked", "long", "not-utf-8"],
)
async def test_an_agent_that_breaks_the_protocol_is_told_so_and_its_client_that_it_failed(
    clean_redis_url: str, postgres_url: str, data: bytes, code: int
) -> None:
    told: list[bytes] = []

    async def hears(talk: Conversation) -> None:
        told.append(await talk.reader.read(6))

    rule = WebSocketRule(message_max_bytes=100)
    async with (
        asyncio.timeout(DEADLINE_S),
        nasty_upstream(agreeing(data, then=hears)) as agent,
        running_gateway(
            clean_redis_url, postgres_url, [talk_route(agent.url, websocket=rule)]
        ) as gateway,
        talk(gateway) as client,
    ):
        assert await closed(client) == Close(1011, "upstream_error")
        assert (await gateway.settlement()).ending == "upstream_error"
        await eventually(lambda: told)
        assert told[0][0] == 0x88
        assert told[0][1] & 0x80
        assert code in {1002, 1007, 1009}


async def test_an_agent_that_does_not_answer_a_close_is_not_waited_for_long(
    clean_redis_url: str, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(websocket_relay, "CLOSE_WAIT_S", 0.05)
    async with (
        asyncio.timeout(DEADLINE_S),
        nasty_upstream(agreeing(then=stays)) as agent,
        running_gateway(clean_redis_url, postgres_url, [talk_route(agent.url)]) as gateway,
        raw_client(gateway) as client,
    ):
        client.send(masked(Opcode.CLOSE, Close(1000, "bye").serialize()))
        assert await client.close_frame() == (1000, "bye")
        assert (await gateway.settlement()).ending == "completed"
        await eventually(lambda: not agent.open)


@pytest.mark.parametrize("data", [b"", b"\x83\x00"])
async def test_an_agent_that_fails_after_its_client_has_closed_changes_nothing(
    clean_redis_url: str, postgres_url: str, data: bytes
) -> None:
    async def fails(talk: Conversation) -> None:
        await talk.reader.read(1)
        await talk.send(data)

    async with (
        asyncio.timeout(DEADLINE_S),
        nasty_upstream(agreeing(then=fails)) as agent,
        running_gateway(clean_redis_url, postgres_url, [talk_route(agent.url)]) as gateway,
        raw_client(gateway) as client,
    ):
        client.send(masked(Opcode.CLOSE, Close(1000, "bye").serialize()))
        assert await client.close_frame() == (1000, "bye")
        row = await gateway.settlement()
        assert (row.ending, row.charged_microcredits) == ("completed", CREDIT // 2)


async def flood(connection: ServerConnection) -> None:
    with contextlib.suppress(ConnectionClosed):
        while True:
            await connection.send(bytes(64 * 1024))


async def echo(connection: ServerConnection) -> None:
    with contextlib.suppress(ConnectionClosed):
        async for message in connection:
            await connection.send(message)


async def test_a_client_that_takes_nothing_any_more_is_a_disconnect(
    clean_redis_url: str, postgres_url: str
) -> None:
    async with (
        asyncio.timeout(DEADLINE_S),
        talking_agent(flood) as agent,
        running_gateway(
            clean_redis_url,
            postgres_url,
            [talk_route(agent.url, price=PER_CALL)],
            body_timeout_s=0.2,
        ) as gateway,
        raw_client(gateway) as client,
    ):
        row = await gateway.settlement()
        assert (row.ending, row.charged_microcredits) == ("client_disconnect", CREDIT)
        with pytest.raises(ConnectionError):
            await client.ended()


async def test_an_agent_that_waits_for_its_client_is_not_to_blame(
    clean_redis_url: str, postgres_url: str
) -> None:
    async with (
        asyncio.timeout(DEADLINE_S),
        talking_agent(echo) as agent,
        running_gateway(
            clean_redis_url,
            postgres_url,
            [talk_route(agent.url, price=PER_CALL, timeouts=Timeouts(idle_ms=400))],
        ) as gateway,
        raw_client(gateway) as client,
    ):

        async def send() -> None:
            while True:  # and takes none of the answers
                client.send(masked(TEXT, bytes(64 * 1024)))
                await client.writer.drain()

        sending = asyncio.ensure_future(send())
        row = await gateway.settlement()
        sending.cancel()
        assert (row.ending, row.charged_microcredits) == ("client_disconnect", CREDIT)


async def test_an_agent_that_takes_nothing_any_more_is_too_slow(
    clean_redis_url: str, postgres_url: str
) -> None:
    over = asyncio.Event()

    async def deaf(connection: ServerConnection) -> None:
        await over.wait()
        connection.transport.abort()

    async with (
        asyncio.timeout(DEADLINE_S),
        talking_agent(deaf, max_queue=1) as agent,
        running_gateway(
            clean_redis_url,
            postgres_url,
            [talk_route(agent.url, price=PER_CALL, timeouts=Timeouts(idle_ms=300))],
        ) as gateway,
        talk(gateway) as client,
    ):

        async def send() -> None:
            while True:
                await client.send(bytes(64 * 1024))

        with pytest.raises(ConnectionClosed) as caught:
            await send()
        assert caught.value.rcvd == Close(1011, "upstream_timeout")
        assert (await gateway.settlement()).ending == "upstream_timeout"
        over.set()


async def test_a_worker_that_stops_says_so_at_once_and_settles(
    clean_redis_url: str, postgres_url: str
) -> None:
    async with (
        asyncio.timeout(DEADLINE_S),
        talking_agent() as agent,
        running_gateway(
            clean_redis_url, postgres_url, [talk_route(agent.url)], shutdown_deadline_s=60
        ) as gateway,
        talk(gateway) as client,
    ):
        await client.send("hello")
        await client.recv()
        stop = asyncio.create_task(gateway.worker.finish_calls())
        assert await closed(client) == Close(1012, "service_restart")
        await stop
        row = await gateway.settlement()
        assert (row.ending, row.charged_microcredits) == ("completed", CREDIT + CREDIT // 2)
        assert agent.closes == [(1001, "")]


async def test_a_worker_that_stops_does_not_wait_for_ends_that_do_not_answer(
    clean_redis_url: str, postgres_url: str
) -> None:
    async with (
        asyncio.timeout(DEADLINE_S),
        nasty_upstream(agreeing(then=stays)) as agent,
        running_gateway(
            clean_redis_url, postgres_url, [talk_route(agent.url)], shutdown_deadline_s=0.1
        ) as gateway,
        raw_client(gateway) as client,
    ):
        await gateway.worker.finish_calls()
        assert await client.close_frame() == (1012, "service_restart")
        assert (await gateway.settlement()).ending == "completed"
        await eventually(lambda: not agent.open)


async def test_one_that_opens_while_its_worker_stops_is_closed_at_once(
    clean_redis_url: str, postgres_url: str
) -> None:
    go_on = asyncio.Event()

    async def script(talk: Conversation) -> None:
        request = await talk.request()
        await go_on.wait()
        key = request.header(b"Sec-WebSocket-Key")
        assert key is not None
        head = b"HTTP/1.1 101 OK\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        await talk.send(head + b"Sec-WebSocket-Accept: " + accept_of(key) + b"\r\n\r\n")
        await talk.gone()

    async with (
        asyncio.timeout(DEADLINE_S),
        nasty_upstream(script) as agent,
        running_gateway(clean_redis_url, postgres_url, [talk_route(agent.url)]) as gateway,
    ):

        async def client() -> tuple[int, str]:
            async with raw_client(gateway) as raw:
                return await raw.close_frame()

        opening = asyncio.create_task(client())
        await agent.arrived.wait()
        stop = asyncio.create_task(gateway.worker.finish_calls())
        await eventually(lambda: gateway.worker.server.stopping)
        go_on.set()
        assert await opening == (1012, "service_restart")
        await stop
        assert (await gateway.settlement()).ending == "completed"


async def test_a_mistake_of_ours_leaves_neither_a_hold_nor_a_connection(
    clean_redis_url: str, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> bool:
        raise RuntimeError("planted")

    monkeypatch.setattr(Cover, "covers", fail)
    async with (
        asyncio.timeout(DEADLINE_S),
        talking_agent() as agent,
        running_gateway(clean_redis_url, postgres_url, [talk_route(agent.url)]) as gateway,
        talk(gateway) as client,
    ):
        await client.send("hello")
        assert await closed(client) is None
        row = await gateway.settlement()
        assert row.ending == "unknown"
        assert (await gateway.balance())[1] == 0
        await agent.ended.wait()
        assert gateway.worker._proxy._calls == {}
