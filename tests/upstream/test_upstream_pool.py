"""Connections are bounded, never shared, never leaked, and a request is never sent twice."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

import pytest

from gateway.upstream import (
    Origin,
    UpstreamBroken,
    UpstreamClient,
    UpstreamTimeout,
    UpstreamUnreachable,
    pool,
)
from gateway.upstream.protocol import PROBE_AFTER_IDLE_S
from tests.support.nasty_upstream import Agent, Conversation, answering, nasty_upstream, speaking
from tests.support.upstream_calls import (
    HI,
    OK,
    connections_of,
    get,
    idle_of,
    origin_of,
    post,
    waiting_in,
    whole,
)
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from gateway.upstream.protocol import Connection


async def echo(talk: Conversation) -> None:
    """Answers with the request's own body, in two parts and after others had a turn."""
    while True:
        request = await talk.request()
        await asyncio.sleep(0.001)
        head = OK + b"Content-Length: %d\r\n\r\n" % len(request.body)
        half = len(request.body) // 2
        await talk.send(head + request.body[:half], request.body[half:])


async def test_200_concurrent_calls_keep_the_bound_and_each_gets_its_own_answer(
    client: UpstreamClient,
) -> None:
    async with nasty_upstream(echo) as agent:
        origin = origin_of(agent, connections_max=7)
        bodies = [b"%d" % number * (number % 50 + 1) for number in range(200)]
        answers = await asyncio.gather(*(post(client, agent, body, origin) for body in bodies))
        assert [await whole(answer) for answer in answers] == bodies
        assert agent.connections == 7
        assert len(idle_of(client)) == len(connections_of(client)) == 7


async def test_cancelled_calls_leak_nothing_and_corrupt_nothing(client: UpstreamClient) -> None:
    async with nasty_upstream(echo) as agent:
        origin = origin_of(agent, connections_max=5)

        async def call(number: int) -> None:
            body = b"%d " % number * 20
            assert await whole(await post(client, agent, body, origin)) == body

        for round_number in range(6):
            tasks = [asyncio.create_task(call(number)) for number in range(60)]
            for turn, task in enumerate(tasks[round_number::2]):
                if turn % 7 == 0:
                    await asyncio.sleep(0.0005)
                task.cancel()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
            assert not [each for each in outcomes if isinstance(each, Exception)]
        await eventually(lambda: not waiting_in(client))
        assert len(idle_of(client)) == len(connections_of(client)) <= 5
        await eventually(lambda: agent.open == len(connections_of(client)))


@pytest.mark.parametrize("phase", ["head", "stream"])
async def test_a_cancelled_call_closes_its_connection_at_once(
    client: UpstreamClient, phase: str
) -> None:
    gone = asyncio.Event()

    async def script(talk: Conversation) -> None:
        await talk.request()
        if phase == "stream":
            await talk.send(OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n")
        await talk.gone()
        gone.set()

    async with nasty_upstream(script, answering(HI)) as agent:

        async def call() -> None:
            await whole(await get(client, agent))

        task = asyncio.create_task(call())
        await agent.arrived.wait()
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(gone.wait(), 5)
        assert not connections_of(client)
        assert (await get(client, agent)).body == b"hi"


async def test_an_answer_that_meets_a_cancellation_is_not_left_open(
    client: UpstreamClient,
) -> None:
    async with nasty_upstream(speaking(b"")) as agent:
        task = asyncio.create_task(get(client, agent))
        await agent.arrived.wait()
        (connection,) = connections_of(client)
        # The answer is set, the caller has not run yet, and is cancelled now.
        connection.data_received(OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert connection.closed
        assert not connections_of(client)


async def test_abort_closes_at_once_and_may_be_repeated(client: UpstreamClient) -> None:
    stream = OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n"
    async with nasty_upstream(speaking(stream), answering(HI)) as agent:
        answer = await get(client, agent)
        answer.abort()
        answer.abort()
        await eventually(lambda: agent.open == 0)
        assert not connections_of(client)
        complete = await get(client, agent)
        complete.abort()
        assert (await get(client, agent)).body == b"hi"
        assert agent.connections == 2


async def test_the_latest_used_connection_is_used_first(client: UpstreamClient) -> None:
    async with nasty_upstream(echo) as agent:
        origin = origin_of(agent)
        await asyncio.gather(*(post(client, agent, b"%d" % n, origin) for n in range(3)))
        latest = idle_of(client)[-1]
        await post(client, agent, b"again", origin)
        assert idle_of(client)[-1] is latest
        assert agent.connections == 3


async def test_idle_connections_are_bounded_in_number(
    client: UpstreamClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "IDLE_MAX", 2)
    async with nasty_upstream(echo) as agent:
        origin = origin_of(agent)
        await asyncio.gather(*(post(client, agent, b"%d" % n, origin) for n in range(6)))
        assert len(idle_of(client)) == len(connections_of(client)) == 2
        await eventually(lambda: agent.open == 2)


async def test_idle_connections_are_closed_in_time_and_their_pool_is_forgotten(
    client: UpstreamClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "IDLE_EXPIRY_S", 0.05)
    async with nasty_upstream(answering(HI)) as agent:
        await get(client, agent)
        await eventually(lambda: agent.open == 0)
        await eventually(lambda: not client._pools)
        await eventually(lambda: client._timer is None)
        assert (await get(client, agent)).body == b"hi"


@pytest.mark.parametrize("noise", [b"x", b"HTTP/1.1 408 Late\r\nContent-Length: 0\r\n\r\n", None])
async def test_a_connection_that_hears_anything_while_idle_is_discarded(
    client: UpstreamClient, noise: bytes | None
) -> None:
    speak = asyncio.Event()

    async def script(talk: Conversation) -> None:
        await talk.request()
        await talk.send(HI)
        await speak.wait()
        if noise is not None:
            await talk.send(noise)
            await talk.gone()

    async with nasty_upstream(script, answering(HI)) as agent:
        await get(client, agent)
        (kept,) = idle_of(client)
        speak.set()
        await eventually(lambda: kept.closed)
        assert not idle_of(client)
        assert (await get(client, agent)).body == b"hi"
        assert len(agent.requests) == 2


@pytest.mark.parametrize("method", [b"GET", b"POST"])
async def test_a_call_that_was_written_is_never_sent_again(
    client: UpstreamClient, method: bytes
) -> None:
    async def script(talk: Conversation) -> None:
        await talk.request()
        await talk.send(HI)
        await talk.request()  # and closes without a word

    async with nasty_upstream(script, answering(HI)) as agent:
        await get(client, agent)
        with pytest.raises(UpstreamBroken) as caught:
            await get(client, agent, method=method)
        assert caught.value.sent
        assert len(agent.requests) == 2


async def test_a_close_in_the_kernel_is_noticed_before_a_byte_is_written(
    client: UpstreamClient,
) -> None:
    raw = socket.create_server(("127.0.0.1", 0))
    raw.settimeout(0)
    loop = asyncio.get_running_loop()
    agent = Agent(f"http://127.0.0.1:{raw.getsockname()[1]}", 0)
    task = asyncio.create_task(get(client, agent))
    first, _ = await loop.sock_accept(raw)
    await loop.sock_recv(first, 4096)
    await loop.sock_sendall(first, HI)
    await task
    idle_of(client)[0].idle_since -= PROBE_AFTER_IDLE_S * 2
    first.close()
    # The loop has had no turn to see the close: only the probe can.
    task = asyncio.create_task(post(client, agent, b"{}"))
    second, _ = await asyncio.wait_for(loop.sock_accept(raw), 5)
    assert b"POST" in await loop.sock_recv(second, 4096)
    await loop.sock_sendall(second, HI)
    assert (await task).body == b"hi"
    second.close()
    raw.close()


class _RefusingTransport:
    """Stands before a real transport as a socket whose peer has reset it: the first write fails."""

    def __init__(self, real: asyncio.Transport) -> None:
        self.real = real
        self.refused = False

    def is_closing(self) -> bool:
        return self.refused

    def write(self, data: bytes) -> None:
        self.refused = True

    def abort(self) -> None:
        self.real.abort()


@pytest.mark.parametrize("safe", [True, False])
async def test_a_refused_first_write_is_repeated_once_if_the_call_is_safe(
    client: UpstreamClient, safe: bool
) -> None:
    async with nasty_upstream(answering(HI)) as agent:
        origin = origin_of(agent)
        await get(client, agent, origin)
        (stale,) = idle_of(client)
        stale.transport = _RefusingTransport(stale.transport)  # type: ignore[assignment]
        if safe:
            assert (await get(client, agent, origin)).body == b"hi"
        else:
            with pytest.raises(UpstreamBroken) as caught:
                await post(client, agent, b"{}", origin)
            assert not caught.value.sent
        assert stale.closed
        assert len(agent.requests) == (2 if safe else 1)


async def test_waiters_are_bounded_in_time(client: UpstreamClient) -> None:
    async with nasty_upstream(speaking(b"")) as agent:
        origin = origin_of(agent, connections_max=1)
        running = asyncio.create_task(get(client, agent, origin))
        await agent.arrived.wait()
        with pytest.raises(UpstreamTimeout) as caught:
            await get(client, agent, origin_of(agent, connections_max=1, total=60))
        assert caught.value.phase == "pool"
        assert not caught.value.sent
        running.cancel()


async def test_waiters_are_bounded_in_number(
    client: UpstreamClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "WAITERS_MAX", 2)
    async with nasty_upstream(speaking(b"")) as agent:
        origin = origin_of(agent, connections_max=1)
        running = [asyncio.create_task(get(client, agent, origin)) for _ in range(3)]
        await agent.arrived.wait()
        with pytest.raises(UpstreamTimeout) as caught:
            await asyncio.wait_for(get(client, agent, origin), 5)  # at once, not when time is up
        assert caught.value.phase == "pool"
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await eventually(lambda: waiting_in(client) == 0)


async def test_a_failed_call_gives_its_place_to_the_next_waiter(client: UpstreamClient) -> None:
    async with nasty_upstream(speaking(b"garbage\r\n", then_close=True), answering(HI)) as agent:
        origin = origin_of(agent, connections_max=1)
        outcomes = await asyncio.gather(
            *(get(client, agent, origin) for _ in range(5)), return_exceptions=True
        )
        assert [type(each).__name__ for each in outcomes] == ["UpstreamBroken", *["Answer"] * 4]


@pytest.mark.parametrize("first", [HI, b"garbage\r\n"])
async def test_who_is_cancelled_while_getting_a_connection_or_a_place_passes_it_on(
    client: UpstreamClient, first: bytes
) -> None:
    async with nasty_upstream(speaking(b""), answering(HI)) as agent:
        origin = origin_of(agent, connections_max=1, total=5000)
        running = asyncio.create_task(get(client, agent, origin))
        await agent.arrived.wait()
        waiting = asyncio.create_task(get(client, agent, origin))
        await eventually(lambda: waiting_in(client) == 1)
        connections_of(client)[0].data_received(first)  # frees it, or its place, for `waiting`
        waiting.cancel()
        outcomes = await asyncio.gather(running, waiting, return_exceptions=True)
        assert isinstance(outcomes[1], asyncio.CancelledError)
        assert waiting_in(client) == 0
        for connection in idle_of(client):
            connection.close()  # its script would not answer
        assert (await get(client, agent, origin)).body == b"hi"


async def test_a_connection_that_dies_while_it_is_handed_over_is_replaced(
    client: UpstreamClient,
) -> None:
    async with nasty_upstream(speaking(b""), answering(HI)) as agent:
        origin = origin_of(agent, connections_max=1)
        running = asyncio.create_task(get(client, agent, origin))
        await agent.arrived.wait()
        waiting = asyncio.create_task(get(client, agent, origin))
        await eventually(lambda: waiting_in(client) == 1)
        (connection,) = connections_of(client)
        connection.data_received(HI)  # now it belongs to `waiting`, which has not run yet
        connection.eof_received()
        assert [each.body for each in await asyncio.gather(running, waiting)] == [b"hi", b"hi"]
        assert agent.connections == 2


async def test_a_connection_that_dies_before_its_first_call_takes_no_place(
    client: UpstreamClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def dial_and_lose(*arguments: object) -> Connection:
        connection = await dial(*arguments)  # type: ignore[arg-type]
        connection.eof_received()
        return connection  # type: ignore[return-value]

    dial = pool.dial
    async with nasty_upstream(answering(HI)) as agent:
        origin = origin_of(agent, connections_max=1)
        monkeypatch.setattr(pool, "dial", dial_and_lose)
        with pytest.raises(UpstreamBroken) as caught:
            await get(client, agent, origin)
        assert not caught.value.sent
        monkeypatch.undo()
        assert (await get(client, agent, origin)).body == b"hi"


async def test_a_refused_port_is_unreachable_for_every_waiter(client: UpstreamClient) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    origin, _ = Origin.parse(f"http://127.0.0.1:{port}", connections_max=2)
    outcomes = await asyncio.gather(
        *(get(client, Agent("", port), origin) for _ in range(10)), return_exceptions=True
    )
    assert all(isinstance(each, UpstreamUnreachable) and not each.sent for each in outcomes)
    assert not connections_of(client)
    assert not waiting_in(client)


async def test_a_server_that_closes_at_once_is_broken_not_sent_to_twice(
    client: UpstreamClient,
) -> None:
    async def script(talk: Conversation) -> None:
        talk.reset()

    async with nasty_upstream(script) as agent:
        for _ in range(5):
            with pytest.raises(UpstreamBroken):
                await get(client, agent, origin_of(agent, connections_max=1))
        assert agent.connections == 5


async def test_closing_the_client_ends_what_runs_and_what_waits() -> None:
    async with nasty_upstream(speaking(b"")) as agent:
        client = UpstreamClient()
        origin = origin_of(agent, connections_max=1)
        tasks = [asyncio.create_task(get(client, agent, origin)) for _ in range(2)]
        await agent.arrived.wait()
        await client.close()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(each, UpstreamBroken) for each in outcomes)
        with pytest.raises(RuntimeError):
            await get(client, agent, origin)
        await eventually(lambda: agent.open == 0)
