"""What happens between the writes of a task's hold: losses, deaths, and calls that cross.

An agent that answers what it is told to; `tests/sdk` has the real one.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from gateway.app import WorkerSettings, run_worker
from gateway.config import GatewayConfig
from gateway.counters import Counters, CountersUnavailable
from gateway.ledger import Ledger, LedgerUnavailable
from gateway.operations.audit import audit
from policies.catalog import DEFAULT_RULES, Ending, ErrorStyle, Platform, Protocol, Route, Rule
from tests.support.gateway import CREDIT, CREDIT_PRICE, PEPPER, Gateway, running_gateway
from tests.support.nasty_upstream import nasty_upstream
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.ledger.parked import ParkedHold
    from tests.support.gateway import Reply
    from tests.support.nasty_upstream import Agent, Conversation

BEGAN = 100 * CREDIT
OPEN, DONE = "TASK_STATE_WORKING", "TASK_STATE_COMPLETED"
SSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def rpc(method: str, **params: object) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()


def send(state: str, *, to: str = "", name: str = "T", **more: object) -> bytes:
    """A message whose answer is to be the task `name` in a state."""
    message = {"parts": [], "metadata": {"state": state, "name": name, **more}}
    return rpc("SendMessage", message={**message, "taskId": to} if to else message)


def poll(state: str, name: str = "T") -> bytes:
    return rpc("GetTask", id=name, metadata={"state": state, "name": name})


def task(state: str, name: str = "T") -> dict[str, Any]:
    return {"id": name, "status": {"state": state}}


def event(result: object) -> bytes:
    text = f"data: {json.dumps({'jsonrpc': '2.0', 'id': 1, 'result': result})}\n\n".encode()
    return b"%x\r\n%b\r\n" % (len(text), text)


class Streams:
    """Streams that the agent has begun, in order: each ends when the test says how."""

    def __init__(self) -> None:
        self.begun = 0
        self.parts: asyncio.Queue[bytes | None] = asyncio.Queue()


@asynccontextmanager
async def scene(
    redis_url: str, postgres_url: str, **changes: Any
) -> AsyncIterator[tuple[Gateway, Agent, Streams]]:
    """An agent that answers with the task that a request's metadata describe, one credit a task.

    A message that says `stream` gets a stream, whose parts the test sends.
    """
    streams = Streams()

    async def script(talk: Conversation) -> None:
        while True:
            request = await talk.request()
            document = json.loads(request.body)
            params = document["params"]
            told = params.get("metadata") or params["message"]["metadata"]
            if told.get("stream"):
                streams.begun += 1
                await talk.send(SSE, event({"task": task(told["state"], told["name"])}))
                while part := await streams.parts.get():
                    await talk.send(part)
                await talk.send(b"0\r\n\r\n")
                continue
            found = task(told["state"], told["name"])
            result = found if document["method"] == "GetTask" else {"task": found}
            body = json.dumps({"jsonrpc": "2.0", "id": 1, "result": result}).encode()
            await talk.send(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
            )

    async with nasty_upstream(script) as agent:
        routes = [a2a(agent, "agent", **changes)]
        async with running_gateway(redis_url, postgres_url, routes) as gateway:
            yield gateway, agent, streams


def a2a(agent: Agent, name: str, **changes: Any) -> Route:
    """All paths below the name, one credit a task."""
    fields: dict[str, Any] = {"errors": ErrorStyle.JSONRPC, **changes}
    price, protocol = CREDIT_PRICE, Protocol.A2A
    return Route(name, (), f"/{name}/**", agent.url, price, protocol=protocol, **fields)


async def call(gateway: Gateway, body: bytes, **headers: str) -> Reply:
    headers = {"Content-Type": "application/json", **headers}
    return await gateway.call("/agent/rpc", data=body, headers=headers)


async def rows(gateway: Gateway) -> list[ParkedHold]:
    return await gateway.ledger.parked_holds(
        gateway.counters.keys(gateway.account.account_id).shard
    )


async def paid(gateway: Gateway, calls: int) -> list[int]:
    """What each of so many calls has paid, oldest first; nothing is held, and all of it adds up."""
    settled = await gateway.settlements(calls)
    assert len(settled) == calls
    charges = [row.charged_microcredits for row in reversed(settled)]
    assert await gateway.balance() == (BEGAN - sum(charges), 0)
    assert (await audit(gateway.ledger, gateway.counters)).findings == []
    return charges


# What the client is told.


async def test_the_answer_says_what_a_task_keeps_and_in_the_end_what_it_cost(
    clean_redis_url: str, postgres_url: str
) -> None:
    async with scene(clean_redis_url, postgres_url) as (gateway, _, _):
        began = (await call(gateway, send(OPEN))).headers
        assert (began["X-Credits-Reserved"], began["X-Credits-Remaining"]) == ("1", "99")
        assert "X-Credits-Charged" not in began
        polled = (await call(gateway, poll(OPEN))).headers
        assert (polled["X-Credits-Charged"], polled["X-Credits-Remaining"]) == ("0", "99")
        ended = (await call(gateway, poll(DONE))).headers
        assert (ended["X-Credits-Charged"], ended["X-Credits-Remaining"]) == ("1", "99")
        after = (await call(gateway, poll(DONE))).headers
        assert after["X-Credits-Charged"] == "0"
        assert await paid(gateway, 4) == [CREDIT, 0, 0, 0]


async def test_a_stream_ends_with_what_its_task_keeps(
    clean_redis_url: str, postgres_url: str
) -> None:
    async with scene(clean_redis_url, postgres_url) as (gateway, _, streams):
        streams.parts.put_nowait(None)
        reply = await call(gateway, send(OPEN, stream=True))
        assert reply.body.endswith(b"\n\n: credits-reserved=1 credits-remaining=99\n\n")
        await call(gateway, poll(DONE))
        assert await paid(gateway, 2) == [CREDIT, 0]


async def test_a_batch_is_refused_and_not_sent_on(clean_redis_url: str, postgres_url: str) -> None:
    async with scene(clean_redis_url, postgres_url) as (gateway, agent, _):
        reply = await call(gateway, b"[" + send(OPEN) + b"," + poll(OPEN) + b"]")
        assert b"batches" in reply.body
        assert agent.requests == []


# Calls that cross.


async def test_a_message_to_a_task_whose_first_stream_still_runs_costs_nothing(
    clean_redis_url: str, postgres_url: str
) -> None:
    async with scene(clean_redis_url, postgres_url) as (gateway, _, streams):
        first = asyncio.create_task(call(gateway, send(OPEN, stream=True)))
        await eventually(lambda: gateway.counters.command("KEYS", "tk:*:t:*"))
        reply = await call(gateway, send(OPEN, to="T"))
        assert reply.headers["X-Credits-Charged"] == "0"
        streams.parts.put_nowait(event({"statusUpdate": {"taskId": "T", **_status(DONE)}}))
        streams.parts.put_nowait(None)
        assert b"credits-charged=1" in (await first).body
        assert sorted(await paid(gateway, 2)) == [0, CREDIT]


async def test_a_task_may_end_in_another_call_while_its_first_stream_runs(
    clean_redis_url: str, postgres_url: str
) -> None:
    """As when the worker of the stream has died, and the client asks another one."""
    async with scene(clean_redis_url, postgres_url) as (gateway, _, streams):
        first = asyncio.create_task(call(gateway, send(OPEN, stream=True)))
        await eventually(lambda: gateway.counters.command("KEYS", "tk:*:t:*"))
        config = GatewayConfig(redis_url=clean_redis_url, postgres_url=postgres_url)
        async with run_worker(WorkerSettings(config, PEPPER)) as worker:
            loop = asyncio.get_running_loop()
            listening = await loop.create_server(worker.server, "127.0.0.1", 0)
            port, gateway.port = gateway.port, listening.sockets[0].getsockname()[1]
            assert (await call(gateway, poll(DONE))).headers["X-Credits-Charged"] == "1"
            gateway.port = port
            listening.close()
        assert await gateway.balance() == (BEGAN - CREDIT, 0)
        streams.parts.put_nowait(event({"statusUpdate": {"taskId": "T", **_status(DONE)}}))
        streams.parts.put_nowait(None)
        await first
        await gateway.settled_late(2)
        assert sorted(await paid(gateway, 2)) == [0, CREDIT]


async def test_two_calls_that_begin_the_same_task_pay_once(
    clean_redis_url: str, postgres_url: str
) -> None:
    async with scene(clean_redis_url, postgres_url) as (gateway, _, _):
        real, both = Counters.touch, asyncio.Barrier(2)

        async def together(*asked: Any) -> Any:
            found = await real(*asked)
            if both.broken or found is not None:
                return found
            await both.wait()
            return found

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Counters, "touch", together)
            replies = await asyncio.gather(*(call(gateway, send(OPEN, to="T")) for _ in range(2)))
        assert sorted("X-Credits-Reserved" in reply.headers for reply in replies) == [False, True]
        assert await gateway.balance() == (BEGAN - CREDIT, CREDIT)
        await call(gateway, poll(DONE))
        assert sorted(await paid(gateway, 3)) == [0, 0, CREDIT]


async def test_tasks_of_one_name_on_two_routes_are_two_tasks(
    clean_redis_url: str, postgres_url: str
) -> None:
    async with scene(clean_redis_url, postgres_url) as (gateway, agent, _):
        routes = [a2a(agent, name) for name in ("agent", "other")]
        await gateway.ledger.apply_catalog(Platform("demo"), [], routes)

        async def known() -> bool:
            reply = await gateway.call("/other/rpc", data=send(OPEN))
            return reply.status == 200

        await call(gateway, send(OPEN))
        await eventually(known)
        assert await gateway.balance() == (BEGAN - 2 * CREDIT, 2 * CREDIT)
        await gateway.call("/other/rpc", data=poll(DONE))
        assert await gateway.balance() == (BEGAN - 2 * CREDIT, CREDIT)


# Streams that break, and what is lost.


@pytest.mark.parametrize("who", ["client", "agent"])
async def test_a_stream_that_breaks_leaves_the_hold_to_its_task(
    clean_redis_url: str, postgres_url: str, who: str
) -> None:
    async with scene(clean_redis_url, postgres_url) as (gateway, agent, streams):
        async with aiohttp.ClientSession() as session:
            answer = await session.post(
                f"{gateway.url}/agent/rpc",
                data=send(OPEN, stream=True),
                headers=gateway.authorization,
            )
            await answer.content.readany()
            if who == "client":
                answer.close()
            else:
                streams.parts.put_nowait(b"no chunk\r\n")
                with pytest.raises(aiohttp.ClientPayloadError):
                    await answer.read()

        async def parked() -> bool:
            return [hold.parked for hold, _ in await gateway.holds()] == [True]

        await eventually(parked)
        streams.parts.put_nowait(None)
        assert agent.requests
        await call(gateway, poll(DONE))
        assert await paid(gateway, 2) == [CREDIT, 0]


async def test_an_end_seen_while_redis_is_away_is_charged_when_it_is_back(
    clean_redis_url: str, postgres_url: str
) -> None:
    async with scene(clean_redis_url, postgres_url) as (gateway, _, _):
        await call(gateway, send(OPEN))
        real, asked = Counters.touch, 0

        async def once(*keys: Any) -> Any:
            nonlocal asked
            asked += 1
            return await (real(*keys) if asked == 1 else _unavailable())

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Counters, "touch", once)
            patch.setattr(Counters, "settle", _unavailable)
            patch.setattr(Counters, "unpark", _unavailable)
            reply = await call(gateway, poll(DONE))
        assert (reply.status, reply.headers["X-Credits-Charged"]) == (200, "1")
        await gateway.settled_late(2)
        assert await paid(gateway, 2) == [CREDIT, 0]
        # Its record could not be deleted: who finds it charges nothing more.
        await call(gateway, poll(DONE))
        await gateway.settled_late(3)
        assert await paid(gateway, 3) == [CREDIT, 0, 0]


async def test_a_hold_that_redis_can_not_park_at_once_is_parked_later(
    clean_redis_url: str, postgres_url: str
) -> None:
    async with scene(clean_redis_url, postgres_url) as (gateway, _, _):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Counters, "park", _unavailable)
            reply = await call(gateway, send(OPEN))
            assert (reply.status, reply.headers["X-Credits-Reserved"]) == (200, "1")
            assert await gateway.counters.command("KEYS", "tk:*:t:*") == []
        assert [row.account_id for row in await eventually(lambda: rows(gateway))] == [1]
        await call(gateway, poll(DONE))
        assert await paid(gateway, 2) == [CREDIT, 0]


async def test_nobody_waits_for_postgres_to_keep_a_hold(
    clean_redis_url: str, postgres_url: str
) -> None:
    async with scene(clean_redis_url, postgres_url) as (gateway, _, _):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Ledger, "add_parked_hold", _away)
            reply = await call(gateway, send(OPEN))
            assert reply.headers["X-Credits-Reserved"] == "1"
            ((hold, _),) = await gateway.holds()
            assert hold.parked
        await eventually(lambda: rows(gateway))
        await call(gateway, poll(DONE))
        assert await paid(gateway, 2) == [CREDIT, 0]


async def test_what_waits_for_postgres_is_bounded(
    clean_redis_url: str, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hold beyond the bound is in Redis only, and ends like any other."""
    monkeypatch.setattr("gateway.proxy.tasks.WAITING_MAX", 1)
    async with scene(clean_redis_url, postgres_url) as (gateway, _, _):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Ledger, "add_parked_hold", _away)
            for name in ("1", "2"):
                await call(gateway, send(OPEN, name=name))
        assert len(await eventually(lambda: rows(gateway))) == 1
        for name in ("1", "2"):
            await call(gateway, poll(DONE, name))
        assert await paid(gateway, 4) == [CREDIT, CREDIT, 0, 0]


async def test_a_row_that_comes_after_its_end_is_cleaned(
    clean_redis_url: str, postgres_url: str
) -> None:
    """And a lost shard is not rebuilt with it."""
    async with scene(clean_redis_url, postgres_url) as (gateway, _, _):
        await call(gateway, send(OPEN))
        (row,) = await eventually(lambda: rows(gateway))
        await call(gateway, poll(DONE))
        await gateway.settlements(2)

        async def gone() -> bool:
            return not await rows(gateway)

        await eventually(gone)
        await gateway.ledger.add_parked_hold(row)
        await gateway.counters.command("FLUSHALL")
        await call(gateway, poll(DONE))
        assert await paid(gateway, 3) == [CREDIT, 0, 0]
        assert await gateway.ledger.clean_parked_holds() == 1


# What pays, and what does not.


async def test_nobody_is_served_on_trust(clean_redis_url: str, postgres_url: str) -> None:
    async with scene(clean_redis_url, postgres_url, trust_microcredits=10 * CREDIT) as (
        gateway,
        agent,
        _,
    ):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Counters, "admit", _unavailable)
            reply = await call(gateway, send(OPEN))
        assert b"can't be reserved" in reply.body
        assert agent.requests == []


async def test_rules_of_endings_say_what_ends_of_tasks_cost(
    clean_redis_url: str, postgres_url: str
) -> None:
    rules = {**DEFAULT_RULES, Ending.UPSTREAM_ERROR: Rule.RESERVED, Ending.COMPLETED: Rule.NOTHING}
    async with scene(clean_redis_url, postgres_url, rules=rules) as (gateway, _, _):
        for name, state in (("1", "TASK_STATE_FAILED"), ("2", DONE), ("3", "TASK_STATE_REJECTED")):
            await call(gateway, send(OPEN, name=name))
            await call(gateway, poll(state, name))
        assert await paid(gateway, 6) == [CREDIT, 0, 0, 0, CREDIT, 0]


async def test_a_task_whose_hold_is_over_is_paid_for_anew_by_who_goes_on_with_it(
    clean_redis_url: str, postgres_url: str
) -> None:
    async with scene(clean_redis_url, postgres_url) as (gateway, _, _):
        await call(gateway, send(OPEN))
        await call(gateway, poll(DONE))
        assert (await call(gateway, send(OPEN, to="T"))).headers["X-Credits-Reserved"] == "1"
        await call(gateway, poll("TASK_STATE_CANCELED"))
        assert await paid(gateway, 4) == [CREDIT, 0, CREDIT, 0]


async def test_a_retry_with_its_key_begins_no_second_task(
    clean_redis_url: str, postgres_url: str
) -> None:
    async with scene(clean_redis_url, postgres_url) as (gateway, agent, _):
        key = {"Idempotency-Key": "once"}
        first = await call(gateway, send(OPEN), **key)
        again = await call(gateway, send(OPEN), **key)
        assert again.body == first.body
        assert len(agent.requests) == 1
        await call(gateway, poll(DONE))
        assert await paid(gateway, 2) == [CREDIT, 0]


def _status(state: str) -> dict[str, Any]:
    return {"status": {"state": state}}


async def _unavailable(*_: Any, **__: Any) -> Any:
    raise CountersUnavailable("Redis is away")


async def _away(*_: Any) -> None:
    raise LedgerUnavailable("Postgres is away")
