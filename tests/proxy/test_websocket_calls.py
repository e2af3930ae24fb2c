"""What passes through a WebSocket, and what it costs."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.frames import Close, Frame, Opcode

from gateway.proxy.websocket_relay import FRAMES_PER_TURN
from gateway.upstream.websocket import WRITE_BUFFER_MAX_BYTES
from policies.catalog import Limits, Price, Tier, WebSocketRule
from tests.support.conversations import (
    TALK_PRICE,
    counted,
    masked,
    raw_client,
    talk,
    talk_route,
    talking_agent,
)
from tests.support.gateway import CREDIT, running_gateway
from tests.support.waiting import DEADLINE_S, eventually

if TYPE_CHECKING:
    from websockets.asyncio.server import ServerConnection

    from policies.catalog import MeterSpec

TEXT, BINARY, CONT = Opcode.TEXT, Opcode.BINARY, Opcode.CONT
MIB = 2**20


async def test_messages_pass_both_ways_and_are_charged_one_by_one(
    clean_redis_url: str, postgres_url: str
) -> None:
    async with (
        asyncio.timeout(DEADLINE_S),
        talking_agent() as agent,
        running_gateway(clean_redis_url, postgres_url, [talk_route(agent.url)]) as gateway,
    ):
        async with talk(gateway) as client:
            assert client.response is not None
            headers = client.response.headers
            assert headers["X-Credits-Reserved"] == "10.5"
            assert headers["X-Credits-Remaining"] == "89.5"
            for message in ("hello", b"\x00\xff", "", "ü" * 100_000):
                await client.send(message)
                assert await client.recv() == message
            assert await gateway.balance() == (89 * CREDIT + CREDIT // 2, 10 * CREDIT + CREDIT // 2)
        row = await gateway.settlement()
        assert (row.ending, row.status, row.units) == ("completed", 101, "websocket_messages_in=4")
        assert row.charged_microcredits == 4 * CREDIT + CREDIT // 2
        assert headers["X-Request-Id"] == row.call_id
        assert await gateway.balance() == (95 * CREDIT + CREDIT // 2, 0)
        assert agent.closes == [(1000, "")]


@pytest.mark.parametrize(
    ("meter", "units", "microcredits"),
    [
        (counted("websocket.messages"), 5, 5 * CREDIT),
        (counted("websocket.messages:in"), 2, 2 * CREDIT),
        (counted("websocket.messages:out"), 3, 3 * CREDIT),
        (counted("request.bytes", credits_per_unit="0.01", reserve=100), 9, 9 * CREDIT // 100),
        (counted("response.bytes", credits_per_unit="0.01", reserve=100), 11, 11 * CREDIT // 100),
    ],
)
async def test_every_meter_counts_what_passed(
    clean_redis_url: str, postgres_url: str, meter: MeterSpec, units: int, microcredits: int
) -> None:
    async def handle(connection: ServerConnection) -> None:
        async for message in connection:
            await connection.send(message)
            if message == "ninth":
                await connection.send("!!")

    route_price = Price(meters=(meter,))
    async with (
        asyncio.timeout(DEADLINE_S),
        talking_agent(handle) as agent,
        running_gateway(
            clean_redis_url, postgres_url, [talk_route(agent.url, price=route_price)]
        ) as gateway,
    ):
        async with talk(gateway) as client:
            for message in ("four", "ninth"):
                await client.send(message)
                assert await client.recv() == message
            assert await client.recv() == "!!"
            await client.ping("not a message")
        row = await gateway.settlement()
        assert row.units == f"{meter.unit}={units}"
        assert row.charged_microcredits == microcredits
        assert await gateway.balance() == (100 * CREDIT - microcredits, 0)


async def test_a_second_that_has_begun_is_charged(clean_redis_url: str, postgres_url: str) -> None:
    price = Price(meters=(counted("duration:s", reserve=5),))
    async with (
        asyncio.timeout(DEADLINE_S),
        talking_agent() as agent,
        running_gateway(
            clean_redis_url, postgres_url, [talk_route(agent.url, price=price)]
        ) as gateway,
    ):
        async with talk(gateway) as client:
            await client.send("hello")
            await client.recv()
        row = await gateway.settlement()
        seconds = int(row.units.removeprefix("duration_s="))
        assert 1 <= seconds <= 5
        assert row.charged_microcredits == seconds * CREDIT


async def test_graduated_tiers_find_what_the_account_has_used_before(
    clean_redis_url: str, postgres_url: str
) -> None:
    meter = counted("websocket.messages:in", reserve=2)
    tiers = (Tier(3, 10**12), Tier(None, 5 * 10**11))
    fields = {name: getattr(meter, name) for name in ("unit", "sources", "reserve_units")}
    price = Price(meters=(type(meter)(picocredits_per_unit=0, tiers=tiers, **fields),))
    async with (
        asyncio.timeout(DEADLINE_S),
        talking_agent() as agent,
        running_gateway(
            clean_redis_url, postgres_url, [talk_route(agent.url, price=price)]
        ) as gateway,
    ):
        for _ in range(2):
            async with talk(gateway) as client:
                for _ in range(4):
                    await client.send("hello")
                    await client.recv()
        rows = await gateway.settlements(2)
        assert [row.charged_microcredits for row in rows] == [2 * CREDIT, 3 * CREDIT + CREDIT // 2]


async def test_a_free_websocket_is_proxied_and_settled_at_nothing(
    clean_redis_url: str, postgres_url: str
) -> None:
    async with (
        asyncio.timeout(DEADLINE_S),
        talking_agent() as agent,
        running_gateway(
            clean_redis_url, postgres_url, [talk_route(agent.url, price=None)]
        ) as gateway,
    ):
        async with talk(gateway) as client:
            await client.send("hello")
            assert await client.recv() == "hello"
        row = await gateway.settlement()
        assert (row.ending, row.units, row.charged_microcredits) == ("completed", "", 0)


async def test_fragments_and_what_comes_between_them_pass_as_they_are(
    clean_redis_url: str, postgres_url: str
) -> None:
    heard: list[str] = []

    async def handle(connection: ServerConnection) -> None:
        heard.extend([str(part) async for part in connection.recv_streaming()])
        await connection.send(["in ", "three ", "parts"])
        await connection.wait_closed()

    async with (
        asyncio.timeout(DEADLINE_S),
        talking_agent(handle) as agent,
        running_gateway(clean_redis_url, postgres_url, [talk_route(agent.url)]) as gateway,
        raw_client(gateway) as client,
    ):
        client.send(masked(TEXT, b"one ", fin=False) + masked(Opcode.PING, b"there?"))
        assert await client.frame() == Frame(Opcode.PONG, b"there?")
        client.send(masked(CONT, b"and ", fin=False) + masked(CONT, b"two"))
        assert [await client.frame() for _ in range(3)] == [
            Frame(TEXT, b"in ", fin=False),
            Frame(CONT, b"three ", fin=False),
            Frame(CONT, b"parts", fin=False),
        ]
        assert (await client.frame()).fin
        assert heard == ["one ", "and ", "two"]
        client.send(masked(Opcode.CLOSE, Close(1000, "").serialize()))
        assert await client.close_frame() == (1000, "")
        assert await client.ended() == b""
        assert (await gateway.settlement()).units == "websocket_messages_in=1"


async def test_pings_pass_to_the_other_end_and_its_answers_back(
    clean_redis_url: str, postgres_url: str
) -> None:
    async with (
        asyncio.timeout(DEADLINE_S),
        talking_agent(ping_interval=None) as agent,
        running_gateway(clean_redis_url, postgres_url, [talk_route(agent.url)]) as gateway,
        raw_client(gateway) as client,
    ):
        await eventually(lambda: agent.connections)
        answered = await agent.connections[0].ping(b"from the agent")
        assert await client.frame() == Frame(Opcode.PING, b"from the agent")
        await asyncio.sleep(0.05)
        assert not answered.done()
        client.send(masked(Opcode.PONG, b"from the agent"))
        await answered


@pytest.mark.parametrize(
    ("code", "reason"),
    [(1000, ""), (1000, "enough"), (1001, ""), (3000, "ü" * 61), (4999, "own"), (1011, "x")],
)
async def test_codes_and_reasons_of_a_close_pass_both_ways(
    clean_redis_url: str, postgres_url: str, code: int, reason: str
) -> None:
    async def closing(connection: ServerConnection) -> None:
        if await connection.recv() == "you":
            await connection.close(code, reason)
        await connection.wait_closed()

    async with (
        asyncio.timeout(DEADLINE_S),
        talking_agent(closing) as agent,
        running_gateway(clean_redis_url, postgres_url, [talk_route(agent.url)]) as gateway,
    ):
        async with talk(gateway) as client:
            await client.send("you")
            with pytest.raises(ConnectionClosed) as caught:
                await client.recv()
            assert caught.value.rcvd == Close(code, reason)
        async with talk(gateway) as client:
            await client.send("I")
            await client.close(code, reason)
        await eventually(lambda: len(agent.closes) == 2)
        assert agent.closes[1] == (code, reason)
        for row in await gateway.settlements(2):
            assert row.ending == "completed"
            assert row.charged_microcredits == CREDIT + CREDIT // 2


async def test_a_close_without_a_code_passes_without_one(
    clean_redis_url: str, postgres_url: str
) -> None:
    async with (
        asyncio.timeout(DEADLINE_S),
        talking_agent() as agent,
        running_gateway(clean_redis_url, postgres_url, [talk_route(agent.url)]) as gateway,
        raw_client(gateway) as client,
    ):
        client.send(masked(Opcode.CLOSE))
        assert await client.frame() == Frame(Opcode.CLOSE, b"")
        await agent.ended.wait()
        assert agent.closes == [(1005, "")]
        assert (await gateway.settlement()).ending == "completed"


async def test_what_the_agent_says_after_its_client_has_closed_still_passes_and_counts(
    clean_redis_url: str, postgres_url: str
) -> None:
    asked = asyncio.Event()

    async def handle(connection: ServerConnection) -> None:
        await connection.recv()
        # As soon as the library has seen a close it sends no more: so before it reads it.
        connection.transport.pause_reading()
        asked.set()
        await closed.wait()
        await connection.send("last words")
        connection.transport.resume_reading()
        await connection.wait_closed()

    closed = asyncio.Event()
    price = Price(meters=(counted("websocket.messages:out"),))
    async with (
        asyncio.timeout(DEADLINE_S),
        talking_agent(handle) as agent,
        running_gateway(
            clean_redis_url, postgres_url, [talk_route(agent.url, price=price)]
        ) as gateway,
        raw_client(gateway) as client,
    ):
        client.send(masked(TEXT, b"hello"))
        await asked.wait()
        client.send(masked(Opcode.CLOSE, Close(1000, "bye").serialize()))
        await asyncio.sleep(0.05)
        closed.set()
        assert await client.frame() == Frame(TEXT, b"last words")
        assert await client.close_frame() == (1000, "bye")
        assert (await gateway.settlement()).charged_microcredits == CREDIT


async def test_it_is_settled_before_the_client_gets_the_close(
    clean_redis_url: str, postgres_url: str
) -> None:
    async with (
        asyncio.timeout(DEADLINE_S),
        talking_agent() as agent,
        running_gateway(clean_redis_url, postgres_url, [talk_route(agent.url)]) as gateway,
        raw_client(gateway) as client,
    ):
        settler = gateway.worker._proxy._tools.settler
        settle = settler.settle
        go_on = asyncio.Event()

        async def slow(*told: object) -> object:
            await go_on.wait()
            return await settle(*told)  # type: ignore[arg-type]

        settler.settle = slow  # type: ignore[method-assign, assignment]
        client.send(masked(Opcode.CLOSE, Close(1000, "").serialize()))
        waiting = asyncio.create_task(client.close_frame())
        await asyncio.sleep(0.1)
        assert not waiting.done()
        go_on.set()
        assert await waiting == (1000, "")
        assert (await gateway.balance())[1] == 0


async def test_one_that_is_open_counts_as_a_running_call(
    clean_redis_url: str, postgres_url: str
) -> None:
    route_limits = Limits(concurrency=1)
    async with (
        asyncio.timeout(DEADLINE_S),
        talking_agent() as agent,
        running_gateway(
            clean_redis_url, postgres_url, [talk_route(agent.url, limits=route_limits)]
        ) as gateway,
    ):
        async with talk(gateway) as client:
            answer = await gateway.call(
                "/talk",
                method="GET",
                headers={
                    "Connection": "Upgrade",
                    "Upgrade": "websocket",
                    "Sec-WebSocket-Version": "13",
                    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
                },
            )
            assert answer.status == 429
            await client.send("hello")
            assert await client.recv() == "hello"
        async with talk(gateway):
            pass


@pytest.mark.parametrize("inbound", [True, False])
async def test_who_does_not_read_holds_the_other_end_back(
    clean_redis_url: str, postgres_url: str, inbound: bool
) -> None:
    """What is in between is bounded: the gateway's buffers, and the kernel's."""
    go_on = asyncio.Event()
    passed: list[int] = []
    message = bytes(64 * 1024)

    async def handle(connection: ServerConnection) -> None:
        if inbound:
            await go_on.wait()
            while True:
                passed.append(len(await connection.recv()))
        else:
            for _ in range(1_000):
                await connection.send(message)
                passed.append(len(message))
            await connection.wait_closed()

    price = Price(per_request_microcredits=CREDIT)
    async with (
        asyncio.timeout(DEADLINE_S),
        talking_agent(handle, max_queue=1) as agent,
        running_gateway(
            clean_redis_url, postgres_url, [talk_route(agent.url, price=price)]
        ) as gateway,
        talk(gateway, max_queue=1, ping_interval=None) as client,
    ):
        [call] = gateway.worker._proxy._calls.values()
        sent: list[int] = []

        async def send() -> None:
            for _ in range(1_000):
                await client.send(message)
                sent.append(len(message))

        sending = asyncio.create_task(send()) if inbound else None
        count = sent if inbound else passed
        so_far = -1
        while so_far != len(count) or not count:
            so_far = len(count)
            await asyncio.sleep(0.2)
        assert so_far < 900
        transport = call.call.connection.transport
        assert transport.get_write_buffer_size() <= WRITE_BUFFER_MAX_BYTES + len(message) + 20
        go_on.set()
        if sending is not None:
            await sending
            await eventually(lambda: len(passed) == 1_000)
        else:
            for _ in range(1_000):
                assert len(await client.recv()) == len(message)


async def test_many_small_frames_at_once_leave_others_their_turn(
    clean_redis_url: str, postgres_url: str
) -> None:
    price = Price(meters=(counted("websocket.messages:in", reserve=30_000),))
    heard: list[str | bytes] = []

    async def handle(connection: ServerConnection) -> None:
        while True:
            heard.append(await connection.recv())

    async with (
        asyncio.timeout(DEADLINE_S),
        talking_agent(handle) as agent,
        running_gateway(
            clean_redis_url,
            postgres_url,
            [talk_route(agent.url, price=price)],
            microcredits=40_000 * CREDIT,
        ) as gateway,
        raw_client(gateway) as client,
    ):
        client.send(masked(TEXT) * 20_000)
        turns = 0
        while len(heard) < 20_000:
            await asyncio.sleep(0)
            turns += 1
        assert turns > 20_000 // FRAMES_PER_TURN
        client.send(masked(Opcode.CLOSE))
        await client.close_frame()
        assert (await gateway.settlement()).units == "websocket_messages_in=20000"


async def test_a_message_as_large_as_allowed_passes_and_leases_are_renewed_meanwhile(
    clean_redis_url: str, postgres_url: str
) -> None:
    rule = WebSocketRule(message_max_bytes=3 * MIB, check_ms=60_000)
    async with (
        asyncio.timeout(DEADLINE_S),
        talking_agent(max_size=None) as agent,
        running_gateway(
            clean_redis_url,
            postgres_url,
            [talk_route(agent.url, websocket=rule, price=TALK_PRICE)],
        ) as gateway,
    ):
        async with talk(gateway, max_size=None) as client:
            await client.send(bytes(3 * MIB))
            assert len(await client.recv()) == 3 * MIB
            live = gateway.worker._proxy._calls
            [call] = live.values()
            assert call.meter is not None
            assert call.meter.reading(call.elapsed_ms()).units == (1,)
            [(text, stage)] = await gateway.holds()
            assert stage == 1
            assert (text.held, text.units) == (10 * CREDIT + CREDIT // 2, "")
        assert live == {}
