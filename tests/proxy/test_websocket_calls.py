"""A WebSocket through the gateway: what passes, how it ends, and what it costs."""

from __future__ import annotations

import asyncio

from tests.support.conversations import talk, talk_route, talking_agent
from tests.support.gateway import CREDIT, running_gateway

DEADLINE_S = 20


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
