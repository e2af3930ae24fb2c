"""A hold says how far its call has come, lives as long as it, and no longer than its worker."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from gateway.counters import Counters, CountersUnavailable
from gateway.operations.audit import audit
from gateway.proxy.live import LiveCalls, hold_text
from gateway.upstream.pool import Pool
from policies.decision import Admitted, ShardLost
from tests.support.gateway import CREDIT, chat_route, open_route, running_gateway
from tests.support.nasty_upstream import answering, nasty_upstream
from tests.support.waiting import eventually

if TYPE_CHECKING:
    import pytest

    from gateway.upstream.protocol import Connection
    from tests.support.gateway import Gateway
    from tests.support.nasty_upstream import Conversation

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
SSE_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
)
USAGE = b'data: {"usage": {"total_tokens": 30}}\n\n'
CHARGED = 130_000


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class Gate:
    """An agent that answers when it is told to; a stream of usage first, if it is to."""

    def __init__(self, *, stream: bool = False) -> None:
        self.go_on = asyncio.Event()
        self._stream = stream

    async def __call__(self, talk: Conversation) -> None:
        while True:
            await talk.request()
            if self._stream:
                await talk.send(SSE_HEAD, chunk(USAGE))
            await self.go_on.wait()
            await talk.send(chunk(b"") if self._stream else OK)


async def deadlines(gateway: Gateway) -> list[int]:
    keys = gateway.counters.keys(gateway.account.account_id)
    found = await gateway.counters.command("ZRANGE", keys.state.leases, 0, -1, "WITHSCORES")
    return [int(score) // 2 for score in found[1::2]]


async def renewals(gateway: Gateway, count: int) -> None:
    """Return when the only hold's lease was seen to be moved so often."""
    for _ in range(count):
        [before] = await deadlines(gateway)

        async def moved(than: int = before) -> bool:
            return (await deadlines(gateway))[0] > than

        await eventually(moved)


async def test_a_hold_is_dispatched_when_its_call_goes_out_and_not_before(
    clean_redis_url: str, postgres_url: str
) -> None:
    gate = Gate()
    async with (
        nasty_upstream(gate) as agent,
        running_gateway(
            clean_redis_url, postgres_url, [open_route(agent.url, connections_max=1)]
        ) as gateway,
    ):
        first = asyncio.create_task(gateway.call("/any/first"))
        await agent.arrived.wait()
        second = asyncio.create_task(gateway.call("/any/second"))

        async def both() -> bool:
            return len(await gateway.holds()) == 2

        await eventually(both)
        assert sorted(stage for _, stage in await gateway.holds()) == [0, 1]
        gate.go_on.set()
        assert [reply.status for reply in await asyncio.gather(first, second)] == [200, 200]
        assert await gateway.holds() == []
        assert gateway.worker._proxy._calls == {}


async def test_redis_knows_of_the_mark_before_the_agent_gets_the_first_byte(
    clean_redis_url: str, postgres_url: str
) -> None:
    stages: list[int] = []

    async def script(talk: Conversation) -> None:
        while True:
            await talk.request()
            stages.extend(stage for _, stage in await gateway.holds())
            await talk.send(OK)

    async with (
        nasty_upstream(script) as agent,
        running_gateway(clean_redis_url, postgres_url, [open_route(agent.url)]) as gateway,
    ):
        for _ in range(20):
            assert (await gateway.call("/any/x")).status == 200
        assert stages == [1] * 20


async def test_a_call_lives_longer_than_its_lease(clean_redis_url: str, postgres_url: str) -> None:
    gate = Gate()
    async with (
        nasty_upstream(gate) as agent,
        running_gateway(
            clean_redis_url, postgres_url, [open_route(agent.url)], lease_s=1
        ) as gateway,
    ):
        running = asyncio.create_task(gateway.call("/any/x"))
        await agent.arrived.wait()
        [first] = await deadlines(gateway)
        await renewals(gateway, 5)

        async def over() -> bool:
            seconds, _ = await gateway.counters.command("TIME")
            return int(seconds) * 1000 > first

        await eventually(over)
        assert await gateway.reap() == 0
        gate.go_on.set()
        reply = await running
        assert (reply.status, reply.headers["X-Credits-Charged"]) == (200, "1")
        row = await gateway.settlement()
        assert (row.ending, row.flags) == ("completed", "")


async def test_the_renewal_of_a_metered_stream_says_what_it_would_cost(
    clean_redis_url: str, postgres_url: str
) -> None:
    gate = Gate(stream=True)
    async with (
        nasty_upstream(gate) as agent,
        running_gateway(
            clean_redis_url, postgres_url, [chat_route(agent.url)], lease_s=1
        ) as gateway,
    ):
        running = asyncio.create_task(gateway.call())
        await agent.arrived.wait()
        [(hold, stage)] = await gateway.holds()
        assert (hold.held, hold.due, hold.units, stage) == (1_100_000, 100_000, "", 1)

        async def checkpoint() -> bool:
            [(hold, _)] = await gateway.holds()
            return (hold.due, hold.units) == (CHARGED, "token=30")

        await eventually(checkpoint)
        # What a rebuilt shard would be told is what the shard has.
        [call] = gateway.worker._proxy._calls.values()
        [(hold, _)] = await gateway.holds()
        assert hold_text(call) == str(hold)
        gate.go_on.set()
        assert (await running).body.endswith(b": credits-charged=0.13 credits-remaining=99.87\n\n")


async def _no_renewal(_self: object) -> None:
    """As of a worker that is stopped, or cut off."""


async def test_a_call_that_outlives_its_hold_is_corrected_to_what_it_really_cost(
    clean_redis_url: str, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(stream=True)
    async with (
        nasty_upstream(gate) as agent,
        running_gateway(
            clean_redis_url, postgres_url, [chat_route(agent.url)], lease_s=1
        ) as gateway,
    ):
        with monkeypatch.context() as patch:
            patch.setattr(LiveCalls, "renew", _no_renewal)
            running = asyncio.create_task(gateway.call())
            await eventually(gateway.reap)
            [expired] = await gateway.settlements(1)
            assert (expired.ending, expired.flags) == ("unknown", "expired")
            assert expired.charged_microcredits == 100_000
            gate.go_on.set()
            reply = await running
        assert reply.body.endswith(b": credits-charged=0.13\n\n")
        [late] = await gateway.late_settlements()
        assert (late.ending, late.owed_microcredits) == ("completed", CHARGED)
        assert len(await gateway.settled_late()) == 1
        assert await gateway.balance() == (100 * CREDIT - CHARGED, 0)
        assert gateway.worker._proxy._calls == {}
        report = await audit(gateway.ledger, gateway.counters)
        assert report.findings == []


async def test_a_hold_that_ran_out_before_its_call_was_sent_on_costs_nothing_and_sends_nothing(
    clean_redis_url: str, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its worker had renewed it, then was stopped for long while it waited for a connection."""
    waiting, go_on = asyncio.Event(), asyncio.Event()
    acquire = Pool.acquire

    async def slow_acquire(self: Pool, *args: Any) -> Connection:
        waiting.set()
        await go_on.wait()
        return await acquire(self, *args)

    monkeypatch.setattr(Pool, "acquire", slow_acquire)
    async with (
        nasty_upstream(answering(OK)) as agent,
        running_gateway(
            clean_redis_url, postgres_url, [open_route(agent.url)], lease_s=1
        ) as gateway,
    ):
        running = asyncio.create_task(gateway.call("/any/x"))
        await waiting.wait()
        await renewals(gateway, 2)
        with monkeypatch.context() as patch:
            patch.setattr(LiveCalls, "renew", _no_renewal)
            await eventually(gateway.reap)
            go_on.set()
            assert (await running).status == 503
        assert agent.requests == []
        assert await gateway.balance() == (100 * CREDIT, 0)
        await eventually(lambda: gateway.worker._proxy._calls == {})
        assert await gateway.ledger.settlements(gateway.account.account_id, limit=9) == []


async def test_a_renewed_call_is_still_marked_when_it_goes_out(
    clean_redis_url: str, postgres_url: str
) -> None:
    go_on = asyncio.Event()
    stages: list[int] = []

    async def script(talk: Conversation) -> None:
        while True:
            if b"/first" in (await talk.request()).head:
                await go_on.wait()
            else:
                stages.extend(stage for _, stage in await gateway.holds())
            await talk.send(OK)

    async with (
        nasty_upstream(script) as agent,
        running_gateway(
            clean_redis_url, postgres_url, [open_route(agent.url, connections_max=1)], lease_s=1
        ) as gateway,
    ):
        first = asyncio.create_task(gateway.call("/any/first"))
        await agent.arrived.wait()
        calls = gateway.worker._proxy._calls
        second = asyncio.create_task(gateway.call("/any/second"))
        await eventually(
            lambda: len(calls) == 2 and all(call.rounds > 2 for call in calls.values())
        )
        go_on.set()
        assert [reply.status for reply in await asyncio.gather(first, second)] == [200, 200]
        assert stages == [1]


async def test_a_call_whose_hold_was_there_when_it_was_admitted_again_is_marked(
    clean_redis_url: str, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first answer was lost with the shard, whose rebuild gave the hold a later lease."""
    stages: list[int] = []
    admit = Counters.admit

    async def script(talk: Conversation) -> None:
        while True:
            await talk.request()
            stages.extend(stage for _, stage in await gateway.holds())
            await talk.send(OK)

    async def lost_once(counters: Counters, keys: Any, call_id: str, *rest: Any) -> Any:
        decision = await admit(counters, keys, call_id, *rest)
        if not isinstance(decision, Admitted):
            return decision
        monkeypatch.undo()
        await asyncio.sleep(0.005)  # whole milliseconds count
        await counters.extend(keys.shard, 30_000, [(call_id, 0, None, "")])
        return ShardLost("STALE", decision.epoch, 0)

    async with (
        nasty_upstream(script) as agent,
        running_gateway(clean_redis_url, postgres_url, [open_route(agent.url)]) as gateway,
    ):
        monkeypatch.setattr(Counters, "admit", lost_once)
        assert (await gateway.call("/any/x")).status == 200
        assert stages == [1]


async def test_a_call_that_can_not_be_marked_is_not_sent_and_its_hold_goes(
    clean_redis_url: str, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise CountersUnavailable("planted")

    async with (
        nasty_upstream(answering(OK)) as agent,
        running_gateway(clean_redis_url, postgres_url, [open_route(agent.url)]) as gateway,
    ):
        with monkeypatch.context() as patch:
            patch.setattr(Counters, "dispatched", away)
            patch.setattr(Counters, "extend", away)
            reply = await gateway.call("/any/x")
        assert reply.status == 503
        assert "Retry-After" in reply.headers
        assert agent.requests == []

        async def free() -> bool:
            return await gateway.balance() == (100 * CREDIT, 0)

        await eventually(free)
        await eventually(lambda: gateway.worker._proxy._calls == {})
        # The connection that was made for it serves the next.
        assert (await gateway.call("/any/x")).status == 200
        assert agent.connections == 1


async def test_a_settlement_that_fails_in_the_gateway_leaves_its_hold_to_the_lease(
    clean_redis_url: str, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError("planted")

    async with (
        nasty_upstream(answering(OK)) as agent,
        running_gateway(
            clean_redis_url, postgres_url, [open_route(agent.url)], lease_s=1
        ) as gateway,
    ):
        with monkeypatch.context() as patch:
            patch.setattr(Counters, "settle", broken)
            assert (await gateway.call("/any/x")).status == 500
        assert gateway.worker._proxy._calls == {}
        await eventually(gateway.reap)
        row = await gateway.settlement()
        assert (row.ending, row.flags, row.charged_microcredits) == ("unknown", "expired", CREDIT)
