"""The listening side: aiohttp's low-level server with the bounds it lacks.

aiohttp sets no time limit on reading a request head and answers malformed heads by echoing them,
API keys included, into the body and the log (FACTS). `Connection` gives every head a deadline,
caps the connections, and answers malformed requests with a fixed text. `Call` is both ends of one
request for aiohttp: it is built from the parsed head, and it is what the handler returns; the
handler itself writes the bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any, cast

from aiohttp import http_parser
from aiohttp.web import Server
from aiohttp.web_protocol import RequestHandler, _ErrInfo

from gateway.errors import INTERNAL, Refusal, bad_request, reason, render
from policies.catalog import ErrorStyle

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiohttp.http_parser import RawRequestMessage
    from aiohttp.streams import StreamReader

HEAD_SWEEP_INTERVAL_S = 0.5
HEADERS_MAX = 128
LINGER_S = 2.0

log = logging.getLogger("tollkeeper.proxy")


class Call:
    """One request on a connection: what came in, and the way for the answer out."""

    __slots__ = (
        "answered",
        "connection",
        "gone",
        "interruptible",
        "keep_alive",
        "message",
        "payload",
    )

    def __init__(
        self, message: RawRequestMessage, payload: StreamReader, connection: Connection
    ) -> None:
        self.message = message
        self.payload = payload
        self.connection = connection
        self.keep_alive = not message.should_close
        self.answered = False
        self.gone = False
        self.interruptible = False

    def write(self, data: bytes) -> None:
        """Hand bytes to the client's socket; nothing happens when it has gone."""
        self.answered = True
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

    def uncancel(self) -> None:
        """Go on after an interruption that was the client's leaving."""
        task = asyncio.current_task()
        if task is not None:
            task.uncancel()

    def _cancel(self, exc: BaseException) -> None:
        """Hear from aiohttp that the client has left, or that the worker's deadline has passed."""
        self.gone = not isinstance(exc, asyncio.CancelledError)
        self.payload.set_exception(exc)
        if self.interruptible:
            self.connection.interrupt()


class Connection(RequestHandler):
    """A client's connection: one call after the other, each head with a deadline.

    aiohttp parses and buffers; the loop over the requests is ours (`start`): aiohttp's makes
    a task, a writer and a response object for each request, a tenth of a call's cost here.
    """

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

    async def start(self) -> None:
        """Serve this connection's requests in order, until it ends."""
        manager = cast("ProxyServer", self._manager)
        handle = manager.handle
        try:
            while not self._force_close:
                if not self._messages:
                    await self._next_message()
                message, payload = self._messages.popleft()
                self._make_room()
                if isinstance(message, _ErrInfo):
                    self._answer_malformed(message)
                    break
                call = Call(message, payload, self)
                self._current_request = cast("Any", call)
                self._request_in_progress = True
                try:
                    await handle(call)
                except Exception:
                    log.exception("a call failed in the gateway")
                    self._answer_failed(call)
                finally:
                    self._current_request = None
                    self._request_in_progress = False
                    if self._handler_waiter is not None:
                        self._handler_waiter.set_result(None)
                if not payload.is_eof():
                    call.keep_alive = False
                    await self._linger(payload)
                if not call.keep_alive or self._close:
                    break
                self._await_next_request()
        finally:
            self._task_handler = None
            if self.transport is not None:
                self.transport.close()

    def interrupt(self) -> None:
        """Cancel what the running call waits for."""
        if self._task_handler is not None:
            self._task_handler.cancel()

    async def _next_message(self) -> None:
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _make_room(self) -> None:
        """A pipelined request has left the queue: let the parser and the socket go on."""
        if self._parser is not None:
            self._parser.message_consumed()
        if self._buffer_paused and len(self._messages) <= self._msg_queue_resume_size:
            self._resume_reading_if_drained()

    def _await_next_request(self) -> None:
        """Close the connection if no request comes for the keep-alive time."""
        close_time = self._loop.time() + self._keepalive_timeout
        self._keepalive = True
        self._next_keepalive_close_time = close_time
        if self._keepalive_handle is None:
            self._keepalive_handle = self._loop.call_at(close_time, self._process_keepalive)

    async def _linger(self, payload: StreamReader) -> None:
        """Read what the client still sends, for a while: closing now could lose it our answer."""
        with contextlib.suppress(Exception):
            async with asyncio.timeout(LINGER_S):
                while not payload.is_eof():
                    await payload.readany()

    def _answer_malformed(self, error: _ErrInfo) -> None:
        """Answer with a fixed text. aiohttp's quotes the request, a key in it included."""
        log.info("refused a malformed request: %s", type(error.exc).__name__)
        self._answer_error(bad_request("The request is not valid HTTP/1.1."))

    def _answer_failed(self, call: Call) -> None:
        call.keep_alive = False
        if call.answered:
            call.abort()
        else:
            self._answer_error(INTERNAL)

    def _answer_error(self, refusal: Refusal) -> None:
        content_type, body = render(refusal, ErrorStyle.PROBLEM, "")
        if self.transport is not None:
            self.transport.write(
                b"HTTP/1.1 %d %b\r\nContent-Type: %b\r\nContent-Length: %d\r\n"
                b"Connection: close\r\n\r\n%b"
                % (
                    refusal.status,
                    reason(refusal.status).encode(),
                    content_type,
                    len(body),
                    body,
                )
            )


class ProxyServer(Server):
    """Makes `Connection`s, and closes those whose request head is late."""

    def __init__(
        self,
        handle: Callable[[Call], Awaitable[None]],
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
            cast("Any", handle),
            keepalive_timeout=keepalive_timeout_s,
            max_line_size=header_bytes_max,
            max_field_size=header_bytes_max,
            max_headers=HEADERS_MAX,
            auto_decompress=False,
            access_log=None,
        )
        self.handle = handle
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
