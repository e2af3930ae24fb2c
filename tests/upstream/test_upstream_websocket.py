"""The handshake with an agent, and what passes behind it: bounded, marked, and checked."""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING, Any

import pytest
import trustme

from gateway.upstream import (
    CancelledUnsentError,
    Origin,
    UpstreamBroken,
    UpstreamError,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from gateway.upstream.websocket import Tunnel, accept_of, new_key, open_websocket
from tests.support.nasty_upstream import Conversation, answering, nasty_upstream
from tests.support.upstream_calls import HI, connections_of, get, idle_of, origin_of, whole
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.upstream import Answer, UpstreamClient
    from tests.support.nasty_upstream import Agent

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
HEAD = (
    b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %b\r\n\r\n" % KEY
)
SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\n"
UPGRADE = b"Upgrade: websocket\r\nConnection: Upgrade\r\n"
ACCEPT = b"Sec-WebSocket-Accept: " + accept_of(KEY) + b"\r\n"
AGREED = SWITCHING + UPGRADE + ACCEPT + b"\r\n"


class Taken:
    """What came out of a tunnel."""

    def __init__(self) -> None:
        self.data = b""
        self.ended = asyncio.Event()
        self.room = asyncio.Event()

    def feed_data(self, data: bytes) -> None:
        self.data += data

    def feed_eof(self) -> None:
        self.ended.set()

    def writable(self) -> None:
        self.room.set()


async def nothing() -> None:
    """A mark that is not looked at."""


async def opened(client: UpstreamClient, agent: Agent, **options: Any) -> Answer:
    origin = origin_of(agent, **options.pop("origin", {}))
    options = {"key": KEY, "offered": (), "sending": nothing, **options}
    return await open_websocket(client, origin, HEAD, **options)


def test_the_proof_is_that_of_the_rfc() -> None:
    assert accept_of(KEY) == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    assert len({new_key() for _ in range(100)}) == 100


@pytest.mark.parametrize("cut", range(1, len(AGREED + b"first"), 7))
async def test_what_the_agent_sends_behind_its_head_is_the_tunnels(
    client: UpstreamClient, cut: int
) -> None:
    async def script(talk: Conversation) -> None:
        await talk.request()
        both = AGREED + b"first"
        await talk.send(both[:cut], both[cut:], b" second")
        assert await talk.reader.readexactly(5) == b"hello"
        await talk.send(b" third")

    async with nasty_upstream(script) as agent:
        tunnel = await opened(client, agent)
        assert isinstance(tunnel, Tunnel)
        taken = Taken()
        tunnel.attach(taken)
        tunnel.write(b"hello")
        await taken.ended.wait()
        assert taken.data == b"first second third"
        assert connections_of(client) == []
        tunnel.write(b"nobody hears it")
        tunnel.abort()


async def test_nothing_is_read_before_somebody_receives_it(client: UpstreamClient) -> None:
    async def script(talk: Conversation) -> None:
        await talk.request()
        await talk.send(AGREED)
        talk.writer.write(bytes(32 * 1024 * 1024))
        await talk.gone()

    async with nasty_upstream(script) as agent:
        tunnel = await opened(client, agent)
        assert isinstance(tunnel, Tunnel)
        await asyncio.sleep(0.1)
        assert len(tunnel._rest) <= 1024 * 1024
        taken = Taken()
        tunnel.attach(taken)
        await eventually(lambda: len(taken.data) > 4 * 1024 * 1024)
        tunnel.pause_reading()
        await asyncio.sleep(0.05)
        so_far = len(taken.data)
        await asyncio.sleep(0.05)
        assert len(taken.data) == so_far
        tunnel.resume_reading()
        await eventually(lambda: len(taken.data) == 32 * 1024 * 1024)
        tunnel.abort()
        await taken.ended.wait()
        tunnel.resume_reading()
        tunnel.pause_reading()


async def test_an_agent_that_takes_nothing_is_noticed(client: UpstreamClient) -> None:
    go_on = asyncio.Event()

    async def script(talk: Conversation) -> None:
        await talk.request()
        await talk.send(AGREED)
        await go_on.wait()
        await talk.gone()

    async with nasty_upstream(script) as agent:
        tunnel = await opened(client, agent)
        assert isinstance(tunnel, Tunnel)
        taken = Taken()
        tunnel.attach(taken)
        while not tunnel.writing_paused:
            tunnel.write(bytes(64 * 1024))
        go_on.set()
        await taken.room.wait()
        assert not tunnel.writing_paused
        tunnel.abort()


REFUSALS = {
    "no proof": SWITCHING + UPGRADE + b"\r\n",
    "another proof": SWITCHING + UPGRADE + b"Sec-WebSocket-Accept: bm8=\r\n\r\n",
    "two proofs": SWITCHING + UPGRADE + ACCEPT + ACCEPT + b"\r\n",
    "another protocol": SWITCHING + UPGRADE.replace(b"websocket", b"h2c") + ACCEPT + b"\r\n",
    "two protocols": SWITCHING + UPGRADE + b"Upgrade: h2c\r\n" + ACCEPT + b"\r\n",
    "an extension": SWITCHING
    + UPGRADE
    + ACCEPT
    + b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n",
    "a subprotocol": SWITCHING + UPGRADE + ACCEPT + b"Sec-WebSocket-Protocol: c\r\n\r\n",
    "two subprotocols": SWITCHING + UPGRADE + ACCEPT + b"Sec-WebSocket-Protocol: a, b\r\n\r\n",
    "no upgrade": SWITCHING + ACCEPT + b"\r\n",
    "garbage": b"\x81\x05hello",
    "closed": b"",
}


@pytest.mark.parametrize("name", REFUSALS)
async def test_an_agreement_to_something_else_is_a_broken_answer(
    client: UpstreamClient, name: str
) -> None:
    async with nasty_upstream(answering(REFUSALS[name], then_close=True)) as agent:
        with pytest.raises(UpstreamBroken) as caught:
            await opened(client, agent, offered=(b"a", b"b"))
        assert caught.value.sent
        await eventually(lambda: not agent.open)
        assert connections_of(client) == []


async def test_one_of_the_offered_subprotocols_may_be_chosen(client: UpstreamClient) -> None:
    agreed = SWITCHING + UPGRADE + ACCEPT + b"sec-websocket-protocol: b \r\n\r\n"
    async with nasty_upstream(answering(agreed)) as agent:
        tunnel = await opened(client, agent, offered=(b"a", b"b"))
        assert isinstance(tunnel, Tunnel)
        tunnel.abort()


async def test_a_refusal_is_an_answer_and_its_connection_is_used_again(
    client: UpstreamClient,
) -> None:
    refusal = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 4\r\n\r\nnope"
    async with nasty_upstream(answering(refusal, HI, AGREED)) as agent:
        answer = await opened(client, agent)
        assert (answer.status, await whole(answer)) == (403, b"nope")
        assert len(idle_of(client)) == 1
        assert (await get(client, agent)).body == b"hi"
        # And an agent that switches unasked is still a broken one.
        with pytest.raises(UpstreamError):
            await get(client, agent)


async def test_hints_before_the_agreement_are_passed_over(client: UpstreamClient) -> None:
    hints = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
    async with nasty_upstream(answering(hints + AGREED)) as agent:
        tunnel = await opened(client, agent)
        assert isinstance(tunnel, Tunnel)
        assert (b"Upgrade", b"websocket") in tunnel.headers
        assert (b"Link", b"x") not in tunnel.headers
        tunnel.abort()


async def test_the_mark_is_made_before_the_first_byte(client: UpstreamClient) -> None:
    made = asyncio.Event()

    async def script(talk: Conversation) -> None:
        reading = asyncio.ensure_future(talk.reader.read(1))
        await asyncio.sleep(0.05)
        assert not reading.done()
        made.set()
        assert await reading == b"G"
        await talk.head()
        await talk.send(AGREED)

    async with nasty_upstream(script) as agent:
        tunnel = await opened(client, agent, sending=made.wait)
        assert isinstance(tunnel, Tunnel)
        tunnel.abort()


async def test_without_the_mark_nothing_is_sent(client: UpstreamClient) -> None:
    async def fail() -> None:
        raise RuntimeError("planted")

    async with nasty_upstream(answering(HI)) as agent:
        with pytest.raises(RuntimeError, match="planted"):
            await opened(client, agent, sending=fail)
        waiting = asyncio.Event()
        task = asyncio.create_task(opened(client, agent, sending=waiting.wait))
        await eventually(lambda: connections_of(client))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(CancelledUnsentError):
            await task
        assert agent.requests == []


async def test_a_caller_that_leaves_within_the_handshake_closes_it(
    client: UpstreamClient,
) -> None:
    async def script(talk: Conversation) -> None:
        await talk.request()
        await talk.gone()

    async with nasty_upstream(script) as agent:
        task = asyncio.create_task(opened(client, agent))
        await agent.arrived.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await eventually(lambda: not agent.open)
        assert connections_of(client) == []


async def test_tunnels_count_among_the_connections_of_their_origin(client: UpstreamClient) -> None:
    async with nasty_upstream(answering(AGREED)) as agent:
        origin = {"connections_max": 1, "total": 60_000}
        first = await opened(client, agent, origin=origin)
        second = asyncio.create_task(opened(client, agent, origin=origin))
        await asyncio.sleep(0.1)
        assert not second.done()
        first.abort()
        (await second).abort()
        await eventually(lambda: connections_of(client) == [])


async def test_the_handshake_has_the_timeouts_of_the_origin_and_the_tunnel_has_none(
    client: UpstreamClient,
) -> None:
    async def silent(talk: Conversation) -> None:
        await talk.request()
        await talk.gone()

    async with nasty_upstream(silent, answering(AGREED)) as agent:
        with pytest.raises(UpstreamTimeout) as caught:
            await opened(client, agent, origin={"first_byte": 50})
        assert caught.value.phase == "first_byte"
        tunnel = await opened(client, agent, origin={"first_byte": 80, "idle": 80, "total": 80})
        assert isinstance(tunnel, Tunnel)
        taken = Taken()
        tunnel.attach(taken)
        await asyncio.sleep(0.3)
        assert not taken.ended.is_set()
        tunnel.abort()


async def test_nobody_there_is_unreachable(client: UpstreamClient) -> None:
    async with nasty_upstream(answering(HI)) as agent:
        pass
    with pytest.raises(UpstreamUnreachable):
        await opened(client, agent)


async def test_closing_the_client_ends_tunnels(client: UpstreamClient) -> None:
    async with nasty_upstream(answering(AGREED)) as agent:
        tunnel = await opened(client, agent)
        assert isinstance(tunnel, Tunnel)
        taken = Taken()
        tunnel.attach(taken)
        await client.close()
        await taken.ended.wait()


async def test_a_connection_lost_before_anybody_receives_is_told_with_what_came(
    client: UpstreamClient,
) -> None:
    async with nasty_upstream(answering(AGREED + b"last words", then_close=True)) as agent:
        tunnel = await opened(client, agent)
        assert isinstance(tunnel, Tunnel)
        tunnel._connection.transport.abort()
        await eventually(lambda: tunnel._closed)
        taken = Taken()
        tunnel.attach(taken)
        assert taken.ended.is_set()
        assert taken.data == b"last words"


async def test_a_tunnel_through_tls_holds_back_and_passes_as_one_without(
    client: UpstreamClient, tmp_path: Path
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(tls)

    async def script(talk: Conversation) -> None:
        await talk.request()
        await talk.send(AGREED + b"first")
        await talk.reader.readexactly(5)
        await talk.send(bytes(2**20))

    async with nasty_upstream(script, tls=tls) as agent:
        url = f"https://localhost:{agent.port}"
        origin, _ = Origin.parse(url, tls_ca_file=str(tmp_path / "ca.pem"))
        tunnel = await open_websocket(client, origin, HEAD, key=KEY, offered=(), sending=nothing)
        assert isinstance(tunnel, Tunnel)
        taken = Taken()
        tunnel.attach(taken)
        tunnel.write(b"hello")
        await taken.ended.wait()
        assert taken.data == b"first" + bytes(2**20)
