"""An agent that misbehaves on purpose: a raw socket server, scripted byte by byte.

    half = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel"
    async with nasty_upstream(answering(half, then_close=True)) as agent:
        ...agent.url...

Each connection runs one script, the first the first, the second the second, further ones the last.
A script is a coroutine function that gets a `Conversation`; when it returns, the connection is
closed. What came in is kept in `agent.requests`.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Awaitable, Callable

    Script = Callable[["Conversation"], Awaitable[None]]

HEAD_MAX_BYTES = 1 << 20


@dataclass(frozen=True)
class Request:
    """One request as it came; `body` without chunk framing."""

    head: bytes
    body: bytes

    def header(self, name: bytes) -> bytes | None:
        """The value of the first header of that name (any case), or None."""
        for line in self.head.split(b"\r\n")[1:]:
            key, _, value = line.partition(b":")
            if key.strip().lower() == name.lower():
                return value.strip()
        return None


@dataclass
class Agent:
    """What the test holds: where the server is and what it has seen."""

    url: str
    port: int
    requests: list[Request] = field(default_factory=list)
    connections: int = 0  # accepted so far
    open: int = 0  # accepted and not closed by either side
    arrived: asyncio.Event = field(default_factory=asyncio.Event)  # set at each request


class Conversation:
    """One connection, as its script sees it."""

    def __init__(
        self, agent: Agent, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.agent = agent
        self.reader = reader
        self.writer = writer

    async def head(self) -> bytes:
        """The next request's head, its body left where it is.

        Raises: asyncio.IncompleteReadError when the client closes instead.
        """
        return await self.reader.readuntil(b"\r\n\r\n")

    async def request(self) -> Request:
        """The next request, whole. Raises as `head`."""
        head = await self.head()
        request = Request(head, b"")
        if (request.header(b"Transfer-Encoding") or b"").lower() == b"chunked":
            request = Request(head, await self._chunks())
        else:
            length = int(request.header(b"Content-Length") or b"0")
            request = Request(head, await self.reader.readexactly(length))
        self.agent.requests.append(request)
        self.agent.arrived.set()
        return request

    async def send(self, *parts: bytes) -> None:
        """Each part in a write of its own, the loop given a turn in between."""
        for part in parts:
            self.writer.write(part)
            await self.writer.drain()
            await asyncio.sleep(0)

    async def send_slowly(self, data: bytes, *, size: int = 1, pause_s: float = 0.0) -> None:
        """Piece by piece with a pause before each."""
        for start in range(0, len(data), size):
            await asyncio.sleep(pause_s)
            await self.send(data[start : start + size])

    async def gone(self) -> None:
        """Returns when the client has closed; what it still sends is thrown away."""
        with suppress(ConnectionError):
            while await self.reader.read(65536):
                pass

    def reset(self) -> None:
        """Closes with RST instead of FIN, as a killed process or a firewall does."""
        raw = self.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def _chunks(self) -> bytes:
        body = b""
        while True:
            size = int((await self.reader.readuntil(b"\r\n")).split(b";")[0], 16)
            piece = await self.reader.readexactly(size + 2)
            body += piece[:-2]
            if size == 0:
                return body


def answering(*answers: bytes, then_close: bool = False) -> Script:
    """One raw answer per request, in one write; the last one repeats unless `then_close`."""

    async def script(talk: Conversation) -> None:
        for answer in answers:
            await talk.request()
            await talk.send(answer)
        while not then_close:
            await talk.request()
            await talk.send(answers[-1])

    return script


def speaking(*parts: bytes, then_close: bool = False) -> Script:
    """One answer to one request, in as many writes as there are parts, then silence or the end."""

    async def script(talk: Conversation) -> None:
        await talk.request()
        await talk.send(*parts)
        if not then_close:
            await talk.gone()

    return script


@asynccontextmanager
async def nasty_upstream(
    *scripts: Script,
    tls: ssl.SSLContext | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
) -> AsyncIterator[Agent]:
    """Serves the scripts on `host`, on a free port when it is 0, until the block ends."""
    agent = Agent("", 0)
    running: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        running.add(task)
        script = scripts[min(agent.connections, len(scripts) - 1)]
        agent.connections += 1
        agent.open += 1
        try:
            with suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
                await script(Conversation(agent, reader, writer))
        finally:
            agent.open -= 1
            running.discard(task)
            writer.close()

    server = await asyncio.start_server(serve, host, port, ssl=tls, limit=HEAD_MAX_BYTES)
    agent.port = server.sockets[0].getsockname()[1]
    shown = f"[{host}]" if ":" in host else host
    agent.url = f"{'https' if tls else 'http'}://{shown}:{agent.port}"
    try:
        yield agent
    finally:
        server.close()
        for task in tuple(running):
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
