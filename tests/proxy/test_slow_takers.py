"""Clients that do not take their answers cost neither memory, nor a place, nor others' turns."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.gateway import open_route, running_gateway
from tests.support.nasty_upstream import answering, nasty_upstream
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.proxy.server import Call
    from tests.support.gateway import Gateway

DEADLINE_S = 15
KERNEL_BUFFER_BYTES = 4_096
PIPELINED = 2_000
REQUEST = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n"
NOWHERE = open_route("http://127.0.0.1:9")
# Less than what makes asyncio and uvloop pause a writer, more than the kernel's buffers.
BODY = bytes(60_000)
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n" + BODY


@asynccontextmanager
async def narrow_client(gateway: Gateway) -> AsyncIterator[tuple[socket.socket, Any]]:
    """A socket that only reads when told to, small buffers in the kernel, and our end of it."""
    loop = asyncio.get_running_loop()
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, KERNEL_BUFFER_BYTES)
        client.setblocking(False)  # noqa: FBT003 - positional only
        await loop.sock_connect(client, ("127.0.0.1", gateway.port))
        await eventually(lambda: gateway.worker.server.connections)
        [connection] = gateway.worker.server.connections
        assert connection.transport is not None
        ours = connection.transport.get_extra_info("socket")
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL_BUFFER_BYTES)
        yield client, connection


async def everything(client: socket.socket) -> bytes:
    loop, read = asyncio.get_running_loop(), b""
    while part := await loop.sock_recv(client, 65_536):
        read += part
    return read


async def test_pipelined_refusals_wait_until_the_client_takes_them(
    clean_redis_url: str, postgres_url: str
) -> None:
    loop = asyncio.get_running_loop()
    async with (
        asyncio.timeout(DEADLINE_S),
        running_gateway(clean_redis_url, postgres_url, [NOWHERE]) as gateway,
        narrow_client(gateway) as (client, connection),
    ):
        await loop.sock_sendall(client, REQUEST * PIPELINED)
        await eventually(lambda: connection.writing_paused)
        assert connection.transport.get_write_buffer_size() < 2 * 65_536
        answers = b""
        while answers.count(b"HTTP/1.1 401 ") < PIPELINED or not answers.endswith(b"}"):
            answers += await loop.sock_recv(client, 65_536)
        assert answers.count(b"HTTP/1.1 401 ") == PIPELINED


async def test_a_client_that_never_takes_its_refusals_is_cut(
    clean_redis_url: str, postgres_url: str
) -> None:
    loop = asyncio.get_running_loop()
    async with (
        asyncio.timeout(DEADLINE_S),
        running_gateway(clean_redis_url, postgres_url, [NOWHERE], body_timeout_s=0.1) as gateway,
        narrow_client(gateway) as (client, _),
    ):
        await loop.sock_sendall(client, REQUEST * PIPELINED)
        await eventually(lambda: not gateway.worker.server.connections)
        with pytest.raises(ConnectionResetError):
            await everything(client)


async def test_pipelined_requests_leave_others_their_turn(
    clean_redis_url: str, postgres_url: str
) -> None:
    loop = asyncio.get_running_loop()
    turn, served_in = 0, Counter[int]()
    done = asyncio.Event()

    def next_turn() -> None:
        nonlocal turn
        turn += 1
        if not done.is_set():
            loop.call_soon(next_turn)

    async with (
        asyncio.timeout(DEADLINE_S),
        running_gateway(clean_redis_url, postgres_url, [NOWHERE]) as gateway,
    ):
        handle = gateway.worker.server.handle

        async def counted(call: Call) -> None:
            served_in[turn] += 1
            await handle(call)
            if served_in.total() == PIPELINED:
                done.set()

        gateway.worker.server.handle = counted
        _, writer = await gateway.connect()
        loop.call_soon(next_turn)
        writer.write(REQUEST * PIPELINED)
        await done.wait()
        writer.close()
    assert max(served_in.values()) <= 2


async def test_a_last_answer_that_nobody_takes_does_not_keep_its_connection(
    clean_redis_url: str, postgres_url: str
) -> None:
    loop = asyncio.get_running_loop()
    async with (
        asyncio.timeout(DEADLINE_S),
        nasty_upstream(answering(ANSWER)) as agent,
        running_gateway(
            clean_redis_url, postgres_url, [open_route(agent.url)], body_timeout_s=0.1
        ) as gateway,
        narrow_client(gateway) as (client, _),
    ):
        await loop.sock_sendall(client, gateway.head("GET /any/x HTTP/1.1", "Connection: close"))
        await agent.arrived.wait()
        await eventually(lambda: not gateway.worker.server.connections, deadline_s=5)


async def test_a_last_answer_leaves_whole_however_slowly_it_is_taken(
    clean_redis_url: str, postgres_url: str
) -> None:
    loop = asyncio.get_running_loop()
    async with (
        asyncio.timeout(DEADLINE_S),
        nasty_upstream(answering(ANSWER)) as agent,
        running_gateway(clean_redis_url, postgres_url, [open_route(agent.url)]) as gateway,
        narrow_client(gateway) as (client, connection),
    ):
        await loop.sock_sendall(client, gateway.head("GET /any/x HTTP/1.1", "Connection: close"))
        await eventually(lambda: connection.writing_paused)
        assert (await everything(client)).endswith(b"\r\n\r\n" + BODY)


async def test_a_stopping_worker_lets_idle_clients_take_the_rest_of_their_answers(
    clean_redis_url: str, postgres_url: str
) -> None:
    loop = asyncio.get_running_loop()
    async with (
        asyncio.timeout(DEADLINE_S),
        nasty_upstream(answering(ANSWER)) as agent,
        running_gateway(clean_redis_url, postgres_url, [open_route(agent.url)]) as gateway,
        narrow_client(gateway) as (client, connection),
    ):
        await loop.sock_sendall(client, gateway.head("GET /any/x HTTP/1.1"))
        await eventually(connection.transport.get_write_buffer_size)
        stopping = asyncio.create_task(gateway.worker.finish_calls())
        await eventually(lambda: connection.writing_paused)
        assert (await everything(client)).endswith(b"\r\n\r\n" + BODY)
        await stopping


async def test_a_late_head_is_closed_also_when_answers_wait_to_be_taken(
    clean_redis_url: str, postgres_url: str
) -> None:
    loop = asyncio.get_running_loop()
    async with (
        asyncio.timeout(DEADLINE_S),
        nasty_upstream(answering(ANSWER)) as agent,
        running_gateway(
            clean_redis_url, postgres_url, [open_route(agent.url)], header_timeout_s=0.1
        ) as gateway,
        narrow_client(gateway) as (client, connection),
    ):
        await loop.sock_sendall(client, gateway.head("GET /any/x HTTP/1.1"))
        await eventually(connection.transport.get_write_buffer_size)
        await loop.sock_sendall(client, b"GET /any/x HTTP/1.1\r\nX-Slow: ")
        await eventually(lambda: not gateway.worker.server.connections, deadline_s=5)
