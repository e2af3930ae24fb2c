"""Redis away, slow or cut: no call without a hold, no settlement lost, none doubled."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

from gateway.operations.audit import audit
from tests.support.faulty_redis import FaultyWire, OwnRedis
from tests.support.gateway import CREDIT, open_route, running_gateway
from tests.support.nasty_upstream import answering, nasty_upstream
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from tests.support.gateway import Gateway
    from tests.support.nasty_upstream import Conversation

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Gate:
    """An agent that answers when it is told to."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()

    async def __call__(self, talk: Conversation) -> None:
        while True:
            await talk.request()
            await self.go_on.wait()
            await talk.send(OK)


async def test_without_redis_nobody_is_called(postgres_url: str) -> None:
    async with (
        OwnRedis() as redis,
        nasty_upstream(answering(OK)) as agent,
        running_gateway(redis.url, postgres_url, [open_route(agent.url)]) as gateway,
    ):
        assert (await gateway.call("/any/x")).status == 200
        redis.stop()
        reply = await gateway.call("/any/x")
        assert (reply.status, json.loads(reply.body)["code"]) == (503, "temporarily_unavailable")
        assert "Retry-After" in reply.headers
        assert len(agent.requests) == 1
        redis.resume()

        async def served() -> bool:
            return (await gateway.call("/any/x")).status == 200

        await eventually(served)
        await _nothing_held(gateway)
        report = await audit(gateway.ledger, gateway.counters)
        assert report.findings == []


async def test_a_call_that_outlives_redis_is_answered_and_in_postgres(postgres_url: str) -> None:
    gate = Gate()
    async with (
        OwnRedis() as redis,
        nasty_upstream(gate) as agent,
        running_gateway(redis.url, postgres_url, [open_route(agent.url)]) as gateway,
    ):
        running = asyncio.create_task(gateway.call("/any/x"))
        await agent.arrived.wait()
        redis.kill()
        gate.go_on.set()
        reply = await running
        assert (reply.status, reply.headers["X-Credits-Charged"]) == (200, "1")
        assert "X-Credits-Remaining" not in reply.headers
        [late] = await gateway.late_settlements()
        assert (late.call_id, late.owed_microcredits) == (reply.request_id, CREDIT)
        assert (late.ending, late.flags) == ("completed", "")
        await redis.start()
        [row] = await gateway.settled_late()
        assert (row.call_id, row.ending, row.charged_microcredits) == (
            reply.request_id,
            "completed",
            CREDIT,
        )
        assert await gateway.balance() == (99 * CREDIT, 0)
        report = await audit(gateway.ledger, gateway.counters)
        assert report.findings == []


async def test_a_lost_reply_charges_once(postgres_url: str) -> None:
    async with (
        OwnRedis() as redis,
        FaultyWire(redis.path) as wire,
        nasty_upstream(answering(OK)) as agent,
        running_gateway(wire.url, postgres_url, [open_route(agent.url)]) as gateway,
    ):
        assert (await gateway.call("/any/x")).status == 200
        for lost in (b"context", b"completed"):
            wire.lose_reply_to, wire.losses = (b",1,1" if lost == b"context" else lost), 1
            assert (await gateway.call("/any/x")).status == 200
        assert sum(row.charged_microcredits for row in await gateway.settlements(3)) == 3 * CREDIT
        assert len(agent.requests) == 3
        await _nothing_held(gateway)
        assert (await gateway.balance())[0] == 97 * CREDIT


async def test_an_emptied_redis_is_noticed_and_read_from_postgres_again(postgres_url: str) -> None:
    async with (
        OwnRedis() as redis,
        nasty_upstream(answering(OK)) as agent,
        running_gateway(
            redis.url, postgres_url, [open_route(agent.url)], microcredits=3 * CREDIT
        ) as gateway,
    ):
        for _ in range(2):
            assert (await gateway.call("/any/x")).status == 200
        await gateway.settlements(2)
        await redis.client.flushall()
        assert (await gateway.call("/any/x")).status == 200
        assert (await gateway.call("/any/x")).status == 402
        assert len(agent.requests) == 3


async def _nothing_held(gateway: Gateway) -> None:
    async def none() -> bool:
        return (await gateway.balance())[1] == 0

    await eventually(none)
