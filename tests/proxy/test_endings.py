"""The rarer ways a call can end: each still leaves exactly one settlement, or none at all."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import aiohttp
import pytest

from gateway.upstream import UpstreamClient
from policies.catalog import Timeouts
from tests.support.gateway import CREDIT, chat_route, open_route, running_gateway
from tests.support.nasty_upstream import answering, nasty_upstream
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.nasty_upstream import Conversation

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
SSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


async def test_a_running_call_of_a_lost_shard_gets_its_hold_back_and_settles_as_ever(
    clean_redis_url: str, postgres_url: str
) -> None:
    go_on = asyncio.Event()

    async def script(talk: Conversation) -> None:
        while True:
            request = await talk.request()
            if b"/slow" in request.head:
                await go_on.wait()
            await talk.send(OK)

    async with (
        nasty_upstream(script) as agent,
        running_gateway(clean_redis_url, postgres_url, [open_route(agent.url)]) as gateway,
    ):
        slow = asyncio.create_task(gateway.call("/any/slow"))
        await agent.arrived.wait()
        await gateway.counters.command("FLUSHALL")
        # Another call of this worker notices, and goes on under the new epoch.
        assert (await gateway.call("/any/fast")).headers["X-Credits-Remaining"] == "98"
        [(hold, stage)] = await gateway.holds()
        assert (hold.held, hold.due, stage) == (CREDIT, CREDIT, 1)
        go_on.set()
        reply = await slow
        assert (reply.status, reply.headers["X-Credits-Charged"]) == (200, "1")
        assert reply.headers["X-Credits-Remaining"] == "98"
        rows = await gateway.settlements(2)
        assert {row.charged_microcredits for row in rows} == {CREDIT}
        assert reply.request_id in {row.call_id for row in rows}
        assert await gateway.late_settlements() == []
        assert await gateway.balance() == (98 * CREDIT, 0)


async def test_a_lost_shard_is_noticed_by_the_renewal_of_its_calls_when_nobody_else_calls(
    clean_redis_url: str, postgres_url: str
) -> None:
    go_on = asyncio.Event()

    async def script(talk: Conversation) -> None:
        await talk.request()
        await go_on.wait()
        await talk.send(OK)

    async with (
        nasty_upstream(script) as agent,
        running_gateway(
            clean_redis_url, postgres_url, [open_route(agent.url)], lease_s=1
        ) as gateway,
    ):
        running = asyncio.create_task(gateway.call("/any/x"))
        await agent.arrived.wait()
        before = await gateway.holds()
        await gateway.counters.command("FLUSHALL")

        async def restored() -> bool:
            return await gateway.holds() == before

        await eventually(restored)
        go_on.set()
        assert (await running).headers["X-Credits-Remaining"] == "99"


async def test_what_a_worker_has_not_written_is_not_spent_again_after_a_loss(
    clean_redis_url: str, postgres_url: str
) -> None:
    async with (
        nasty_upstream(answering(OK)) as agent,
        running_gateway(
            clean_redis_url, postgres_url, [open_route(agent.url)], microcredits=2 * CREDIT
        ) as gateway,
    ):
        assert (await gateway.call("/any/x")).status == 200
        assert (await gateway.call("/any/x")).status == 200
        await gateway.counters.command("FLUSHALL")  # at once: the writer still waits for company
        assert (await gateway.call("/any/x")).status == 402


async def test_an_upload_over_the_limit_cuts_an_answer_that_has_begun(
    clean_redis_url: str, postgres_url: str
) -> None:
    """Never a second head inside the first answer's body."""
    begun = asyncio.Event()

    async def script(talk: Conversation) -> None:
        await talk.head()
        await talk.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\nfirst")
        await talk.gone()

    async def upload() -> AsyncIterator[bytes]:
        yield b"x" * 600
        await begun.wait()
        yield b"x" * 600

    async with (
        nasty_upstream(script) as agent,
        running_gateway(
            clean_redis_url, postgres_url, [open_route(agent.url, body_max_bytes=1_000)]
        ) as gateway,
        aiohttp.ClientSession() as session,
        session.post(
            gateway.url + "/any/x", headers=gateway.authorization, data=upload()
        ) as answer,
    ):
        assert answer.status == 200
        assert await answer.content.readany() == b"first"
        begun.set()
        with pytest.raises(aiohttp.ClientError):
            await answer.read()
        row = await gateway.settlement()
        assert (row.ending, row.charged_microcredits) == ("client_disconnect", CREDIT)


async def test_a_client_that_leaves_before_anything_was_sent_pays_nothing(
    clean_redis_url: str, postgres_url: str
) -> None:
    async def hang(talk: Conversation) -> None:
        await talk.request()
        await talk.gone()

    async with (
        nasty_upstream(hang) as agent,
        running_gateway(
            clean_redis_url, postgres_url, [open_route(agent.url, connections_max=1)]
        ) as gateway,
    ):
        _, first = await gateway.connect()
        first.write(gateway.head("GET /any/first HTTP/1.1"))
        await agent.arrived.wait()
        _, second = await gateway.connect()
        second.write(gateway.head("GET /any/second HTTP/1.1"))

        async def held(credits_held: int) -> bool:
            return (await gateway.balance())[1] == credits_held * CREDIT

        await eventually(lambda: held(2))
        second.transport.abort()
        await eventually(lambda: held(1))
        assert (await gateway.balance())[0] == 99 * CREDIT
        assert len(agent.requests) == 1
        first.transport.abort()
        row = await gateway.settlement()
        assert row.ending == "client_disconnect"


async def test_a_slow_reader_pays_for_what_it_took(clean_redis_url: str, postgres_url: str) -> None:
    async def endless(talk: Conversation) -> None:
        await talk.request()
        await talk.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            await talk.send(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")

    async with (
        nasty_upstream(endless) as agent,
        running_gateway(
            clean_redis_url,
            postgres_url,
            [open_route(agent.url, timeouts=Timeouts(total_ms=300))],
        ) as gateway,
    ):
        reader, writer = await gateway.connect()
        writer.write(gateway.head("GET /any/x HTTP/1.1"))
        await reader.readuntil(b"\r\n\r\n")  # and then nothing for a while

        async def over() -> bool:
            return agent.open == 0

        await eventually(over)
        with contextlib.suppress(ConnectionError):
            while await reader.read(65_536):
                pass
        writer.close()
        row = await gateway.settlement()
        assert (row.ending, row.charged_microcredits) == ("client_disconnect", CREDIT)


async def test_a_mistake_of_ours_frees_the_hold(
    clean_redis_url: str, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object, **__: object) -> None:
        raise RuntimeError("planted")

    monkeypatch.setattr(UpstreamClient, "send", broken)
    async with running_gateway(
        clean_redis_url, postgres_url, [open_route("http://127.0.0.1:9")]
    ) as gateway:
        with pytest.raises(aiohttp.ClientError):
            await gateway.call("/any/x")
        assert (await gateway.settlement()).ending == "unknown"
        assert (await gateway.balance())[1] == 0


@pytest.mark.parametrize(
    ("end", "receipt"),
    [
        (b"data: x\n\n", b": credits-charged=1.1 credits-remaining=98.9\n\n"),
        (b"data: x\r\n\r\n", b": credits-charged=1.1 credits-remaining=98.9\n\n"),
        (b"data: x\n", b": credits-charged=1.1 credits-remaining=98.9\n"),
        (b"data: x", b"\n: credits-charged=1.1 credits-remaining=98.9\n"),
    ],
)
async def test_the_price_of_a_stream_leaves_its_last_event_as_it_was(
    clean_redis_url: str, postgres_url: str, end: bytes, receipt: bytes
) -> None:
    async def script(talk: Conversation) -> None:
        await talk.request()
        await talk.send(SSE + b"%x\r\n%b\r\n" % (len(end), end))
        await asyncio.sleep(0.02)
        await talk.send(b"0\r\n\r\n")
        await talk.gone()

    async with (
        nasty_upstream(script) as agent,
        running_gateway(clean_redis_url, postgres_url, [chat_route(agent.url)]) as gateway,
    ):
        assert (await gateway.call()).body == end + receipt
