"""A WebSocket goes on as long as it is paid for, to the message and to the millisecond."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from websockets.frames import Close, Opcode

from gateway.counters import Counters, CountersUnavailable
from gateway.ledger.periods import AccountChange
from gateway.operations.accounts import change_account
from gateway.proxy import websocket_cover
from policies.catalog import Caps, Price
from tests.support.conversations import (
    PER_CALL,
    PER_MESSAGE,
    PER_SECOND,
    SOON,
    closed,
    talk,
    talk_route,
    talking_agent,
)
from tests.support.gateway import CREDIT, running_gateway
from tests.support.waiting import DEADLINE_S, eventually

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from websockets.asyncio.server import ServerConnection

    from tests.support.gateway import Gateway

TEXT = Opcode.TEXT


async def test_credits_that_are_gone_end_it_at_the_message_that_they_do_not_pay_for(
    clean_redis_url: str, postgres_url: str
) -> None:
    heard: list[str | bytes] = []

    async def handle(connection: ServerConnection) -> None:
        async for message in connection:
            heard.append(message)
            await connection.send(message)

    async with (
        asyncio.timeout(DEADLINE_S),
        talking_agent(handle) as agent,
        running_gateway(
            clean_redis_url,
            postgres_url,
            [talk_route(agent.url, price=PER_MESSAGE)],
            microcredits=5 * CREDIT + CREDIT // 10,
        ) as gateway,
        talk(gateway) as client,
    ):
        for number in range(6):
            await client.send(str(number))
        close = await closed(client)
        assert close == Close(1008, "insufficient_credits: needs 1, has 0.1")
        row = await gateway.settlement()
        assert (row.ending, row.units) == ("exhausted", "websocket_messages_in=5")
        assert row.charged_microcredits == 5 * CREDIT
        assert await gateway.balance() == (CREDIT // 10, 0)
        await agent.ended.wait()
        assert heard == ["0", "1", "2", "3", "4"]
        assert agent.closes == [(1001, "")]


async def test_credits_that_are_gone_end_it_when_the_time_they_pay_for_is_over(
    clean_redis_url: str, postgres_url: str
) -> None:
    async with (
        asyncio.timeout(DEADLINE_S),
        talking_agent() as agent,
        running_gateway(
            clean_redis_url,
            postgres_url,
            [talk_route(agent.url, price=PER_SECOND, websocket=SOON)],
            microcredits=CREDIT // 4,
        ) as gateway,
        talk(gateway) as client,
    ):
        close = await closed(client)
        assert close is not None
        assert close.code == 1008
        assert close.reason.startswith("insufficient_credits: needs 0.0")  # ms, as late as it was
        assert close.reason.endswith(", has 0")
        row = await gateway.settlement()
        assert (row.ending, row.units) == ("exhausted", "duration_ms=250")
        assert row.charged_microcredits == CREDIT // 4
        assert await gateway.balance() == (0, 0)
        await agent.ended.wait()
        assert agent.closes == [(1001, "")]


async def test_what_is_held_grows_with_what_is_used_and_never_the_other_way_round(
    clean_redis_url: str, postgres_url: str
) -> None:
    price = Price(meters=(*PER_MESSAGE.meters, *PER_SECOND.meters))
    async with (
        asyncio.timeout(DEADLINE_S),
        talking_agent() as agent,
        running_gateway(
            clean_redis_url, postgres_url, [talk_route(agent.url, price=price, websocket=SOON)]
        ) as gateway,
    ):
        async with talk(gateway) as client:
            [call] = gateway.worker._proxy._calls.values()
            for _ in range(40):
                await client.send("hello")
                await client.recv()
                await asyncio.sleep(0.005)

            async def the_same() -> bool:
                """It goes on being raised, so Redis is asked until nothing came between."""
                [(text, _)] = await gateway.holds()
                told = (text.held, text.allocation)
                return told == (call.hold.held, call.hold.admitted.allocation)

            await eventually(the_same)
            assert 40 * CREDIT <= call.hold.held <= 100 * CREDIT
        row = await gateway.settlement()
        messages, duration = (int(part.partition("=")[2]) for part in row.units.split(";"))
        assert messages == 40
        assert row.charged_microcredits == 40 * CREDIT + duration * CREDIT // 1_000
        assert row.held_microcredits >= row.charged_microcredits
        assert await gateway.balance() == (100 * CREDIT - row.charged_microcredits, 0)


async def revoke(gateway: Gateway) -> None:
    keys = gateway.counters.keys(gateway.account.account_id)
    await gateway.counters.amend(keys, {f"k:{gateway.key.key_id}": "-1"})


async def suspend(gateway: Gateway) -> None:
    await change_account(
        gateway.ledger, gateway.counters, gateway.account, AccountChange(status="suspended")
    )


@pytest.mark.parametrize(
    ("act", "reason"), [(revoke, "key_revoked"), (suspend, "account_suspended")]
)
async def test_who_may_not_call_any_more_is_told_within_an_interval(
    clean_redis_url: str,
    postgres_url: str,
    act: Callable[[Gateway], Awaitable[None]],
    reason: str,
) -> None:
    async with (
        asyncio.timeout(DEADLINE_S),
        talking_agent() as agent,
        running_gateway(
            clean_redis_url,
            postgres_url,
            [talk_route(agent.url, price=PER_CALL, websocket=SOON)],
        ) as gateway,
        talk(gateway) as client,
    ):
        await client.send("hello")
        assert await client.recv() == "hello"
        await act(gateway)
        assert await closed(client) == Close(1008, reason)
        row = await gateway.settlement()
        assert (row.ending, row.charged_microcredits) == ("exhausted", CREDIT)
        await agent.ended.wait()
        assert agent.closes == [(1001, "")]


async def test_a_cap_ends_it_as_credits_do(clean_redis_url: str, postgres_url: str) -> None:
    async with (
        asyncio.timeout(DEADLINE_S),
        talking_agent() as agent,
        running_gateway(
            clean_redis_url,
            postgres_url,
            [talk_route(agent.url, price=PER_MESSAGE, caps=Caps(day=3 * CREDIT))],
        ) as gateway,
        talk(gateway) as client,
    ):
        for _ in range(4):
            await client.send("hello")
        close = await closed(client)
        assert close == Close(1008, "spend_cap_reached: the cap is 3 (route, day)")
        assert (await gateway.settlement()).charged_microcredits == 3 * CREDIT


async def test_the_callers_own_bound_ends_it_before_it_costs_more(
    clean_redis_url: str, postgres_url: str
) -> None:
    async with (
        asyncio.timeout(DEADLINE_S),
        talking_agent() as agent,
        running_gateway(
            clean_redis_url, postgres_url, [talk_route(agent.url, price=PER_MESSAGE)]
        ) as gateway,
        talk(gateway, headers={"X-Max-Credits": "3.5"}) as client,
    ):
        for _ in range(4):
            await client.send("hello")
        close = await closed(client)
        assert close == Close(1008, "spend_cap_reached: your X-Max-Credits is 3.5")
        row = await gateway.settlement()
        assert (row.ending, row.charged_microcredits) == ("exhausted", 3 * CREDIT)


async def test_while_redis_is_away_what_is_held_is_used_and_then_it_ends(
    clean_redis_url: str, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(websocket_cover, "RETRY_S", 0.01)
    monkeypatch.setattr(websocket_cover, "REDIS_WAIT_S", 0.1)

    async def away(*_: object) -> None:
        raise CountersUnavailable("planted")

    async with (
        asyncio.timeout(DEADLINE_S),
        talking_agent() as agent,
        running_gateway(
            clean_redis_url,
            postgres_url,
            [talk_route(agent.url, price=PER_MESSAGE, websocket=SOON)],
        ) as gateway,
        talk(gateway) as client,
    ):
        monkeypatch.setattr(Counters, "raise_hold", away)
        for _ in range(3):
            await client.send("hello")
        assert await closed(client) == Close(1013, "temporarily_unavailable")
        row = await gateway.settlement()
        assert (row.ending, row.charged_microcredits) == ("completed", 2 * CREDIT)
        assert agent.closes == [(1001, "")]


async def test_one_that_outlives_its_hold_is_closed_and_settles_once(
    clean_redis_url: str, postgres_url: str
) -> None:
    async with (
        asyncio.timeout(DEADLINE_S),
        talking_agent() as agent,
        running_gateway(
            clean_redis_url,
            postgres_url,
            [talk_route(agent.url, price=PER_CALL, websocket=replace(SOON, check_ms=300))],
        ) as gateway,
        talk(gateway) as client,
    ):
        keys = gateway.counters.keys(gateway.account.account_id)
        [call_id] = gateway.worker._proxy._calls
        await gateway.counters.command("ZADD", keys.state.leases, 3, call_id)
        assert await gateway.reap() == 1
        assert await closed(client) == Close(1013, "temporarily_unavailable")
        [row] = await gateway.settled_late()
        assert (row.ending, row.charged_microcredits) == ("unknown", CREDIT)


async def test_its_lease_is_renewed_with_what_it_would_cost_by_now(
    clean_redis_url: str, postgres_url: str
) -> None:
    async with (
        asyncio.timeout(DEADLINE_S),
        talking_agent() as agent,
        running_gateway(
            clean_redis_url, postgres_url, [talk_route(agent.url, price=PER_MESSAGE)], lease_s=1
        ) as gateway,
        talk(gateway) as client,
    ):
        for _ in range(5):
            await client.send("hello")
            await client.recv()

        async def renewed() -> bool:
            [(text, stage)] = await gateway.holds()
            return (stage, text.due, text.units) == (1, 5 * CREDIT, "websocket_messages_in=5")

        await eventually(renewed)
        [(text, _)] = await gateway.holds()
        assert text.held == 6 * CREDIT  # three when the hold was first raised, and as many again
