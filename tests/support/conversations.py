"""WebSockets through a gateway: routes, agents of the `websockets` library, raw clients."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed
from websockets.frames import Close, Frame, Opcode

from gateway.upstream.websocket import accept_of
from policies.catalog import MeterSpec, Price, Protocol, Route, Source, WebSocketRule
from tests.support.gateway import CREDIT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from websockets.asyncio.server import ServerConnection

    from tests.support.gateway import Gateway
    from tests.support.nasty_upstream import Conversation

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def counted(source: str, *, credits_per_unit: str = "1", reserve: int = 10) -> MeterSpec:
    """A meter of a WebSocket, such as `websocket.messages:in`."""
    kind, _, argument = source.partition(":")
    whole, _, part = credits_per_unit.partition(".")
    pico = int(whole) * 10**12 + int(part.ljust(12, "0"))
    return MeterSpec(
        source.replace(".", "_").replace(":", "_"), (Source(kind, argument),), pico, reserve
    )


# Looked at twenty times a second.
SOON = WebSocketRule(check_ms=50)
PER_MESSAGE = Price(meters=(counted("websocket.messages:in", reserve=2),))
PER_SECOND = Price(meters=(counted("duration:ms", credits_per_unit="0.001", reserve=100),))
PER_CALL = Price(per_request_microcredits=CREDIT)
# Half a credit, and one for each message of the client; holds 10.5.
TALK_PRICE = Price(per_request_microcredits=CREDIT // 2, meters=(counted("websocket.messages:in"),))


def talk_route(upstream: str, **changes: object) -> Route:
    """GET /talk to an agent, a credit for each message; checked every minute."""
    fields = {
        "name": "talk",
        "methods": ("GET",),
        "pattern": "/talk",
        "price": TALK_PRICE,
        "protocol": Protocol.WEBSOCKET,
        "websocket": WebSocketRule(check_ms=60_000),
        **changes,
    }
    return Route(upstream=upstream, **fields)  # type: ignore[arg-type]


class TalkingAgent:
    """A server of the `websockets` library, and what it has seen."""

    def __init__(self) -> None:
        self.url = ""
        self.connections: list[ServerConnection] = []
        self.closes: list[tuple[int | None, str | None]] = []
        self.ended = asyncio.Event()


@asynccontextmanager
async def talking_agent(
    handle: Callable[[ServerConnection], Awaitable[None]] | None = None, **options: Any
) -> AsyncIterator[TalkingAgent]:
    """An agent that says what it hears, unless `handle` says something else."""
    agent = TalkingAgent()

    async def echo(connection: ServerConnection) -> None:
        async for message in connection:
            await connection.send(message)

    async def run(connection: ServerConnection) -> None:
        agent.connections.append(connection)
        try:
            await (handle or echo)(connection)
        finally:
            await connection.close()
            agent.closes.append((connection.close_code, connection.close_reason))
            agent.ended.set()

    async with serve(run, "127.0.0.1", 0, **options) as server:
        agent.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield agent


def talk(gateway: Gateway, path: str = "/talk", **options: Any) -> connect:
    """A client of the `websockets` library with the account's key."""
    headers = {**gateway.authorization, **options.pop("headers", {})}
    url = gateway.url.replace("http:", "ws:") + path
    return connect(url, additional_headers=headers, proxy=None, **options)


class RawClient:
    """A client that sends what no library would. Everything it receives is kept in order."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.head: dict[str, str] = {}  # of the agreement, names in lower case

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def frame(self) -> Frame:
        """The next frame from the gateway."""
        first, second = await self.reader.readexactly(2)
        assert not second & 0x80, "what a server sends is not masked"
        length = second & 0x7F
        if length >= 126:
            length = int.from_bytes(await self.reader.readexactly(2 if length == 126 else 8))
        data = await self.reader.readexactly(length)
        return Frame(Opcode(first & 0x0F), data, bool(first & 0x80))

    async def close_frame(self) -> tuple[int, str]:
        """Code and reason of the next frame, which is a close."""
        frame = await self.frame()
        assert frame.opcode is Opcode.CLOSE, frame
        return int.from_bytes(frame.data[:2]), bytes(frame.data[2:]).decode()

    async def ended(self) -> bytes:
        """What comes until the gateway closes the connection."""
        return await self.reader.read()


def masked(opcode: Opcode, data: bytes = b"", *, fin: bool = True) -> bytes:
    """A frame as a client sends it."""
    return Frame(opcode, data, fin).serialize(mask=True)


def handshake(gateway: Gateway, *lines: str, path: str = "/talk") -> bytes:
    """A client's request to become a WebSocket."""
    return gateway.head(
        f"GET {path} HTTP/1.1",
        "Connection: keep-alive, Upgrade",
        "Upgrade: WebSocket",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {KEY}",
        *lines,
    )


@asynccontextmanager
async def raw_client(gateway: Gateway, *lines: str) -> AsyncIterator[RawClient]:
    """A raw WebSocket that is open."""
    reader, writer = await gateway.connect()
    writer.write(handshake(gateway, *lines))
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 Switching Protocols\r\n"), head
    assert f"Sec-WebSocket-Accept: {ACCEPT}\r\n".encode() in head
    client = RawClient(reader, writer)
    for line in head.decode().split("\r\n")[1:]:
        name, _, value = line.partition(": ")
        client.head[name.lower()] = value
    try:
        yield client
    finally:
        writer.transport.abort()


async def closed(client: Any) -> Close | None:
    """What a client of the library is closed with; it takes what comes before."""
    with contextlib.suppress(ConnectionClosed):
        while True:
            await client.recv()
    close: Close | None = client.protocol.close_rcvd
    return close


async def silent(connection: ServerConnection) -> None:
    """An agent that says nothing, and leaves when its client does."""
    with contextlib.suppress(ConnectionClosed):
        while True:
            await connection.recv()


def agreeing(*parts: bytes, then: Callable[[Conversation], Awaitable[None]]) -> Any:
    """A raw agent: agrees, sends, and then does something else."""

    async def script(talk: Conversation) -> None:
        key = (await talk.request()).header(b"Sec-WebSocket-Key")
        assert key is not None
        head = b"HTTP/1.1 101 OK\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        await talk.send(head + b"Sec-WebSocket-Accept: " + accept_of(key) + b"\r\n\r\n")
        await talk.send(*parts)
        await then(talk)

    return script
