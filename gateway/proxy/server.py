"""The listening side: aiohttp's low-level server with the bounds it lacks.

aiohttp sets no time limit on reading a request head and answers malformed heads by echoing them,
API keys included, into the body and the log (FACTS). `Connection` gives every head a deadline,
caps the connections, and answers malformed requests with a fixed text. `Call` is both ends of one
request for aiohttp: it is built from the parsed head, and it is what the handler returns; the
handler itself writes the bytes.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, cast

from aiohttp import http_parser
from aiohttp.web import Server
from aiohttp.web_protocol import RequestHandler

from gateway.errors import INTERNAL, bad_request, reason, render
from policies.catalog import ErrorStyle

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiohttp.http_parser import RawRequestMessage
    from aiohttp.streams import StreamReader

HEAD_SWEEP_INTERVAL_S = 0.5
HEADERS_MAX = 128

log = logging.getLogger("tollkeeper.proxy")


class Call:
    """One request on a connection, and aiohttp's handle on its answer."""

    __slots__ = ("_task", "connection", "gone", "interruptible", "keep_alive", "message", "payload")

    def __init__(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: Connection,
        _writer: object,
        _task: object,
    ) -> None:
        self.message = message
        self.payload = payload
        self.connection = protocol
        self.gone = False
        self.interruptible: asyncio.Task[Any] | None = None
        self.keep_alive = not message.should_close
        self._task = None  # aiohttp resets it after each request

    def write(self, data: bytes) -> None:
        """Hand bytes to the client's socket; nothing happens when it has gone."""
        transport = self.connection.transport
        if transport is not None:
            transport.write(data)

    async def drained(self, timeout_s: float) -> None:
        """Wait until a slow client has taken what was written.

        Raises: ConnectionError when the client left; TimeoutError when it took nothing for that
        long.
        """
        if self.connection.writing_paused:
            async with asyncio.timeout(timeout_s):
                await self.connection._drain_helper()  # noqa: SLF001 - aiohttp's own back-pressure

    def abort(self) -> None:
        """Cut the connection so that the client can't take a partial answer for a whole one."""
        self.keep_alive = False
        transport = self.connection.transport
        if transport is not None:
            transport.abort()

    # What aiohttp's protocol asks of a request.

    def _cancel(self, exc: BaseException) -> None:
        self.gone = True
        self.payload.set_exception(exc)
        if self.interruptible is not None:
            self.interruptible.cancel()

    def _finish(self) -> None:
        return

    # What aiohttp's protocol asks of a response.

    async def prepare(self, _request: object) -> None:
        """Nothing is left to prepare: the handler has written the answer."""

    async def write_eof(self) -> None:
        """Nothing is left to write."""


class Connection(RequestHandler):
    """A client's connection with a deadline for every request head."""

    __slots__ = ("forwarded_for", "head_since")

    def __init__(self, manager: ProxyServer, **options: Any) -> None:
        super().__init__(manager, **options)
        self.head_since = 0.0  # loop time at which a head began to be awaited; 0: none is
        self.forwarded_for = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Refuse connections over the bound; otherwise start waiting for a head."""
        super().connection_made(transport)
        manager = cast("ProxyServer", self._manager)
        peer = transport.get_extra_info("peername")
        address = peer[0] if isinstance(peer, tuple) else "unix"
        scheme = "https" if transport.get_extra_info("sslcontext") else "http"
        lines = f"X-Forwarded-For: {address}\r\nX-Forwarded-Proto: {scheme}\r\n"
        self.forwarded_for = lines.encode("ascii")
        self.head_since = self._loop.time()
        if len(manager.connections) > manager.connections_max:
            log.warning("connection refused: %d are open", manager.connections_max)
            self.force_close()

    def data_received(self, data: bytes) -> None:
        """Parse, and note whether an unfinished head is left waiting."""
        super().data_received(data)
        if self._messages or self._request_in_progress:
            self.head_since = 0.0
        elif not self.head_since:
            self.head_since = self._loop.time()

    def handle_error(
        self,
        request: Any,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - aiohttp's text quotes the request, key included
    ) -> Any:
        """Answer a malformed request with a fixed text, and close."""
        kind = type(exc).__name__
        if status >= 500:
            log.error("the handler failed", exc_info=exc)
            status, refusal = 500, INTERNAL
        else:
            log.info("refused a malformed request: %s", kind)
            status, refusal = 400, bad_request("The request is not valid HTTP/1.1.")
        content_type, body = render(refusal, ErrorStyle.PROBLEM, "")
        call = cast("Call", request)
        call.keep_alive = False
        call.write(
            b"HTTP/1.1 %d %b\r\nContent-Type: %b\r\nContent-Length: %d\r\n"
            b"Connection: close\r\n\r\n%b"
            % (status, reason(status).encode(), content_type, len(body), body)
        )
        return call


class ProxyServer(Server):
    """Makes `Connection`s, and closes those whose request head is late."""

    def __init__(
        self,
        handler: Callable[[Call], Awaitable[Call]],
        *,
        head_timeout_s: float,
        keepalive_timeout_s: float,
        connections_max: int,
        header_bytes_max: int,
    ) -> None:
        if http_parser.HttpRequestParser is http_parser.HttpRequestParserPy:
            # The pure-Python parser accepts framing that the C parser refuses (FACTS).
            raise RuntimeError("aiohttp's C extension is missing: reinstall aiohttp from a wheel")
        super().__init__(
            cast("Any", handler),
            request_factory=cast("Any", Call),
            keepalive_timeout=keepalive_timeout_s,
            max_line_size=header_bytes_max,
            max_field_size=header_bytes_max,
            max_headers=HEADERS_MAX,
            auto_decompress=False,
            access_log=None,
        )
        self.connections_max = connections_max
        self._head_timeout_s = head_timeout_s

    def __call__(self) -> Connection:
        """A protocol for the next accepted connection."""
        return Connection(self, loop=self._loop, **self._kwargs)

    async def sweep_late_heads(self) -> None:
        """Close connections whose head did not arrive in time; runs until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(HEAD_SWEEP_INTERVAL_S)
            oldest = loop.time() - self._head_timeout_s
            for connection in self.connections:
                since = cast("Connection", connection).head_since
                if since and since < oldest:
                    connection.force_close()
