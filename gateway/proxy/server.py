"""The listening side: aiohttp's low-level server with the bounds it lacks.

aiohttp sets no time limit on reading a request head and answers malformed heads by echoing them,
API keys included, into the body and the log (FACTS). `Connection` gives every head a deadline,
caps the connections, and answers malformed requests with a fixed text. `Call` is both ends of one
request for aiohttp: it is built from the parsed head, and it is what the handler returns; the
handler itself writes the bytes.

How a connection ends, and what of its answers still leaves:

    last answer written, or `close` while idle   all of it, if the client takes it in time
    `force_close`: late head, keep-alive over    what the kernel has already
    `reset`: an answer cut in its middle         nothing for sure; the client sees an error
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct
from typing import TYPE_CHECKING, Any, Protocol, cast

from aiohttp import http_parser
from aiohttp.http_writer import HttpVersion11
from aiohttp.web import RequestPayloadError, Server
from aiohttp.web_protocol import RequestHandler, _ErrInfo

from gateway.errors import INTERNAL, Refusal, bad_request, reason, render
from policies.catalog import ErrorStyle

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiohttp.http_parser import RawRequestMessage
    from aiohttp.streams import StreamReader

HEAD_SWEEP_INTERVAL_S = 0.5
HEADERS_MAX = 128
# Calls of clients that have left; they do not count as connections.
DETACHED_MAX = 1_000
LINGER_S = 2.0
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)

log = logging.getLogger("tollkeeper.proxy")


class Call:
    """One request on a connection: what came in, and the way for the answer out."""

    __slots__ = (
        "answered",
        "connection",
        "detached",
        "gone",
        "idle",
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
        # HTTP/1.0 has to be told of a connection that stays open: it never does. What comes behind
        # a request to upgrade is not read as HTTP, whatever becomes of it.
        self.keep_alive = (
            message.version == HttpVersion11 and not message.should_close and not message.upgrade
        )
        self.answered = False
        self.gone = False
        self.interruptible = False
        self.detached = False  # it runs on when its client leaves: a retry will ask for its end
        self.idle = False  # nothing is lost when it ends: it need not be waited for

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
        self.connection.reset()

    def uncancel(self) -> None:
        """Go on after an interruption that was the client's leaving."""
        task = asyncio.current_task()
        if task is not None:
            task.uncancel()

    def attach(self) -> None:
        """End with its client from now on, and soon if that has left already."""
        self.detached = False
        if self.gone:
            asyncio.get_running_loop().call_soon(self._stop)

    def _stop(self) -> None:
        if self.interruptible:  # else it has ended meanwhile, or is about to
            self.connection.interrupt()

    def _cancel(self, exc: BaseException) -> None:
        """Hear from aiohttp that the client has left, or from `cut` that time is over.

        `gone` also keeps a call from its agent that had not come so far when time was over.
        """
        client_left = not isinstance(exc, asyncio.CancelledError)
        self.gone = self.gone or client_left or not self.interruptible
        if not self.payload.is_eof():
            self.payload.set_exception(exc)
        if self.interruptible and not (
            client_left and self.detached and self.connection.outlived_by_its_call()
        ):
            self.connection.interrupt()


class Upgraded(Protocol):
    """Who reads a connection that has left HTTP."""

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """Take the next bytes; nothing of them is left over."""

    def feed_eof(self) -> None:
        """Hear that the connection is closed."""

    def writable(self) -> None:
        """Hear that `writing_paused` is over."""

    def stop(self) -> None:
        """End soon: this worker stops."""

    def cut(self) -> None:
        """End now: its deadline has passed."""


class Connection(RequestHandler):
    """A client's connection: one call after the other, each head with a deadline.

    aiohttp parses and buffers; the loop over the requests is ours (`start`): aiohttp's makes
    a task, a writer and a response object for each request, a tenth of a call's cost here.
    """

    __slots__ = (
        "body_timeout_s",
        "closing",
        "forwarded_for",
        "head_since",
        "server",
        "task",
        "upgraded",
    )

    def __init__(self, manager: ProxyServer, body_timeout_s: float, **options: Any) -> None:
        super().__init__(manager, **options)
        self.server = manager  # aiohttp forgets it with the connection
        self.body_timeout_s = body_timeout_s
        self.closing = False  # no request is awaited any more
        self.head_since = 0.0  # loop time at which a head began to be awaited; 0: none is
        self.forwarded_for = b""
        self.upgraded: Upgraded | None = None
        self.task: asyncio.Task[None] | None = None  # runs `start`; aiohttp forgets its own

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Refuse connections over the bound; otherwise start waiting for a head."""
        super().connection_made(transport)
        self.task = self._task_handler
        manager = cast("ProxyServer", self._manager)
        peer = transport.get_extra_info("peername")
        address = peer[0] if isinstance(peer, tuple) else "unix"
        scheme = "https" if transport.get_extra_info("sslcontext") else "http"
        lines = f"X-Forwarded-For: {address}\r\nX-Forwarded-Proto: {scheme}\r\n"
        self.forwarded_for = lines.encode("ascii")
        self.head_since = self._loop.time()
        if manager.stopping:
            self.force_close()
        elif len(manager.connections) > manager.connections_max:
            log.warning("connection refused: %d are open", manager.connections_max)
            self.force_close()

    def data_received(self, data: bytes) -> None:
        """Parse, and note whether an unfinished head is left waiting."""
        super().data_received(data)
        if self._request_in_progress:
            self.head_since = 0.0
            if self._messages:
                self._tell_broken_body()
        elif self._messages:
            self.head_since = 0.0
            if len(self._messages) > 1:
                self._tell_broken_body()
        elif not self.head_since:
            self.head_since = self._loop.time()

    def resume_reading(self, resume_parser: bool = True) -> None:
        """Go on reading if it was paused. aiohttp asks at the end of every body, paused or not."""
        if resume_parser or self._reading_paused or self._buffer_paused:
            super().resume_reading(resume_parser)

    def resume_writing(self) -> None:
        """Tell whoever waits for room."""
        super().resume_writing()
        if self.upgraded is not None:
            self.upgraded.writable()

    def upgrade(self, upgraded: Upgraded) -> None:
        """Hand over what the client sends behind its request: no further one is read from it."""
        self.upgraded = upgraded
        self.set_parser(cast("Any", upgraded))
        if self.transport is None:
            upgraded.feed_eof()
        elif self.closing:
            upgraded.stop()

    async def start(self) -> None:
        """Serve this connection's requests in order, until it ends."""
        manager = cast("ProxyServer", self._manager)
        handle = manager.handle
        try:
            while await self._has_next():
                message, payload = self._messages.popleft()
                self._make_room()
                if isinstance(message, _ErrInfo):
                    self._answer_malformed(message)
                    break
                call = Call(message, payload, self)
                if self.closing or manager.leaving:
                    call.keep_alive = False
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
                if not payload.is_eof():
                    call.keep_alive = False
                    await self._linger(payload)
                if not call.keep_alive:
                    break
                if self._paused and not await self._taken():
                    break
                # Close the connection if no request comes for the keep-alive time.
                self._keepalive = True
                self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
                if self._keepalive_handle is None:
                    self._keepalive_handle = self._loop.call_at(
                        self._next_keepalive_close_time, self._process_keepalive
                    )
            await self._deliver()
        finally:
            self._task_handler = None
            if self.transport is not None:
                self.transport.abort()

    def close(self) -> None:
        """Take no further request. The one that is here ends first, unless it is idle.

        One that has left HTTP may have no end in sight: it is asked to end.
        """
        self.closing = True
        call = cast("Call | None", self._current_request)
        if call is not None:
            call.keep_alive = False
            if call.idle:
                self.cut()
        if self.upgraded is not None:
            self.upgraded.stop()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def force_close(self) -> None:
        """Close without waiting for a peer that does not take what was written long ago."""
        self.closing = True
        transport = self.transport
        super().force_close()
        if transport is not None:
            transport.abort()

    def reset(self) -> None:
        """Close with an error that the client sees: by RST.

        In HTTP/1.0 an orderly end of the connection would be the answer's end.
        """
        transport = self.transport
        if transport is not None:
            with contextlib.suppress(OSError):
                transport.get_extra_info("socket").setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE
                )
            transport.abort()

    def cut(self) -> None:
        """End what still runs: the worker's deadline for calls has passed."""
        call = cast("Call | None", self._current_request)
        if call is None:
            if self.task is not None:
                self.task.cancel()
        elif self.upgraded is not None:
            self.upgraded.cut()
        else:
            call._cancel(asyncio.CancelledError())  # noqa: SLF001 - as aiohttp calls it

    def interrupt(self) -> None:
        """Cancel what the running call waits for."""
        if self.task is not None:
            self.task.cancel()

    def outlived_by_its_call(self) -> bool:
        """Keep the call of a client that has left, if there is room for one more."""
        detached, task = self.server.detached, self.task
        if task is None or len(detached) >= DETACHED_MAX:
            return False
        detached.add(self)
        task.add_done_callback(lambda _: detached.discard(self))
        return True

    async def _has_next(self) -> bool:
        """Wait for the next request; False when the connection is to end instead."""
        if self._messages:
            # Pipelined: without this a client could keep all others waiting.
            await asyncio.sleep(0)
        elif not self.closing:
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return not self.closing or (bool(self._messages) and not self._force_close)

    def _make_room(self) -> None:
        """A pipelined request has left the queue: let the parser and the socket go on."""
        if self._parser is not None:
            self._parser.message_consumed()
        if self._buffer_paused and len(self._messages) <= self._msg_queue_resume_size:
            self._resume_reading_if_drained()

    def _tell_broken_body(self) -> None:
        """Tell the reader of a body whose framing broke. aiohttp's parser drops it silently."""
        if not isinstance(self._messages[-1][0], _ErrInfo):
            return
        call = cast("Call | None", self._current_request)
        if len(self._messages) > 1:
            payload = self._messages[-2][1]
        elif call is not None:
            payload = call.payload
        else:
            return
        if not payload.is_eof():
            payload.set_exception(RequestPayloadError("the body's framing is broken"))

    async def _taken(self) -> bool:
        """Wait until a slow client has taken its answers; False when it does not."""
        try:
            async with asyncio.timeout(self.body_timeout_s):
                await self._drain_helper()
        except (ConnectionError, TimeoutError):
            self.reset()
            return False
        return True

    async def _deliver(self) -> None:
        """Wait until the last answer has left: what is written can be lost by closing."""
        transport = self.transport
        if transport is not None and not transport.is_closing():
            transport.set_write_buffer_limits(high=0)
            if self._paused:
                await self._taken()

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
        body_timeout_s: float,
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
        self.leaving = False  # every answer is the last of its connection
        self.stopping = False
        self.detached: set[Connection] = set()  # whose calls run on without a client
        self._body_timeout_s = body_timeout_s
        self._head_timeout_s = head_timeout_s

    def __call__(self) -> Connection:
        """A protocol for the next accepted connection."""
        return Connection(self, self._body_timeout_s, loop=self._loop, **self._kwargs)

    async def finish(self, deadline_s: float, *, settle_s: float) -> None:
        """End all calls: idle connections now, running calls at their end or at the deadline.

        Calls that are cut at the deadline then have `settle_s` to settle. Connections that are
        made meanwhile are closed.
        """
        self.stopping = True
        connections = [*cast("list[Connection]", self.connections), *self.detached]
        for connection in connections:
            connection.close()
        running = {connection.task for connection in connections if connection.task is not None}
        if not running:
            return
        _, running = await asyncio.wait(running, timeout=deadline_s)
        if not running:
            return
        log.warning("cutting %d connections: their calls did not end in time", len(running))
        for connection in connections:
            if connection.task in running:
                connection.cut()
        _, running = await asyncio.wait(running, timeout=settle_s)
        for task in running:
            log.error("a call could not be settled in time; its lease will end it")
            task.cancel()

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
