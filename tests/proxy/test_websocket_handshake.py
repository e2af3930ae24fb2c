"""Becoming a WebSocket: what the agent is asked, what the client is told, and what is refused."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import orjson
import pytest
from websockets.exceptions import InvalidStatus
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.frames import Opcode

from gateway.upstream.websocket import accept_of
from policies.catalog import DEFAULT_RULES, Ending, Protocol, Rule, Timeouts
from tests.support.conversations import (
    ACCEPT,
    RawClient,
    handshake,
    masked,
    raw_client,
    talk,
    talk_route,
    talking_agent,
)
from tests.support.gateway import CREDIT, chat_route, open_route, running_gateway
from tests.support.nasty_upstream import answering, nasty_upstream, speaking
from tests.support.waiting import DEADLINE_S, eventually

if TYPE_CHECKING:
    from tests.support.gateway import Gateway
    from tests.support.nasty_upstream import Conversation

NOWHERE = "http://127.0.0.1:9"


async def refusal(gateway: Gateway, request: bytes) -> tuple[int, dict[str, str], bytes]:
    """The whole answer to a raw request; the connection ends with it."""
    reader, writer = await gateway.connect()
    writer.write(request)
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    start, *lines = head.decode().split("\r\n")
    headers: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(": ")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return int(start.split()[1]), headers, body


async def test_the_agent_is_asked_as_for_any_call_and_by_a_handshake_of_our_own(
    clean_redis_url: str, postgres_url: str
) -> None:
    async with (
        asyncio.timeout(DEADLINE_S),
        talking_agent(subprotocols=["b", "c"]) as agent,
        running_gateway(
            clean_redis_url,
            postgres_url,
            [
                talk_route(
                    agent.url + "/agent", headers=(("Authorization", "secret"), ("X-Own", "1"))
                )
            ],
        ) as gateway,
    ):
        lines = (
            "Sec-WebSocket-Protocol: a",
            "Sec-WebSocket-Protocol: c, b",
            "Sec-WebSocket-Extensions: permessage-deflate",
            "Origin: https://page.example",
            "Cookie: x=y",
            "X-Own: mine",
            "X-Forwarded-For: 1.2.3.4",
            "Keep-Alive: 5",
        )
        async with raw_client(gateway, *lines) as client:
            assert client.head["sec-websocket-protocol"] in {"b", "c"}
            assert "sec-websocket-extensions" not in client.head
            assert client.head["x-credits-reserved"] == "10.5"
            [connection] = agent.connections
            request = connection.request
            assert request is not None
            assert request.path == "/agent"
            headers = request.headers
            assert headers["Host"] == agent.url.removeprefix("http://")
            assert headers["Authorization"] == "secret"
            assert headers.get_all("X-Own") == ["1"]
            assert headers["Cookie"] == "x=y"
            assert headers["Origin"] == "https://page.example"
            assert headers["X-Forwarded-For"] == "127.0.0.1"
            assert headers["X-Request-Id"] == client.head["x-request-id"]
            assert headers["Sec-WebSocket-Key"] != "dGhlIHNhbXBsZSBub25jZQ=="
            assert "Sec-WebSocket-Extensions" not in headers
            assert "Keep-Alive" not in headers
            assert gateway.key.text not in str(headers)
            assert connection.subprotocol == client.head["sec-websocket-protocol"]


async def test_what_the_agent_says_with_its_agreement_passes_but_for_what_is_ours(
    clean_redis_url: str, postgres_url: str
) -> None:
    async def script(talk: Conversation) -> None:
        request = await talk.request()
        key = request.header(b"Sec-WebSocket-Key")
        assert key is not None
        await talk.send(
            b"HTTP/1.1 101 OK\r\nUpgrade: websocket\r\nConnection: Upgrade, X-Hop\r\n"
            b"Sec-WebSocket-Accept: " + accept_of(key) + b"\r\nX-Hop: 1\r\nSet-Cookie: a=b\r\n"
            b"X-Credits-Remaining: 7\r\nX-Request-Id: mine\r\n\r\n\x81\x05early"
        )
        await talk.gone()

    async with (
        asyncio.timeout(DEADLINE_S),
        nasty_upstream(script) as agent,
        running_gateway(clean_redis_url, postgres_url, [talk_route(agent.url)]) as gateway,
        raw_client(gateway) as client,
    ):
        assert client.head["set-cookie"] == "a=b"
        assert "x-hop" not in client.head
        assert client.head["x-credits-remaining"] == "89.5"
        assert client.head["sec-websocket-accept"] == ACCEPT
        assert bytes((await client.frame()).data) == b"early"


async def test_compression_is_agreed_to_on_neither_side(
    clean_redis_url: str, postgres_url: str
) -> None:
    async with (
        asyncio.timeout(DEADLINE_S),
        talking_agent(compression="deflate") as agent,
        running_gateway(clean_redis_url, postgres_url, [talk_route(agent.url)]) as gateway,
        talk(gateway, extensions=[ClientPerMessageDeflateFactory()]) as client,
    ):
        assert client.protocol.extensions == []
        assert agent.connections[0].protocol.extensions == []
        await client.send("a" * 10_000)
        assert await client.recv() == "a" * 10_000


async def test_denials_before_the_upgrade_are_ordinary_answers(
    clean_redis_url: str, postgres_url: str
) -> None:
    routes = [talk_route(NOWHERE)]
    async with (
        asyncio.timeout(DEADLINE_S),
        running_gateway(clean_redis_url, postgres_url, routes, microcredits=CREDIT) as gateway,
    ):
        with pytest.raises(InvalidStatus) as poor:
            await talk(gateway)
        assert poor.value.response.status_code == 402
        assert orjson.loads(poor.value.response.body or b"")["needed"] == "10.5"
        with pytest.raises(InvalidStatus) as unknown:
            await talk(gateway, headers={"Authorization": "Bearer tk_dev_nobody"})
        assert unknown.value.response.status_code == 401
        with pytest.raises(InvalidStatus) as lost:
            await talk(gateway, "/elsewhere")
        assert lost.value.response.status_code == 404
        assert await gateway.balance() == (CREDIT, 0)


async def test_a_route_that_is_no_websocket_is_none_and_one_that_is_is_nothing_else(
    clean_redis_url: str, postgres_url: str
) -> None:
    routes = [
        talk_route(NOWHERE, methods=()),
        open_route(NOWHERE),
        chat_route(NOWHERE, methods=("GET",), protocol=Protocol.MCP),
    ]
    async with (
        asyncio.timeout(DEADLINE_S),
        running_gateway(clean_redis_url, postgres_url, routes) as gateway,
    ):
        for path in ("/any/x", "/chat"):
            status, headers, body = await refusal(gateway, handshake(gateway, path=path))
            assert (status, headers["Connection"]) == (400, "close")
            assert b"This route is not a WebSocket." in body
        for method in ("GET", "POST"):
            answer = await gateway.call("/talk", method=method)
            assert (answer.status, orjson.loads(answer.body)["code"]) == (426, "upgrade_required")
            assert answer.headers["Upgrade"] == "websocket"
            assert answer.headers["Connection"] == "Upgrade"
        assert await gateway.balance() == (0, 0)  # Redis was never asked


BAD = {
    "another protocol": (400, b"Upgrade: WebSocket", b"Upgrade: h2c"),
    "two protocols": (400, b"Upgrade: WebSocket", b"Upgrade: websocket, h2c"),
    "asked twice": (400, b"Upgrade: WebSocket", b"Upgrade: websocket\r\nUpgrade: websocket"),
    "not asked hop by hop": (400, b"keep-alive, Upgrade", b"keep-alive"),
    "another method": (400, b"GET /talk", b"POST /talk"),
    "an old HTTP": (400, b"HTTP/1.1", b"HTTP/1.0"),
    "a body": (400, b"Host: gateway", b"Host: gateway\r\nContent-Length: 1"),
    "a chunked body": (400, b"Host: gateway", b"Host: gateway\r\nTransfer-Encoding: chunked"),
    "no key": (400, b"Sec-WebSocket-Key", b"Sec-WebSocket-Kex"),
    "a short key": (400, b"b25jZQ==", b"b25j"),
    "a key that is none": (400, b"b25jZQ==", b"!!!!!!!="),
    "another version": (426, b"Version: 13", b"Version: 8"),
    "no version": (426, b"Sec-WebSocket-Version: 13", b"X: y"),
    "an idempotency key": (400, b"Host: gateway", b"Host: gateway\r\nIdempotency-Key: a"),
}


@pytest.mark.parametrize("name", BAD)
async def test_a_handshake_that_is_none_is_refused_and_holds_nothing(
    clean_redis_url: str, postgres_url: str, name: str
) -> None:
    status, good, bad = BAD[name]
    async with (
        asyncio.timeout(DEADLINE_S),
        running_gateway(
            clean_redis_url, postgres_url, [talk_route(NOWHERE, methods=())]
        ) as gateway,
    ):
        request = handshake(gateway)
        assert good in request
        found, headers, _ = await refusal(gateway, request.replace(good, bad))
        assert found == status
        assert headers["Connection"].endswith("close")
        assert ("Sec-WebSocket-Version" in headers) == (status == 426)
        assert await gateway.balance() == (0, 0)  # Redis was never asked


@pytest.mark.parametrize(
    ("answer", "ending"),
    [
        (b"HTTP/1.1 403 Forbidden\r\nX-Why: no\r\nContent-Length: 4\r\n\r\nnope", "client_error"),
        (b"HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n", "client_error"),
        (b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", "upstream_error"),
    ],
)
async def test_an_agent_that_refuses_is_passed_on_as_its_answer_and_costs_nothing(
    clean_redis_url: str, postgres_url: str, answer: bytes, ending: str
) -> None:
    script = speaking(answer, *([b"4\r\nno", b"pe\r\n0\r\n\r\n"] if b"chunked" in answer else []))
    async with (
        asyncio.timeout(DEADLINE_S),
        nasty_upstream(script) as agent,
        running_gateway(clean_redis_url, postgres_url, [talk_route(agent.url)]) as gateway,
    ):
        with pytest.raises(InvalidStatus) as caught:
            await talk(gateway)
        response = caught.value.response
        assert response.status_code == int(answer.split()[1])
        assert response.body == (b"" if b"503" in answer else b"nope")
        assert response.headers.get("X-Why") == ("no" if b"403" in answer else None)
        row = await gateway.settlement()
        assert (row.ending, row.status) == (ending, response.status_code)
        assert row.charged_microcredits == 0
        assert await gateway.balance() == (100 * CREDIT, 0)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecret",
        b"HTTP/1.1 200 OK\r\nContent-Length: 600000\r\n\r\nsecret",
        b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1/\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 101 OK\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        b"\x88\x02\x03\xe8",
    ],
)
async def test_an_agent_that_neither_agrees_nor_refuses_is_a_broken_one(
    clean_redis_url: str, postgres_url: str, answer: bytes
) -> None:
    async with (
        asyncio.timeout(DEADLINE_S),
        nasty_upstream(speaking(answer, then_close=b"\x88" in answer)) as agent,
        running_gateway(clean_redis_url, postgres_url, [talk_route(agent.url)]) as gateway,
    ):
        status, headers, body = await refusal(gateway, handshake(gateway))
        assert status == 502
        assert b"secret" not in body
        assert "Location" not in headers
        row = await gateway.settlement()
        assert (row.ending, row.charged_microcredits) == ("upstream_error", 0)


async def test_an_agent_that_is_not_there_or_never_answers_is_502_and_504(
    clean_redis_url: str, postgres_url: str
) -> None:
    async def silent(talk: Conversation) -> None:
        await talk.request()
        await talk.gone()

    async with (
        asyncio.timeout(DEADLINE_S),
        nasty_upstream(silent) as agent,
        running_gateway(
            clean_redis_url,
            postgres_url,
            [
                talk_route(agent.url, timeouts=Timeouts(first_byte_ms=60)),
                talk_route(NOWHERE, name="nobody", pattern="/nobody"),
            ],
        ) as gateway,
    ):
        assert (await refusal(gateway, handshake(gateway)))[0] == 504
        assert (await refusal(gateway, handshake(gateway, path="/nobody")))[0] == 502
        rows = await gateway.settlements(2)
        assert {row.ending for row in rows} == {"upstream_timeout", "upstream_error"}
        assert await gateway.balance() == (100 * CREDIT, 0)


async def test_a_rule_of_the_route_charges_for_what_its_agent_refuses(
    clean_redis_url: str, postgres_url: str
) -> None:
    rules = {**DEFAULT_RULES, Ending.CLIENT_ERROR: Rule.ACTUAL}
    answer = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"
    async with (
        asyncio.timeout(DEADLINE_S),
        nasty_upstream(answering(answer)) as agent,
        running_gateway(
            clean_redis_url, postgres_url, [talk_route(agent.url, rules=rules)]
        ) as gateway,
    ):
        _, headers, _ = await refusal(gateway, handshake(gateway))
        assert headers["X-Credits-Charged"] == "0.5"
        assert (await gateway.settlement()).charged_microcredits == CREDIT // 2


async def test_a_client_that_leaves_within_the_handshake_is_a_disconnect(
    clean_redis_url: str, postgres_url: str
) -> None:
    async def silent(talk: Conversation) -> None:
        await talk.request()
        await talk.gone()

    async with (
        asyncio.timeout(DEADLINE_S),
        nasty_upstream(silent) as agent,
        running_gateway(clean_redis_url, postgres_url, [talk_route(agent.url)]) as gateway,
    ):
        _, writer = await gateway.connect()
        writer.write(handshake(gateway))
        await agent.arrived.wait()
        writer.transport.abort()
        row = await gateway.settlement()
        assert row.ending == "client_disconnect"
        await eventually(lambda: not agent.open)
        assert gateway.worker._proxy._calls == {}


@pytest.mark.parametrize("cut", [0, 1, 2, 5, 7, 30])
async def test_frames_that_a_client_sends_with_its_handshake_are_not_lost(
    clean_redis_url: str, postgres_url: str, cut: int
) -> None:
    async with (
        asyncio.timeout(DEADLINE_S),
        talking_agent() as agent,
        running_gateway(clean_redis_url, postgres_url, [talk_route(agent.url)]) as gateway,
    ):
        reader, writer = await gateway.connect()
        frames = masked(Opcode.TEXT, b"one") + masked(Opcode.TEXT, b"two")
        writer.write(handshake(gateway) + frames[:cut])
        await reader.readuntil(b"\r\n\r\n")
        writer.write(frames[cut:])
        client = RawClient(reader, writer)
        assert [bytes((await client.frame()).data) for _ in "12"] == [b"one", b"two"]
        writer.close()
