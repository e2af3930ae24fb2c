"""The connections to one origin: kept alive, bounded, the latest used first."""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, cast

from gateway.upstream.dial import dial
from gateway.upstream.errors import UpstreamBroken, UpstreamTimeout
from gateway.upstream.protocol import Connection

if TYPE_CHECKING:
    import asyncio

    from gateway.upstream.origin import Origin
    from policies.catalog import Timeouts

# More idle connections than this are closed instead of kept.
IDLE_MAX = 256
# Shorter than what most servers allow, so that we close first and no call meets a closing server.
IDLE_EXPIRY_S = 30.0
# Calls that may wait for one of `connections_max` connections, and for how long.
WAITERS_MAX = 1024
WAIT_MAX_S = 10.0


class Pool:
    """Owns every connection to its origin, idle or not, and the calls that wait for one.

    A place is a connection or an attempt to open one; there are at most `origin.connections_max`.
    Who waits gets a connection, or the place of one that was closed (None) to open its own.
    """

    __slots__ = (
        "_dialing",
        "_loop",
        "_waiters",
        "connections",
        "idle",
        "now",
        "origin",
        "unused_ticks",
    )

    def __init__(self, origin: Origin, loop: asyncio.AbstractEventLoop) -> None:
        self.origin = origin
        self.now = loop.time()  # as of the last tick of the watchdog
        self.idle: list[Connection] = []
        self.connections: set[Connection] = set()
        self.unused_ticks = 0  # looks in a row that found nothing in it
        self._loop = loop
        self._dialing = 0
        self._waiters: deque[tuple[asyncio.Future[Connection | None], float]] = deque()

    def take(self, now: float) -> Connection | None:
        """An idle connection that is still alive as far as can be known, or None."""
        idle = self.idle
        while idle:
            connection = idle.pop()
            if connection.usable(now):
                return connection
            connection.close()
        return None

    async def acquire(self, timeouts: Timeouts, started: float) -> Connection:
        """A connection: idle, new, or after waiting for one.

        Raises: UpstreamUnreachable, UpstreamBroken, or UpstreamTimeout in phase `connect` or `pool`
        (the latter at once when too many wait already).
        """
        connection = self.take(started)
        if connection is not None:
            return connection
        if len(self.connections) + self._dialing < self.origin.connections_max:
            self._dialing += 1
            return await self._open(timeouts, started)
        if len(self._waiters) >= WAITERS_MAX:
            raise UpstreamTimeout("pool", sent=False)
        waiter: asyncio.Future[Connection | None] = self._loop.create_future()
        until = started + min(WAIT_MAX_S, timeouts.total_ms / 1000)
        self._waiters.append((waiter, until))
        try:
            connection = await waiter
        except BaseException:
            if waiter.cancelled():
                with suppress(ValueError):  # passed over already
                    self._waiters.remove((waiter, until))
            elif waiter.exception() is None:
                self._give_back(waiter.result())
            raise
        if connection is None:
            return await self._open(timeouts, started)
        if connection.transport.is_closing():  # while it was handed over
            connection.close()
            return await self.acquire(timeouts, started)
        return connection

    async def renew(self, timeouts: Timeouts, started: float) -> Connection:
        """As `acquire`, but a new connection: the idle ones may be as dead as the last one."""
        full = len(self.connections) + self._dialing >= self.origin.connections_max
        if full and self.idle:
            self.idle[0].close()
            full = False
        if full:
            return await self.acquire(timeouts, started)
        self._dialing += 1
        return await self._open(timeouts, started)

    def release(self, connection: Connection) -> None:
        """A connection's call is over and it can carry another."""
        waiters = self._waiters
        while waiters:
            waiter, _ = waiters.popleft()
            if not waiter.done():
                waiter.set_result(connection)
                return
        if len(self.idle) >= IDLE_MAX:
            connection.close()
            return
        connection.idle_since = self.now
        self.idle.append(connection)

    def forget(self, connection: Connection) -> None:
        """A connection is closed."""
        if connection in self.connections:
            self.connections.discard(connection)
            if connection in self.idle:
                self.idle.remove(connection)
            self._pass_place_on()

    def check(self, now: float) -> bool:
        """The watchdog's look: ends what ran out of time. Whether it should look again soon."""
        self.now = now
        idle = self.idle
        while idle and now - idle[0].idle_since >= IDLE_EXPIRY_S:
            idle.pop(0).close()
        for waiter, until in self._waiters:
            if now >= until and not waiter.done():
                waiter.set_exception(UpstreamTimeout("pool", sent=False))
        while self._waiters and self._waiters[0][0].done():
            self._waiters.popleft()
        if self.connections or self._dialing or self._waiters:
            self.unused_ticks = 0
        else:
            self.unused_ticks += 1
        if len(idle) == len(self.connections):
            return bool(self._waiters or self._dialing)
        for connection in [each for each in self.connections if each.due <= now]:
            connection.check(now)
        return True

    def close(self) -> None:
        """Closes every connection; running and waiting calls fail."""
        for waiter, _ in self._waiters:
            if not waiter.done():
                waiter.set_exception(UpstreamBroken("the client is closed", sent=False))
        self._waiters.clear()
        for connection in tuple(self.connections):
            connection.fail(UpstreamBroken("the client is closed", sent=True))

    async def _open(self, timeouts: Timeouts, started: float) -> Connection:
        """A new connection in the place that the caller holds (counted in `_dialing`)."""
        left_ms = timeouts.total_ms - (self._loop.time() - started) * 1000
        try:
            protocol = await dial(
                self.origin,
                lambda: Connection(self, self._loop),
                min(timeouts.connect_ms, left_ms) / 1000,
            )
        except BaseException:
            self._dialing -= 1
            self._pass_place_on()
            raise
        self._dialing -= 1
        connection = cast("Connection", protocol)
        if connection.closed:
            self._pass_place_on()
            raise UpstreamBroken("closed as soon as it was open", sent=False)
        self.connections.add(connection)
        return connection

    def _give_back(self, connection: Connection | None) -> None:
        """Who waited for it has gone."""
        if connection is None:
            self._dialing -= 1
            self._pass_place_on()
        elif not connection.closed:
            self.release(connection)

    def _pass_place_on(self) -> None:
        waiters = self._waiters
        while waiters:
            waiter, _ = waiters.popleft()
            if not waiter.done():
                self._dialing += 1
                waiter.set_result(None)
                return
