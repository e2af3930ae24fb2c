"""What `sending` stands for: its last word comes before the first byte, and a no sends nothing."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from gateway.upstream import CancelledUnsentError, UpstreamClient
from tests.support.nasty_upstream import Conversation, answering, nasty_upstream
from tests.support.upstream_calls import HI, connections_of, get, idle_of, origin_of
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gateway.upstream import Answer
    from tests.support.nasty_upstream import Agent

HEAD = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


async def send(
    client: UpstreamClient, agent: Agent, sending: Callable[[], Awaitable[None]]
) -> Answer:
    return await client.send(origin_of(agent), HEAD, method=b"GET", safe=True, sending=sending)


async def test_it_is_asked_once_with_a_connection_and_before_the_first_byte(
    client: UpstreamClient,
) -> None:
    seen: list[tuple[int, int]] = []

    async with nasty_upstream(answering(HI)) as agent:

        async def sending() -> None:
            await asyncio.sleep(0.01)
            seen.append((len(connections_of(client)), len(agent.requests)))

        assert (await send(client, agent, sending)).body == b"hi"
        assert (await send(client, agent, sending)).body == b"hi"
        assert seen == [(1, 0), (1, 1)]
        assert agent.connections == 1


async def test_its_no_sends_nothing_and_leaves_the_connection_for_others(
    client: UpstreamClient,
) -> None:
    async def refuse() -> None:
        raise LookupError("no")

    async with nasty_upstream(answering(HI)) as agent:
        with pytest.raises(LookupError):
            await send(client, agent, refuse)
        assert agent.requests == []
        assert len(idle_of(client)) == 1
        assert (await get(client, agent)).body == b"hi"
        assert agent.connections == 1


async def test_a_cancellation_meanwhile_is_one_of_a_call_that_was_not_sent(
    client: UpstreamClient,
) -> None:
    asked = asyncio.Event()

    async def wait() -> None:
        asked.set()
        await asyncio.Event().wait()

    async with nasty_upstream(answering(HI)) as agent:
        task = asyncio.create_task(send(client, agent, wait))
        await asked.wait()
        task.cancel()
        with pytest.raises(CancelledUnsentError):
            await task
        assert agent.requests == []
        assert len(idle_of(client)) == len(connections_of(client)) == 1


async def test_a_connection_that_dies_meanwhile_is_replaced_without_asking_again(
    client: UpstreamClient,
) -> None:
    close = asyncio.Event()
    asked = 0

    async def closing(talk: Conversation) -> None:
        await talk.request()
        await talk.send(HI)
        await close.wait()

    async with nasty_upstream(closing, answering(HI)) as agent:
        assert (await get(client, agent)).body == b"hi"
        (pooled,) = idle_of(client)

        async def sending() -> None:
            nonlocal asked
            asked += 1
            close.set()
            await eventually(lambda: pooled.closed)

        assert (await send(client, agent, sending)).body == b"hi"
        assert asked == 1
        assert (len(agent.requests), agent.connections) == (2, 2)
