"""One connection to an agent: writes a request, parses its answer, one call at a time.

Theory of operation. `httptools` (llhttp) parses what arrives; its callbacks fill the fields of the
answer in progress, and the end of `data_received` looks at what became of it:

    waiter set, head incomplete     the caller waits in `send`, nothing to tell yet
    waiter set, message complete    a whole `Answer`, the connection is free again: the fast path
    waiter set, small length known  waits for the rest, one tick of the watchdog at most
    waiter set, otherwise           a `StreamedAnswer`, which then gets the chunks
    answer set                      chunks go to it; back-pressure by its unread bytes

What llhttp leaves to us: answers to HEAD (it would wait for a body), the version and the status'
range (it takes HTTP/2.0 and 099), codings other than exactly `chunked`, repeated Transfer-Encoding,
control characters in the reason, all bounds, unasked bytes, and what the end of the stream means.
"""

from __future__ import annotations

import asyncio
import re
import select
from typing import TYPE_CHECKING

import httptools

from gateway.upstream.answer import Answer, StreamedAnswer
from gateway.upstream.errors import UpstreamBroken, UpstreamTimeout, UpstreamTruncated
from gateway.upstream.tls import ended_cleanly

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.upstream.errors import Phase
    from gateway.upstream.pool import Pool
    from gateway.upstream.upload import Upload
    from policies.catalog import Timeouts

# A whole body up to this size is waited for (one tick at most) and handed over with the head.
BUFFERED_BODY_MAX_BYTES = 64 * 1024
# Unread bytes at which an answer's connection stops reading. One read of the loop can come on top.
READ_BUFFER_MAX_BYTES = 256 * 1024
HEAD_MAX_BYTES = 64 * 1024
HEADERS_MAX = 200
# A head that came with fewer bytes holds neither bound's excess: the shortest header is 4 bytes.
SUSPECT_HEAD_BYTES = 4 * HEADERS_MAX
# Bytes of chunk framing (extensions, trailers) that may come in a row without a byte of body.
FRAMING_MAX_BYTES = 64 * 1024
# A connection idle for longer is asked whether the peer has closed it before it is used again.
PROBE_AFTER_IDLE_S = 0.5

NEVER = float("inf")

_REASON = re.compile(rb"[\t -~\x80-\xff]*")


class _RefusedError(Exception):
    """Raised inside a parser's callback: the answer is well-formed for llhttp, but not for us."""


class Connection(asyncio.Protocol):
    """A keep-alive connection that belongs to one pool and carries at most one call."""

    __slots__ = (
        "answer",  # StreamedAnswer that chunks go to, once the caller has it
        "chunks",  # body bytes of the answer in progress, nobody has yet
        "closed",
        "complete",  # the message is parsed to its end
        "delimited",  # the body ends where the connection does
        "due",  # loop time from which the watchdog has to look; never, without a call
        "gathering",  # the head is here and the rest of a small body is waited for
        "head",  # headers of the final answer
        "head_bytes",  # received before the head was complete
        "head_done",
        "head_only",  # the call is HEAD
        "headers",  # of the head (or the trailers, or a 1xx) being parsed
        "idle_since",
        "keep",  # the answer lets the connection live on
        "length",
        "loop",
        "parser",
        "paused",  # reading
        "pool",
        "reason",
        "silent_bytes",  # received since the last byte of body; -1: this read had some
        "stamp",  # loop time of the last progress, where the call's phase began at the latest
        "started",  # loop time at which the call began
        "status",
        "switching",  # makes the answer if the agent agrees to another protocol; None: not asked
        "timeouts",
        "transport",
        "upload",
        "version",
        "waiter",  # the future that `send` awaits; None: no call, or its answer was delivered
        "write_backlog",
        "write_paused",
    )

    def __init__(self, pool: Pool, loop: asyncio.AbstractEventLoop) -> None:
        self.pool = pool
        self.loop = loop
        self.transport: asyncio.Transport = None  # type: ignore[assignment]  # until connection_made
        self.parser = httptools.HttpResponseParser(self)
        self.closed = False
        self.paused = False
        self.write_paused = False
        self.write_backlog = 0
        self.idle_since = 0.0
        self.waiter: asyncio.Future[Answer] | None = None
        self.answer: StreamedAnswer | None = None
        self.upload: Upload | None = None
        self.switching: Callable[[Connection, bytes], Answer] | None = None
        self.started = self.stamp = 0.0
        self.due = NEVER
        self.timeouts = pool.origin.timeouts
        # The answer in progress.
        self.status = self.head_bytes = self.silent_bytes = 0
        self.reason = b""
        self.version = ""
        self.length: int | None = None
        self.chunks: list[bytes] = []
        self.head: list[tuple[bytes, bytes]] = []
        self.headers: list[tuple[bytes, bytes]] = []
        self.head_only = self.head_done = self.complete = False
        self.delimited = self.gathering = self.keep = False

    # What the client and the pool do with it.

    @property
    def busy(self) -> bool:
        """Whether a call is under way."""
        return self.waiter is not None or self.answer is not None

    def begin(self, head_only: bool, timeouts: Timeouts, started: float) -> asyncio.Future[Answer]:
        """Takes the connection for one call; the caller then writes the request."""
        if self.waiter is not None or self.answer is not None:
            raise RuntimeError("a connection carries one call at a time")
        self.head_only = head_only
        self.timeouts = timeouts
        self.started = self.stamp = started
        self.due = started
        waiter = self.waiter = self.loop.create_future()
        return waiter

    def start_upload(self, upload: Upload) -> None:
        """The request's body goes out piece by piece; its head is written."""
        self.upload = upload
        upload.start()

    def uploaded(self) -> None:
        """The request is out to its last byte."""
        self.upload = None
        self._restamp()

    def usable(self, now: float) -> bool:
        """Whether the peer is still there, as far as can be known before a byte is written."""
        if self.transport.is_closing():
            return False
        if now - self.idle_since < PROBE_AFTER_IDLE_S:
            return True
        poll = select.poll()
        poll.register(self.transport.get_extra_info("socket").fileno(), select.POLLIN)
        return not poll.poll(0)

    def abandon(self, waiter: asyncio.Future[Answer]) -> None:
        """The caller of `send` has gone: closes the connection if its call is still under way."""
        if self.waiter is waiter:
            self.fail(UpstreamBroken("the call was cancelled", sent=True))
        elif not waiter.cancelled() and waiter.exception() is None:
            waiter.result().abort()

    def fail(self, error: BaseException) -> None:
        """Ends the call with `error` and closes the connection."""
        waiter, answer = self.waiter, self.answer
        self.waiter = self.answer = None
        self._stop_upload()
        self.close()
        if waiter is not None:
            if not waiter.done():
                waiter.set_exception(error)
        elif answer is not None:
            answer.end(error)

    def close(self) -> None:
        """Closes the connection at once and gives its place in the pool away."""
        if self.closed:
            return
        self.closed = True
        if self.transport is not None:
            self.transport.abort()
        self.pool.forget(self)

    def resume(self) -> None:
        """The reader has taken what was unread."""
        if self.paused:
            self.paused = False
            self._restamp()
            self.transport.resume_reading()

    def check(self, now: float) -> None:
        """The watchdog's look, from `due` on: ends a call that is late, or sets `due` anew."""
        if self.gathering:
            self._deliver_stream()
        timeouts = self.timeouts
        phase: Phase = "idle" if self.head_done or self.write_paused else "first_byte"
        limit_ms = timeouts.idle_ms if phase == "idle" else timeouts.first_byte_ms
        if self.write_paused:
            backlog = self.transport.get_write_buffer_size()
            if backlog != self.write_backlog:
                self.write_backlog = backlog
                self.stamp = now
        elif self.paused or self.upload is not None:
            self.stamp = now  # our side is awaited, not the agent
        total_due = self.started + timeouts.total_ms / 1000
        phase_due = self.stamp + limit_ms / 1000
        if now >= total_due:
            self.fail(UpstreamTimeout("total", sent=True))
        elif now >= phase_due:
            self.fail(UpstreamTimeout(phase, sent=True))
        else:
            self.due = now if self.write_paused else min(total_due, phase_due)

    # What the loop tells.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is connected, and TLS is done."""
        self.transport = transport  # type: ignore[assignment]  # streams only

    def data_received(self, data: bytes) -> None:
        """Parses, then does what the state asks for (see the top of the file)."""
        if self.waiter is None and self.answer is None:
            self.close()  # bytes nobody asked for: the next answer could not be told from them
            return
        if not self.head_done:
            self.head_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as switch:
            self._switch(data[switch.args[0] :])
            return
        except httptools.HttpParserError as error:
            self._refuse(error.__context__ or error)
            return
        if self.complete:
            if self.head_only:
                self._renew_parser(data)
            self._finish()
        elif self.head_done:
            self._partly(len(data))
        elif self.head_bytes > HEAD_MAX_BYTES:
            self.fail(UpstreamBroken("the answer's head is too large", sent=True))

    def eof_received(self) -> None:
        """The end of what the agent sends; `connection_lost` follows."""
        if not self.busy:
            self.close()
        elif self.delimited and ended_cleanly(self.transport):
            self._finish()

    def connection_lost(self, exc: Exception | None) -> None:
        """Whatever was under way has failed."""
        if self.waiter is not None and not self.head_done:
            self.fail(UpstreamBroken(f"closed before its answer: {exc}", sent=True))
        elif self.waiter is not None or self.answer is not None:
            self.fail(UpstreamTruncated(f"closed within its answer: {exc}"))
        else:
            self.close()
        self.parser = None  # type: ignore[assignment]  # breaks the cycle of parser and callbacks

    def pause_writing(self) -> None:
        """The socket's buffer is full: the upload waits."""
        self.write_paused = True
        self._restamp()

    def resume_writing(self) -> None:
        """The socket takes bytes again."""
        self.write_paused = False
        self._restamp()
        if self.upload is not None:
            self.upload.drained()

    # What the parser tells.

    def on_message_begin(self) -> None:
        """The first byte of an answer, or of what nobody asked for."""
        if self.complete:
            raise _RefusedError("bytes after the end of the answer")

    def on_status(self, reason: bytes) -> None:
        """The reason, perhaps in parts."""
        self.reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header, or one trailer."""
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """A head is complete: checks it and decides how its body is framed."""
        status = self.parser.get_status_code()
        version = self.parser.get_http_version()
        headers = self.headers
        if version != "1.1" or self.reason != b"OK" or self.head_bytes > SUSPECT_HEAD_BYTES:
            self._check_head(version)
        if status < 200:
            self._interim(status)
            return
        chunked = False
        for name, value in headers:
            size = len(name)
            if size == 14 and name.lower() == b"content-length":
                self.length = int(value)
            elif size == 17 and name.lower() == b"transfer-encoding":
                if chunked or value.strip().lower() != b"chunked":
                    raise _RefusedError("a Transfer-Encoding other than chunked")
                chunked = True
        self.status = status
        self.version = version
        self.head_done = True
        self.head = headers
        self.headers = []  # trailers go there, and are dropped
        # A 1.0 server does not know chunks: what it means by them is not to be built upon.
        self.keep = self.parser.should_keep_alive() and (version == "1.1" or not chunked)
        if self.head_only:
            self.complete = True
        elif self.length is None and not chunked and status not in {204, 304}:
            self.delimited = True

    def on_body(self, data: bytes) -> None:
        """Some of the body, chunk framing taken off."""
        self.silent_bytes = -1
        self.chunks.append(data)

    def on_message_complete(self) -> None:
        """The end of the body, or of a 1xx."""
        if self.head_done:
            self.complete = True
        else:  # of a 1xx
            self.headers = []
            self.reason = b""

    # What becomes of it.

    def _check_head(self, version: str) -> None:
        if version not in {"1.0", "1.1"}:
            raise _RefusedError("neither HTTP/1.1 nor HTTP/1.0")
        if not _REASON.fullmatch(self.reason):
            raise _RefusedError("control characters in the reason")
        if len(self.headers) > HEADERS_MAX:
            raise _RefusedError("too many headers")
        if sum(len(name) + len(value) + 4 for name, value in self.headers) > HEAD_MAX_BYTES:
            raise _RefusedError("the answer's head is too large")

    def _interim(self, status: int) -> None:
        if status < 100:
            raise _RefusedError("an impossible status")
        if status == 100 and self.upload is not None:
            self.upload.go_on()
        elif status == 101:  # llhttp stops behind it
            self.head = self.headers

    def _switch(self, rest: bytes) -> None:
        """The agent speaks another protocol from here on: `rest` is its first bytes."""
        switching, waiter = self.switching, self.waiter
        if switching is None or waiter is None:
            self._refuse(_RefusedError("another protocol than was asked for"))
            return
        self.waiter = None
        self.due = NEVER
        answer = switching(self, rest)
        if waiter.done():
            answer.abort()
        else:
            waiter.set_result(answer)

    def _partly(self, size: int) -> None:
        """Some of the answer is here: head and perhaps body, not the end."""
        self.stamp = self.loop.time()
        if self.silent_bytes < 0:
            self.silent_bytes = 0
        else:
            self.silent_bytes += size
            if self.silent_bytes > FRAMING_MAX_BYTES + HEAD_MAX_BYTES:
                self.fail(UpstreamTruncated("chunk framing without an end"))
                return
        answer = self.answer
        if answer is None:
            self.due = self.stamp  # another phase, another limit
            length = self.length
            if length is not None and length <= BUFFERED_BODY_MAX_BYTES:
                self.gathering = True
            else:
                self._deliver_stream()
        elif answer.chunks:
            answer.unread_bytes += size
            answer.arrived()
            self._hold_back(answer)

    def _deliver_stream(self) -> None:
        self.gathering = False
        waiter = self.waiter
        if waiter is None or waiter.done():
            return
        answer = self.answer = StreamedAnswer(
            self.status, self.reason, self.version, self.head, self.length, self, self.chunks
        )
        self.waiter = None
        if self.upload is not None and self.upload.waiting:
            self._stop_upload()
        waiter.set_result(answer)
        self._hold_back(answer)

    def _restamp(self) -> None:
        """A phase begins, or ends: its time counts from now."""
        if self.busy:
            self.stamp = self.due = self.loop.time()

    def _hold_back(self, answer: StreamedAnswer) -> None:
        if answer.unread_bytes >= READ_BUFFER_MAX_BYTES and not self.paused:
            self.paused = True
            self.transport.pause_reading()

    def _finish(self) -> None:
        """The answer is here to its last byte: hands it over and frees the connection."""
        waiter, answer = self.waiter, self.answer
        if self.upload is not None:
            self._stop_upload()
        whole = None
        if answer is None:
            chunks = self.chunks
            body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
            whole = Answer(self.status, self.reason, self.version, self.head, self.length, body)
        self.waiter = self.answer = None
        if self.keep and not self.write_paused:
            if self.paused:
                self.resume()
            self._reset()
            self.pool.release(self)
        else:
            self.close()
        if answer is not None:
            answer.end(None)
        elif waiter is not None and whole is not None and not waiter.done():
            waiter.set_result(whole)

    def _refuse(self, error: BaseException) -> None:
        """The parser, or we in its callbacks, did not understand what came."""
        if self.complete:  # what was asked for is whole; the garbage behind it is not passed on
            self.keep = False
            if self.head_only:
                self.chunks = []
            self._finish()
        elif self.answer is not None:
            self.fail(UpstreamTruncated(f"not understood: {error}"))
        else:
            self.fail(UpstreamBroken(f"not understood: {error}", sent=True))

    def _renew_parser(self, data: bytes) -> None:
        """After an answer to HEAD: llhttp would take what comes next for its body."""
        self.parser = httptools.HttpResponseParser(self)
        if self.chunks or not data.endswith(b"\r\n\r\n") or data.count(b"\r\n\r\n") > 1:
            self.keep = False  # something may have come behind the head
            self.chunks = []

    def _stop_upload(self) -> None:
        upload, self.upload = self.upload, None
        if upload is not None:
            self.keep = False
            upload.stop()

    def _reset(self) -> None:
        self.head_done = self.complete = self.delimited = self.gathering = False
        self.keep = False
        self.switching = None
        self.due = NEVER
        self.head_bytes = self.silent_bytes = 0
        self.reason = b""
        self.length = None
        self.chunks = []
        self.head = []
        self.headers = []
