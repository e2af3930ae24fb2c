"""A client that leaves before its answer has begun finds it there when it comes again."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest

from gateway.app import WorkerSettings, run_worker
from gateway.config import GatewayConfig
from policies.catalog import DEFAULT_RULES, Ending, Price, Protocol, RpcPrices, Rule
from tests.support.gateway import CREDIT, PEPPER, open_route, running_gateway
from tests.support.nasty_upstream import nasty_upstream
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from tests.support.gateway import Gateway, Reply
    from tests.support.nasty_upstream import Conversation

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
SSE_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
)
KEY = "Idempotency-Key: order-1"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class Agent:
    """Answers when it is told to, once; counts who was cut."""

    def __init__(self, *answer: bytes) -> None:
        self.answer = answer
        self.asked = asyncio.Event()
        self.go_on = asyncio.Event()
        self.cut = asyncio.Event()

    async def __call__(self, talk: Conversation) -> None:
        await talk.request()
        self.asked.set()
        go_on, gone = (
            asyncio.ensure_future(waiting) for waiting in (self.go_on.wait(), talk.gone())
        )
        await asyncio.wait((go_on, gone), return_when=asyncio.FIRST_COMPLETED)
        told = go_on.done()
        go_on.cancel()
        gone.cancel()
        await asyncio.gather(go_on, gone, return_exceptions=True)
        if told:
            await talk.send(*self.answer)
        else:
            self.cut.set()


async def leave_while_it_runs(gateway: Gateway, agent: Agent) -> None:
    """Ask with a key, and leave before the agent has said anything."""
    _, writer = await gateway.connect()
    writer.write(gateway.head("POST /any/x HTTP/1.1", KEY, "Content-Length: 2") + b"{}")
    await agent.asked.wait()
    writer.close()
    await writer.wait_closed()


async def retry(gateway: Gateway) -> Reply:
    async def answered() -> Reply | None:
        reply = await gateway.call("/any/x", headers={"Idempotency-Key": "order-1"})
        return reply if reply.status != 409 else None

    reply = await eventually(answered)
    assert reply is not None
    return reply


@pytest.fixture(autouse=True)
def same_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries come from another client, which names the body's type: not what is tested here."""
    monkeypatch.setattr("gateway.proxy.idempotency._fingerprint", lambda *_: "f" * 64)


async def test_a_call_goes_on_without_its_client_and_its_answer_waits_for_the_retry(
    clean_redis_url: str, postgres_url: str
) -> None:
    script = Agent(OK)
    async with (
        nasty_upstream(script) as agent,
        running_gateway(clean_redis_url, postgres_url, [open_route(agent.url)]) as gateway,
    ):
        await leave_while_it_runs(gateway, script)
        early = await gateway.call("/any/x", headers={"Idempotency-Key": "order-1"})
        assert early.status == 409
        script.go_on.set()
        reply = await retry(gateway)
        assert (reply.status, reply.body) == (200, b"ok")
        assert len(agent.requests) == 1
        row = await gateway.settlement()
        assert (row.ending, row.charged_microcredits) == ("completed", CREDIT)


async def test_so_does_one_whose_answer_is_a_stream(
    clean_redis_url: str, postgres_url: str
) -> None:
    script = Agent(SSE_HEAD, chunk(b"data: first\n\n"), chunk(b"data: second\n\n"), chunk(b""))
    async with (
        nasty_upstream(script) as agent,
        running_gateway(clean_redis_url, postgres_url, [open_route(agent.url)]) as gateway,
    ):
        await leave_while_it_runs(gateway, script)
        script.go_on.set()
        reply = await retry(gateway)
        assert reply.status == 200
        assert reply.body.startswith(b"data: first\n\ndata: second\n\n")
        assert len(agent.requests) == 1


async def test_without_a_key_a_call_ends_with_its_client(
    clean_redis_url: str, postgres_url: str
) -> None:
    script = Agent(OK)
    async with (
        nasty_upstream(script) as agent,
        running_gateway(clean_redis_url, postgres_url, [open_route(agent.url)]) as gateway,
    ):
        _, writer = await gateway.connect()
        writer.write(gateway.head("GET /any/x HTTP/1.1"))
        await script.asked.wait()
        writer.close()
        await eventually(script.cut.is_set)
        assert (await gateway.settlement()).ending == "client_disconnect"


@pytest.mark.parametrize("rule", [Rule.ACTUAL, Rule.NOTHING])
async def test_who_leaves_a_stream_that_has_begun_ends_it(
    clean_redis_url: str, postgres_url: str, rule: Rule
) -> None:
    rules = {**DEFAULT_RULES, Ending.CLIENT_DISCONNECT: rule}
    cut, again = asyncio.Event(), Agent(OK)

    async def endless(talk: Conversation) -> None:
        await talk.request()
        await talk.send(SSE_HEAD, chunk(b"data: first\n\n"))
        await talk.gone()
        cut.set()

    async with (
        nasty_upstream(endless, again) as agent,
        running_gateway(
            clean_redis_url, postgres_url, [open_route(agent.url, rules=rules)]
        ) as gateway,
    ):
        reader, writer = await gateway.connect()
        writer.write(gateway.head("POST /any/x HTTP/1.1", KEY, "Content-Length: 2") + b"{}")
        await reader.readuntil(b"data: first")
        writer.close()
        await eventually(cut.is_set)
        row = await gateway.settlement()
        assert row.ending == "client_disconnect"
        if rule is Rule.ACTUAL:
            reply = await retry(gateway)
            assert (reply.status, json.loads(reply.body)["ending"]) == (410, "client_disconnect")
        else:
            again.go_on.set()
            assert (await retry(gateway)).body == b"ok"
            assert len(agent.requests) == 2


async def test_a_stream_that_is_only_listened_to_keeps_no_key_and_ends_with_its_client(
    clean_redis_url: str, postgres_url: str
) -> None:
    cut = asyncio.Event()

    async def endless(talk: Conversation) -> None:
        await talk.request()
        await talk.send(SSE_HEAD, chunk(b"data: first\n\n"))
        await talk.gone()
        cut.set()

    async with (
        nasty_upstream(endless) as agent,
        running_gateway(
            clean_redis_url,
            postgres_url,
            [open_route(agent.url, protocol=Protocol.MCP, price=Price(rpc=RpcPrices()))],
        ) as gateway,
    ):
        clients = []
        for number in (1, 2):
            reader, writer = await gateway.connect()
            accept = "Accept: text/event-stream"
            writer.write(gateway.head("GET /any/mcp HTTP/1.1", KEY, accept))
            await reader.readuntil(b"data: first")
            assert len(agent.requests) == number
            clients.append(writer)
        for writer in clients:
            writer.close()
        await eventually(lambda: agent.open == 0)
        assert cut.is_set()


async def test_an_answer_that_can_not_be_kept_is_not_made_for_nobody(
    clean_redis_url: str, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.proxy.keyed.Recording.take", lambda *_: False)
    script = Agent(SSE_HEAD, chunk(b"data: first\n\n"))
    gone = asyncio.Event()

    async def endless(talk: Conversation) -> None:
        await script(talk)
        await talk.gone()
        gone.set()

    async with (
        nasty_upstream(endless) as agent,
        running_gateway(clean_redis_url, postgres_url, [open_route(agent.url)]) as gateway,
    ):
        await leave_while_it_runs(gateway, script)
        await eventually(lambda: len(gateway.worker.server.detached) == 1)
        script.go_on.set()
        await eventually(gone.is_set)
        assert (await gateway.settlement()).ending == "client_disconnect"
        assert agent.connections == 1


async def test_as_many_as_allowed_go_on_without_a_client(
    clean_redis_url: str, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.proxy.server.DETACHED_MAX", 0)
    script = Agent(OK)
    async with (
        nasty_upstream(script) as agent,
        running_gateway(clean_redis_url, postgres_url, [open_route(agent.url)]) as gateway,
    ):
        await leave_while_it_runs(gateway, script)
        await eventually(script.cut.is_set)
        assert (await gateway.settlement()).ending == "client_disconnect"


@pytest.mark.parametrize("in_time", [True, False])
async def test_a_worker_that_stops_waits_for_them_as_for_others(
    clean_redis_url: str, postgres_url: str, in_time: bool
) -> None:
    script = Agent(OK)
    config = GatewayConfig(
        redis_url=clean_redis_url,
        postgres_url=postgres_url,
        shutdown_deadline_s=20 if in_time else 0.2,
    )
    async with (
        nasty_upstream(script) as agent,
        running_gateway(clean_redis_url, postgres_url, [open_route(agent.url)]) as gateway,
    ):
        own = gateway.port
        async with run_worker(WorkerSettings(config, PEPPER)) as other:
            loop = asyncio.get_running_loop()
            listening = await loop.create_server(other.server, "127.0.0.1", 0)
            gateway.port = listening.sockets[0].getsockname()[1]
            await leave_while_it_runs(gateway, script)
            await eventually(lambda: len(other.server.detached) == 1)
            gateway.port = own
            listening.close()
            if in_time:
                loop.call_later(0.1, script.go_on.set)
        reply = await retry(gateway)
        row = await gateway.settlement()
        if in_time:
            assert (reply.status, reply.body, row.ending) == (200, b"ok", "completed")
        else:
            assert (reply.status, row.ending) == (410, "client_disconnect")
        assert len(agent.requests) == 1
