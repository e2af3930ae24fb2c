"""Two workers on one Redis: what one holds, the other can't spend, from the first call on."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import aiohttp

from gateway.app import WorkerSettings, run_worker
from gateway.config import GatewayConfig
from gateway.ledger import Ledger
from gateway.operations.audit import audit
from tests.support.gateway import CREDIT, PEPPER, open_route, running_gateway
from tests.support.nasty_upstream import nasty_upstream

if TYPE_CHECKING:
    import pytest

    from tests.support.nasty_upstream import Conversation

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
BALANCE = 20
CALLS = 200


async def test_a_cold_start_of_two_workers_oversells_nothing(
    clean_redis_url: str, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both find the shard empty; while one opens it, slowly, calls come to the other."""
    epochs: list[int] = []
    next_epoch = Ledger.next_epoch

    async def slow_next_epoch(ledger: Ledger, shard: int) -> int:
        epochs.append(await next_epoch(ledger, shard))
        await asyncio.sleep(0.2)
        return epochs[-1]

    monkeypatch.setattr(Ledger, "next_epoch", slow_next_epoch)

    async def slow(talk: Conversation) -> None:
        while True:
            await talk.request()
            await asyncio.sleep(0.05)
            await talk.send(OK)

    settings = WorkerSettings(
        GatewayConfig(redis_url=clean_redis_url, postgres_url=postgres_url), PEPPER
    )
    async with (
        nasty_upstream(slow) as agent,
        running_gateway(
            clean_redis_url, postgres_url, [open_route(agent.url)], microcredits=BALANCE * CREDIT
        ) as gateway,
        run_worker(settings) as other,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
    ):
        listening = await asyncio.get_running_loop().create_server(other.server, "127.0.0.1", 0)
        ports = (gateway.port, listening.sockets[0].getsockname()[1])

        async def call(port: int) -> int:
            url = f"http://127.0.0.1:{port}/any/x"
            async with session.get(url, headers=gateway.authorization) as answer:
                body = await answer.read()
                assert answer.status in {200, 402}, json.loads(body)
                return answer.status

        statuses = await asyncio.gather(*(call(ports[i % 2]) for i in range(CALLS)))
        listening.close()
        assert epochs == [1]
        assert statuses.count(200) == BALANCE
        assert len(agent.requests) == BALANCE
        assert len(await gateway.settlements(BALANCE)) == BALANCE
        report = await audit(gateway.ledger, gateway.counters)
        assert report.findings == []
