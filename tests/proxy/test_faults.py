"""Redis away, slow or cut: no call without a hold, no settlement lost, none doubled."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest

from gateway.operations.audit import audit
from tests.support.faulty_redis import FaultyWire, OwnRedis
from tests.support.gateway import CREDIT, open_route, running_gateway
from tests.support.nasty_upstream import answering, nasty_upstream
from tests.support.postgres_gate import postgres_gate
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


@pytest.mark.parametrize("back_first", ["redis", "postgres"])
async def test_a_call_that_outlives_both_is_answered_and_settled_once_when_they_are_back(
    postgres_url: str, back_first: str
) -> None:
    gate = Gate()
    async with (
        OwnRedis() as redis,
        postgres_gate(postgres_url) as (postgres, through),
        nasty_upstream(gate) as agent,
        running_gateway(redis.url, through, [open_route(agent.url)]) as gateway,
    ):
        running = asyncio.create_task(gateway.call("/any/x"))
        await agent.arrived.wait()
        redis.kill()
        postgres.shut()
        gate.go_on.set()
        reply = await running
        assert (reply.status, reply.headers["X-Credits-Charged"]) == (200, "1")
        calls = gateway.worker._proxy._calls
        assert list(calls) == [reply.request_id]
        if back_first == "redis":
            await redis.start()  # as a new run, which is not used before Postgres has filled it
            postgres.open()
            await eventually(lambda: calls == {})
        else:
            postgres.open()
            await eventually(lambda: calls == {})
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


async def test_a_redis_that_is_frozen_while_a_call_ends_keeps_its_client_only_for_the_deadline(
    postgres_url: str,
) -> None:
    gate = Gate()
    async with (
        OwnRedis() as redis,
        nasty_upstream(gate) as agent,
        running_gateway(redis.url, postgres_url, [open_route(agent.url)]) as gateway,
    ):
        running = asyncio.create_task(gateway.call("/any/x"))
        await agent.arrived.wait()
        redis.stop()
        gate.go_on.set()
        assert (await running).status == 200
        assert len(await gateway.late_settlements()) == 1
        redis.resume()
        # The settle that was given up runs after all, when Redis goes on: once is once.
        assert len(await gateway.settled_late()) == 1
        assert await gateway.balance() == (99 * CREDIT, 0)


async def test_while_postgres_is_away_calls_are_served_and_written_when_it_is_back(
    clean_redis_url: str, postgres_url: str
) -> None:
    async with (
        postgres_gate(postgres_url) as (postgres, through),
        nasty_upstream(answering(OK)) as agent,
        running_gateway(
            clean_redis_url, through, [open_route(agent.url)], backlog_rows_max=10
        ) as gateway,
    ):
        assert (await gateway.call("/any/x")).status == 200
        postgres.shut()
        statuses = [(await gateway.call("/any/x")).status for _ in range(14)]
        # At its bound it takes no more; what it took is safe.
        assert statuses[:9] == [200] * 9
        assert statuses[-1] == 503
        postgres.open()
        assert len(await gateway.settlements(statuses.count(200) + 1)) == statuses.count(200) + 1

        async def served() -> bool:
            return (await gateway.call("/any/x")).status == 200

        await eventually(served)


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
