"""Discounts and price versions take effect between two calls, never inside one."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import orjson
import pytest

from gateway.ledger.periods import AccountChange
from gateway.operations.accounts import change_account
from policies.catalog import MeterSpec, OnMissing, Platform, Price, Source
from tests.support.gateway import CHAT_PRICE, CREDIT, chat_route, running_gateway
from tests.support.nasty_upstream import nasty_upstream
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from tests.support.gateway import Gateway
    from tests.support.nasty_upstream import Conversation


class Agent:
    """Uses 30 tokens a call, and waits for `go` before it answers."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.go.set()
        self.asked = 0
        self.answer: dict[str, object] = {"usage": {"total_tokens": 30}}

    async def __call__(self, talk: Conversation) -> None:
        while True:
            await talk.request()
            self.asked += 1
            await self.go.wait()
            body = orjson.dumps(self.answer)
            await talk.send(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
            )


async def give(gateway: Gateway, basis_points: int | None) -> None:
    change = AccountChange(discount_basis_points=basis_points)
    await change_account(gateway.ledger, gateway.counters, gateway.account, change)


async def charged(gateway: Gateway) -> str:
    return str((await gateway.call()).headers["X-Credits-Charged"])


async def test_a_discount_counts_from_the_next_call_on(
    clean_redis_url: str, postgres_url: str
) -> None:
    async with (
        nasty_upstream(Agent()) as upstream,
        running_gateway(clean_redis_url, postgres_url, [chat_route(upstream.url)]) as gateway,
    ):
        assert await charged(gateway) == "0.13"
        for basis_points, cost in ((1_500, "0.1105"), (10_000, "0"), (0, "0.13"), (1, "0.129987")):
            await give(gateway, basis_points)
            assert await charged(gateway) == cost
        held = [row.held_microcredits for row in await gateway.settlements(5)]
        assert held == [1_099_890, 1_100_000, 0, 935_000, 1_100_000]


async def test_many_calls_at_once_hear_of_a_discount_and_none_is_charged_the_old_price_after(
    clean_redis_url: str, postgres_url: str
) -> None:
    async with (
        nasty_upstream(Agent()) as upstream,
        running_gateway(clean_redis_url, postgres_url, [chat_route(upstream.url)]) as gateway,
    ):
        await charged(gateway)
        await give(gateway, 5_000)
        assert set(await asyncio.gather(*(charged(gateway) for _ in range(50)))) == {"0.065"}


async def test_a_running_call_keeps_the_terms_it_began_with(
    clean_redis_url: str, postgres_url: str
) -> None:
    agent = Agent()
    agent.go.clear()
    async with (
        nasty_upstream(agent) as upstream,
        running_gateway(clean_redis_url, postgres_url, [chat_route(upstream.url)]) as gateway,
    ):
        running = asyncio.create_task(charged(gateway))
        await eventually(lambda: agent.asked == 1)
        await give(gateway, 5_000)
        dearer = Price(per_request_microcredits=2 * CREDIT, meters=CHAT_PRICE.meters)
        await gateway.ledger.apply_catalog(
            Platform("demo"), [], [chat_route(upstream.url, price=dearer)]
        )
        await gateway.worker.load_catalogue()
        agent.go.set()
        assert await running == "0.13"
        assert await charged(gateway) == "1.015"
        after, before = await gateway.settlements(2)
        assert before.price_version < after.price_version
        assert (before.held_microcredits, after.held_microcredits) == (1_100_000, 1_500_000)


@pytest.mark.parametrize(
    ("answer", "cost", "flags"),
    [
        ({"status": "delivered"}, "5.2", ""),
        ({"status": "failed"}, "0.2", ""),
        ({"status": None}, "0.2", ""),
        ({}, "0.2", "units_missing"),
    ],
)
async def test_an_outcome_is_charged_only_where_the_answer_says_so(
    clean_redis_url: str, postgres_url: str, answer: dict[str, object], cost: str, flags: str
) -> None:
    agent = Agent()
    agent.answer = answer
    outcome = MeterSpec(
        *("outcome", (Source("response.json", "/status=delivered"),), 5 * 10**12, 1),
        on_missing=OnMissing.MINIMUM,
    )
    price = Price(per_request_microcredits=CREDIT // 5, meters=(outcome,))
    async with (
        nasty_upstream(agent) as upstream,
        running_gateway(
            clean_redis_url, postgres_url, [chat_route(upstream.url, price=price)]
        ) as gateway,
    ):
        assert await charged(gateway) == cost
        row = await gateway.settlement()
        assert (row.held_microcredits, row.flags) == (5_200_000, flags)
