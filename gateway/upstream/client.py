"""The upstream client: one per worker, one pool per origin, one watchdog over all of them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from gateway.upstream.errors import CancelledUnsentError, UpstreamBroken
from gateway.upstream.pool import Pool
from gateway.upstream.upload import Upload, promised_length

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from types import TracebackType
    from typing import Self

    from gateway.upstream.answer import Answer
    from gateway.upstream.origin import Origin
    from gateway.upstream.protocol import Connection

# The precision of every deadline: it fires at the first tick after it ran out.
TICK_S = 0.04
# With no call under way, only idle connections have to be looked at.
IDLE_TICK_S = 1.0
# Up to this size head and body are copied into one write; beyond, the copy costs more than a
# second buffer.
JOINED_WRITE_MAX_BYTES = 64 * 1024


class UpstreamClient:
    """Sends calls to agents. Made inside a running loop and bound to it."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._pools: dict[Origin, Pool] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._dozing = True  # no tick is due soon
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def send(  # noqa: C901 - the way of every call: a helper would be a frame each time
        self,
        origin: Origin,
        head: bytes,
        body: bytes | AsyncIterator[bytes] = b"",
        *,
        method: bytes,
        safe: bool,
        chunked: bool = False,
        expect_continue: Callable[[], object] | None = None,
        sending: Callable[[], Awaitable[None]] | None = None,
    ) -> Answer:
        """The answer to one request, as soon as its head is here.

        `head` is the complete request head, blank line included, with its own Content-Length or
        Transfer-Encoding. A `body` in pieces is framed in chunks here when `chunked`, else sent as
        it is, and must be as long as the head says. With `expect_continue` the body waits for 100
        (Continue), or CONTINUE_WAIT_S, and the callback is called when it starts; a final answer
        before that stops it. A request is written once: only when the socket of a pooled
        connection refuses its first byte is a `safe` one sent again, on a new connection. `sending`
        is awaited once, with a connection and before the first byte; if it raises, none is sent.

        Raises: UpstreamUnreachable, UpstreamTimeout, UpstreamBroken, UpstreamTruncated, or what
        `sending` or `body` raises; ValueError when a body in pieces is not as long as promised.
        """
        small = (
            expect_continue is None
            and isinstance(body, bytes)
            and len(body) <= JOINED_WRITE_MAX_BYTES
        )
        length = None if small or chunked else promised_length(head, body)
        pool = self._pools.get(origin)
        if pool is None:
            pool = self._open_pool(origin)
        if self._dozing:
            self._wake()
        started = self._loop.time()
        timeouts = origin.timeouts
        connection = pool.take(started)
        again = safe and connection is not None
        if connection is None:
            connection = await _unsent(pool.acquire(timeouts, started))
        if sending is not None:
            try:
                await sending()
            except BaseException as failure:
                _give_back(pool, connection, failure)
                raise
            if connection.transport.is_closing():  # meanwhile
                connection.close()
                connection, again = await _unsent(pool.renew(timeouts, started)), False
        while True:
            waiter = connection.begin(method == b"HEAD", timeouts, started)
            transport = connection.transport
            if small:
                transport.write(head + body)  # type: ignore[operator]  # small: it is bytes
            elif expect_continue is None and isinstance(body, bytes):
                transport.writelines((head, body))
            else:
                transport.write(head)
                connection.start_upload(Upload(connection, body, length, expect_continue))
            if not transport.is_closing():
                break
            _refused(connection, waiter, again=again)
            connection, again = await _unsent(pool.renew(timeouts, started)), False
        try:
            return await waiter
        except BaseException:
            connection.abandon(waiter)
            raise

    async def switch(
        self,
        origin: Origin,
        head: bytes,
        switching: Callable[[Connection, bytes], Answer],
        sending: Callable[[], Awaitable[None]],
    ) -> Answer:
        """As `send`, for a request without a body that asks for another protocol.

        It goes out on a new connection. If the agent agrees, `switching` makes the answer from that
        connection and the first bytes behind the head; the connection stays among its origin's.
        """
        pool = self._pools.get(origin) or self._open_pool(origin)
        if self._dozing:
            self._wake()
        started = self._loop.time()
        timeouts = origin.timeouts
        connection = await _unsent(pool.renew(timeouts, started))
        try:
            await sending()
        except BaseException as failure:
            _give_back(pool, connection, failure)
            raise
        if connection.transport.is_closing():  # meanwhile
            connection.close()
            raise UpstreamBroken("closed before the request", sent=False)
        waiter = connection.begin(head_only=False, timeouts=timeouts, started=started)
        connection.switching = switching
        connection.transport.write(head)
        try:
            return await waiter
        except BaseException:
            connection.abandon(waiter)
            raise

    async def close(self) -> None:
        """Closes every connection at once; calls under way fail with UpstreamBroken."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for pool in self._pools.values():
            pool.close()
        self._pools.clear()

    def _open_pool(self, origin: Origin) -> Pool:
        if self._closed:
            raise RuntimeError("the upstream client is closed")
        pool = self._pools[origin] = Pool(origin, self._loop)
        return pool

    def _wake(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._dozing = False
        self._timer = self._loop.call_later(TICK_S, self._tick)

    def _tick(self) -> None:
        """The watchdog: one timer for all calls; one per call would cost more than its parsing."""
        now = self._loop.time()
        soon = False
        for pool in self._pools.values():
            soon = pool.check(now) or soon
        # Twice: at one look a call may just be on its way from the queue to a connection.
        for origin in [each for each, pool in self._pools.items() if pool.unused_ticks >= 2]:
            del self._pools[origin]
        self._dozing = not soon
        self._timer = None
        if self._pools:
            self._timer = self._loop.call_later(TICK_S if soon else IDLE_TICK_S, self._tick)


async def _unsent(connecting: Awaitable[Connection]) -> Connection:
    try:
        return await connecting
    except asyncio.CancelledError:
        raise CancelledUnsentError from None


def _give_back(pool: Pool, connection: Connection, failure: BaseException) -> None:
    """A connection is left unused, because of a failure before the first byte."""
    if not connection.closed:
        pool.release(connection)
    if isinstance(failure, asyncio.CancelledError):
        raise CancelledUnsentError from None


def _refused(connection: Connection, waiter: asyncio.Future[Answer], *, again: bool) -> None:
    """The socket refused the first write on the spot: not a byte went out.

    Raises: UpstreamBroken unless it may be written again.
    """
    error = UpstreamBroken("closed before the request", sent=False)
    connection.fail(error)
    waiter.exception()  # seen
    if not again:
        raise error
