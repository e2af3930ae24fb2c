"""A worker that stops loses no call it took, takes no new one, and is done in time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from gateway.ledger import SettlementWriter
from gateway.proxy import server as proxy_server
from gateway.proxy.authenticate import Authenticator
from gateway.proxy.late import LateSettler
from gateway.proxy.server import ProxyServer
from gateway.worker_pool import CLOSE_S, STOP_GRACE_S
from tests.support.gateway import CREDIT, open_route, running_gateway
from tests.support.nasty_upstream import answering, nasty_upstream
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from tests.support.gateway import Gateway
    from tests.support.nasty_upstream import Conversation

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
DEADLINE_S = 10
HALF = bytes(100_000)
NOWHERE = open_route("http://127.0.0.1:9")


async def stopping(gateway: Gateway) -> asyncio.Task[None]:
    """The stop under way: what is idle is closed, what runs is waited for."""
    task = asyncio.create_task(gateway.worker.finish_calls())
    await eventually(lambda: gateway.worker.server.stopping)
    return task


async def test_an_upload_under_way_still_arrives_whole_and_its_answer_is_the_last(
    clean_redis_url: str, postgres_url: str
) -> None:
    begun = asyncio.Event()

    async def script(talk: Conversation) -> None:
        await talk.head()
        begun.set()
        await talk.reader.readexactly(2 * len(HALF))
        await talk.send(OK)
        await talk.gone()

    async with (
        asyncio.timeout(DEADLINE_S),
        nasty_upstream(script) as agent,
        running_gateway(
            clean_redis_url, postgres_url, [open_route(agent.url)], shutdown_deadline_s=5
        ) as gateway,
    ):
        reader, writer = await gateway.connect()
        head = gateway.head("POST /any/x HTTP/1.1", f"Content-Length: {2 * len(HALF)}")
        writer.write(head + HALF)
        await begun.wait()
        stop = await stopping(gateway)
        writer.write(HALF)
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert answer.endswith(b"\r\n\r\nok")
        assert b"\r\nConnection: close\r\n" in answer
        await stop
        writer.close()
        assert (await gateway.settlement()).ending == "completed"


async def test_connections_made_while_it_stops_are_closed(
    clean_redis_url: str, postgres_url: str
) -> None:
    go_on = asyncio.Event()

    async def script(talk: Conversation) -> None:
        await talk.request()
        await go_on.wait()
        await talk.send(OK)

    async with (
        asyncio.timeout(DEADLINE_S),
        nasty_upstream(script) as agent,
        running_gateway(clean_redis_url, postgres_url, [open_route(agent.url)]) as gateway,
    ):
        running = asyncio.create_task(gateway.call("/any/x"))
        await agent.arrived.wait()
        stop = await stopping(gateway)
        reader, writer = await gateway.connect()
        assert await reader.read() == b""
        writer.close()
        go_on.set()
        assert (await running).status == 200
        await stop


async def test_a_connection_closed_before_it_was_ever_waited_on_ends_at_once(
    clean_redis_url: str, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = ProxyServer.connection_made

    def closed_in_the_same_tick(self: ProxyServer, handler: Any, transport: Any) -> None:
        made(self, handler, transport)
        asyncio.get_running_loop().call_soon(handler.close)

    monkeypatch.setattr(ProxyServer, "connection_made", closed_in_the_same_tick)
    async with (
        asyncio.timeout(DEADLINE_S),
        running_gateway(clean_redis_url, postgres_url, [NOWHERE]) as gateway,
    ):
        reader, writer = await gateway.connect()
        assert await reader.read() == b""
        writer.close()


async def test_a_request_that_came_in_the_tick_of_the_stop_is_served_as_the_last(
    clean_redis_url: str, postgres_url: str
) -> None:
    async with (
        asyncio.timeout(DEADLINE_S),
        running_gateway(clean_redis_url, postgres_url, [NOWHERE]) as gateway,
    ):
        reader, writer = await gateway.connect()
        await eventually(lambda: gateway.worker.server.connections)
        [connection] = gateway.worker.server.connections
        connection.data_received(gateway.head("GET /-/healthz HTTP/1.1"))
        connection.close()
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"\r\nConnection: close\r\n" in answer
        writer.close()


async def test_a_call_that_outlasts_the_deadline_is_cut_and_settled(
    clean_redis_url: str, postgres_url: str
) -> None:
    async def script(talk: Conversation) -> None:
        await talk.request()
        await talk.gone()

    async with (
        asyncio.timeout(DEADLINE_S),
        nasty_upstream(script) as agent,
        running_gateway(
            clean_redis_url, postgres_url, [open_route(agent.url)], shutdown_deadline_s=0.1
        ) as gateway,
    ):
        reader, writer = await gateway.connect()
        writer.write(gateway.head("GET /any/x HTTP/1.1"))
        await agent.arrived.wait()
        await gateway.worker.finish_calls()
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()
        assert (await gateway.settlement()).ending == "unknown"
        assert (await gateway.balance())[1] == 0


async def test_a_call_that_had_not_come_to_its_agent_at_the_deadline_never_does(
    clean_redis_url: str, postgres_url: str, monkeypatch: pytest.MonkeyPatch
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
        reader, writer = await gateway.connect()
        writer.write(gateway.head("GET /any/x HTTP/1.1"))
        await asked.wait()
        [connection] = gateway.worker.server.connections
        connection.cut()
        go_on.set()
        connection.close()
        assert await reader.read() == b""
        writer.close()
        assert agent.requests == []
        assert await gateway.balance() == (100 * CREDIT, 0)


async def test_new_calls_on_a_stopping_worker_hear_that_it_stops(
    clean_redis_url: str, postgres_url: str
) -> None:
    async with running_gateway(clean_redis_url, postgres_url, [NOWHERE]) as gateway:
        gateway.worker.server.stopping = True
        assert gateway.worker._proxy._unready() == "This worker is shutting down."
        gateway.worker.server.stopping = False
        assert gateway.worker._proxy._unready() is None


async def test_calls_that_never_end_are_waited_for_once_and_shortly_again(
    clean_redis_url: str, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []

    async def in_vain(tasks: set[Any], *, timeout: float) -> tuple[set[Any], set[Any]]:  # noqa: ASYNC109 - asyncio.wait's
        waits.append(timeout)
        return set(), tasks

    async with running_gateway(clean_redis_url, postgres_url, [NOWHERE]) as gateway:
        _, writer = await gateway.connect()
        await eventually(lambda: gateway.worker.server.connections)
        with monkeypatch.context() as patch:
            patch.setattr(proxy_server.asyncio, "wait", in_vain)
            await gateway.worker.server.finish(7, settle_s=3)
        assert waits == [7, 3]
        writer.close()


async def test_the_parts_of_a_stop_take_no_longer_than_the_supervisor_waits(
    clean_redis_url: str, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts: list[float] = []

    async def finish(_self: ProxyServer, deadline_s: float, *, settle_s: float) -> None:
        parts.extend((deadline_s, settle_s))

    async def drain(_self: object, deadline_s: float) -> None:
        parts.append(deadline_s)

    monkeypatch.setattr(ProxyServer, "finish", finish)
    monkeypatch.setattr(LateSettler, "drain", drain)
    monkeypatch.setattr(SettlementWriter, "drain", drain)
    async with running_gateway(clean_redis_url, postgres_url, [NOWHERE], shutdown_deadline_s=4):
        pass
    assert len(parts) == 4
    assert sum(parts) + CLOSE_S <= 4 + STOP_GRACE_S


async def test_a_stop_that_fails_half_way_still_hands_on_what_was_settled(
    clean_redis_url: str, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    drained: list[str] = []

    async def fail(*_: object, **__: object) -> None:
        raise RuntimeError("a connection's end failed")

    async def late(*_: object) -> None:
        drained.append("late")
        raise RuntimeError("Redis, too")

    async def writer(*_: object) -> None:
        drained.append("writer")

    monkeypatch.setattr(ProxyServer, "finish", fail)
    monkeypatch.setattr(LateSettler, "drain", late)
    monkeypatch.setattr(SettlementWriter, "drain", writer)
    with pytest.raises(RuntimeError, match="Redis, too"):
        async with running_gateway(clean_redis_url, postgres_url, [NOWHERE]):
            pass
    assert drained == ["late", "writer"]
