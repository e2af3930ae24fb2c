"""One multiplexed connection to a Redis server: many calls in flight, one write per loop tick.

Theory of operation. `Wire` is one socket's life: Redis answers in the order of asking, so the
futures of unanswered commands stand in a queue, and every reply belongs to its head. A caller that
goes away leaves its future in the queue (cancelled), so the order holds. A new socket is a new Wire
with a new queue: an old reply can never meet a new question. `Link` keeps a Wire alive:

    state      begins with                        submit    ends with
    ---------  ---------------------------------  --------  ------------------------------------
    away       start, or the socket ended         NotReady  greeting done -> ready
    ready      logged in, scripts loaded          sends     an answer is late -> stalled
    stalled    the oldest answer passed the       NotReady  any answer -> ready; none for
               deadline                                     STALL_MAX_S -> socket cut -> away

Stalled is what keeps a stopped server from collecting calls whose callers have long been told that
it failed. There is one watchdog timer per socket, not one per call: all calls have the same
deadline, so the oldest is always the next.
"""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import ssl
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

import hiredis

from gateway.counters.errors import (
    CommandRefused,
    ConnectionCut,
    CountersMisconfigured,
    CountersUnavailable,
    DeadlinePassed,
    NotReady,
    Overloaded,
)
from gateway.counters.resp import pack

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from gateway.counters.endpoint import Endpoint
    from gateway.counters.scripts import Script

log = logging.getLogger(__name__)

IN_FLIGHT_MAX = 16_384
# So many commands of one tick are written at once, not at the tick's end: Redis then works on them
# while we go on. With everything in one write the two would take turns, each idle half the time.
FLUSH_COMMANDS = 8
STALL_MAX_S = 2.0
TIMER_STEP_S = 0.001  # event loops may fire up to a millisecond early
CONNECT_TIMEOUT_S = 2.0
START_TIMEOUT_S = 5.0
BACKOFF_FIRST_S = 0.01
BACKOFF_MAX_S = 1.0
VERSION_MIN = (6, 2)
CLIENT_NAME = "tollkeeper"
_IDENTITY = re.compile(rb"^(?:run_id|master_replid):(\w+)", re.MULTILINE)
# Seconds of silence before a probe, seconds between probes, probes; where the system knows them.
KEEPALIVE = [
    (getattr(socket, name), value)
    for name, value in (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3))
    if hasattr(socket, name)
]

# Redis' error codes that mean: this login will never work.
LOGIN_REFUSED = ("WRONGPASS", "NOAUTH", "NOPERM", "ERR AUTH", "ERR invalid password")


class _Unheard:
    """Stands in the queue of answers for a command whose answer nobody waits for."""

    def done(self) -> bool:
        return True


_UNHEARD = cast("asyncio.Future[Any]", _Unheard())


class Wire(asyncio.Protocol):
    """One socket, from connected to lost. Error replies are values, like all replies."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._loop = asyncio.get_running_loop()
        self._create_future = self._loop.create_future
        self._reader = hiredis.Reader()
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._outgoing: list[bytes] = []
        self._unwritten: list[asyncio.Future[None]] = []  # told when what is outgoing is written
        # (how many commands had been written after this tick, when): replaces a time per call.
        self._ticks: deque[tuple[int, float]] = deque()
        self._written = 0
        self._answered = 0
        self._expired = 0  # how many of the oldest were told that their deadline passed
        self._watchdog: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None
        self.ended = False

    def submit(self, command: bytes) -> asyncio.Future[Any]:
        """Send a packed command at the end of this tick, or sooner with others.

        The future gives the reply as hiredis decodes it, a refusal as a `hiredis.ReplyError` value,
        or raises `Unanswered`. Raises: Overloaded at IN_FLIGHT_MAX, ConnectionCut when the socket
        has ended.
        """
        waiting = self._waiting
        if len(waiting) >= self._link.in_flight_max:
            raise Overloaded(f"{len(waiting)} calls are waiting for Redis already")
        future = self._create_future()
        outgoing = self._outgoing
        if not outgoing:
            self._loop.call_soon(self._flush)
        outgoing.append(command)
        waiting.append(future)
        if len(outgoing) >= FLUSH_COMMANDS:
            self._flush()
        return future

    def post(self, command: bytes) -> Awaitable[None]:
        """Send a packed command whose answer is not heard; await that it is written.

        Raises: as `submit`, at once or when awaited.
        """
        waiting = self._waiting
        if len(waiting) >= self._link.in_flight_max:
            raise Overloaded(f"{len(waiting)} calls are waiting for Redis already")
        outgoing = self._outgoing
        if not outgoing:
            self._loop.call_soon(self._flush)
        outgoing.append(command)
        waiting.append(_UNHEARD)
        # Each its own: who leaves cancels what it waits for.
        written = self._create_future()
        self._unwritten.append(written)
        if len(outgoing) >= FLUSH_COMMANDS:
            self._flush()
        return written

    def _flush(self) -> None:
        outgoing = self._outgoing
        transport = self._transport
        if not outgoing or transport is None:
            return
        if transport.is_closing():
            if self.ended:
                self._tell_cut()
            return  # else connection_lost tells them
        self._written += len(outgoing)
        now = self._loop.time()
        self._ticks.append((self._written, now))
        transport.write(b"".join(outgoing))
        outgoing.clear()
        if self._unwritten:
            for written in self._unwritten:
                if not written.done():
                    written.set_result(None)
            self._unwritten.clear()
        if self._watchdog is None:
            self._watchdog = self._loop.call_at(now + self._link.deadline_s, self._watch)

    def data_received(self, data: bytes) -> None:
        """Hand every complete reply to the oldest waiting future."""
        waiting = self._waiting
        answered = 0
        try:
            self._reader.feed(data)
            gets = self._reader.gets
            reply = gets()
            while reply is not False:
                future = waiting.popleft()
                answered += 1
                if not future.done():
                    future.set_result(reply)
                reply = gets()
        except (hiredis.ProtocolError, IndexError):
            log.exception("Redis broke its protocol; the connection is cut")
            self.cut()
        self._answered += answered
        ticks = self._ticks
        while ticks and ticks[0][0] <= self._answered:
            ticks.popleft()
        if self._expired and answered:
            self._expired = max(0, self._expired - answered)
            self._link.resumed(self)

    def _watch(self) -> None:
        """Tell the callers whose deadline has passed; cut the socket of a server long silent."""
        self._watchdog = None
        ticks = self._ticks
        if not ticks:
            return
        now = self._loop.time()
        if now - ticks[0][1] >= self._link.stall_max_s:
            log.warning(
                "Redis has been silent for %.1f s; the connection is cut", now - ticks[0][1]
            )
            self.cut()
            return
        self._expire_before(now - self._link.deadline_s)
        told = self._answered + self._expired
        wake = next(
            (sent + self._link.deadline_s for end, sent in ticks if end > told),
            ticks[0][1] + self._link.stall_max_s,
        )
        self._watchdog = self._loop.call_at(max(wake, now + TIMER_STEP_S), self._watch)

    def _expire_before(self, sent_last: float) -> None:
        late = self._expired
        start = late
        for end, sent in self._ticks:
            if sent > sent_last:
                break
            late = end - self._answered
            for future in islice(self._waiting, start, late):
                if not future.done():
                    future.set_exception(DeadlinePassed("Redis did not answer in time", sent))
            start = late
        if late > self._expired:
            self._expired = late
            self._link.stalled(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Have the system notice a peer that vanished while nothing was asked."""
        self._transport = cast("asyncio.Transport", transport)
        if self._link.endpoint.path is None:
            peer = transport.get_extra_info("socket")
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in KEEPALIVE:
                peer.setsockopt(socket.IPPROTO_TCP, option, value)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell every waiting caller that its outcome is unknown."""
        self.ended = True
        if self._watchdog is not None:
            self._watchdog.cancel()
        self._link.lost(self, exc)
        self._tell_cut()

    def _tell_cut(self) -> None:
        self._outgoing.clear()
        now = self._loop.time()
        index = self._answered
        for end, sent in [*self._ticks, (self._answered + len(self._waiting), now)]:
            while index < end and self._waiting:
                index += 1
                future = self._waiting.popleft()
                if not future.done():
                    future.set_exception(ConnectionCut("the connection to Redis was cut", sent))
        self._ticks.clear()
        for written in self._unwritten:
            if not written.done():
                written.set_exception(ConnectionCut("the connection to Redis was cut", now))
        self._unwritten.clear()

    def cut(self) -> None:
        """End the socket at once; whoever waits gets ConnectionCut."""
        self._link.stalled(self)
        if self._transport is not None:
            self._transport.abort()


class Link:
    """The connection to one server, kept alive until `close`.

    `submit` is the hot path and is swapped whole with the state, so that a call checks nothing.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        scripts: Iterable[Script],
        *,
        deadline_s: float,
        in_flight_max: int,
        resume: Callable[[str], Iterable[bytes]] | None = None,
    ) -> None:
        """`resume` answers what to send first to a server with this identity."""
        self.endpoint = endpoint
        self.deadline_s = deadline_s
        self.stall_max_s = max(STALL_MAX_S, 2 * deadline_s)
        self.in_flight_max = in_flight_max
        self._scripts = tuple(scripts)
        self._resume = resume
        self.run = ""  # of the server, and of its data: changes with a restart and a fail-over
        self.submit: Callable[[bytes], asyncio.Future[Any]] = self._not_ready
        self.post: Callable[[bytes], Awaitable[None]] = self._not_ready
        self._wire: Wire | None = None
        self._ready = asyncio.Event()
        self._queued = 0
        self._lessons: dict[str, asyncio.Future[Any]] = {}
        self._keeper: asyncio.Task[None] | None = None
        self.problem = "it was never reached"

    async def open(self) -> None:
        """Connect for the first time.

        Raises: CountersMisconfigured at once when Redis refuses the login, the database, its own
        version or mode; CountersUnavailable when nobody answers for START_TIMEOUT_S.
        """
        loop = asyncio.get_running_loop()
        give_up = loop.time() + START_TIMEOUT_S
        delay = BACKOFF_FIRST_S
        while not await self._connect():
            if loop.time() + delay > give_up:
                raise CountersUnavailable(f"Redis at {self.endpoint} is not usable: {self.problem}")
            await asyncio.sleep(delay)
            delay = min(delay * 2, BACKOFF_MAX_S)

    async def close(self) -> None:
        """Cut the connection and make no new one."""
        self.submit = self.post = self._not_ready
        self._ready.clear()
        keeper, self._keeper = self._keeper, None
        wire, self._wire = self._wire, None
        if keeper is not None:
            keeper.cancel()
            await asyncio.wait([keeper])
        if wire is not None:
            wire.cut()

    async def ready(self) -> None:
        """Wait until commands can be sent. Raises: Overloaded when too many wait already."""
        if self._queued >= self.in_flight_max:
            raise Overloaded(f"{self._queued} calls wait for the connection to Redis already")
        self._queued += 1
        try:
            await self._ready.wait()
        finally:
            self._queued -= 1

    def teach(self, script: Script) -> None:
        """Send a script's text, for all who have learnt that the server does not know it.

        What is submitted after this runs after it, so nobody waits. Raises: as `submit`.
        """
        lesson = self._lessons.get(script.name)
        if lesson is None or lesson.done():
            self._lessons[script.name] = lesson = self.submit(pack("SCRIPT", "LOAD", script.text))
            lesson.add_done_callback(_forget_failure)

    def drop(self, why: str) -> None:
        """Reconnect: this server has answered that it can't be written to (it became a replica)."""
        if self._wire is not None:
            log.warning("reconnecting to Redis at %s: %s", self.endpoint, why)
            self._wire.cut()

    def stalled(self, wire: Wire) -> None:
        """The wire's oldest answer is late: send nothing more."""
        if wire is self._wire:
            self.submit = self.post = self._not_ready
            self._ready.clear()
            self.problem = "it does not answer in time"

    def resumed(self, wire: Wire) -> None:
        """The wire has answered again."""
        if wire is self._wire:
            self.submit = wire.submit
            self.post = wire.post
            self._ready.set()

    def lost(self, wire: Wire, reason: Exception | None) -> None:
        """The wire's socket has ended: connect again, with back-off."""
        if wire is not self._wire:
            return
        self._wire = None
        self.submit = self.post = self._not_ready
        self._ready.clear()
        self.problem = f"the connection was lost ({reason or 'closed by the server'})"
        log.warning("Redis at %s: %s", self.endpoint, self.problem)
        self._keeper = asyncio.get_running_loop().create_task(self._reconnect())

    async def _reconnect(self) -> None:
        delay = BACKOFF_FIRST_S
        while True:
            try:
                if await self._connect():
                    log.info("connected to Redis at %s again", self.endpoint)
                    return
            except CountersMisconfigured as problem:
                self.problem = str(problem)
                log.error("%s", problem)  # noqa: TRY400 -- its sentence says all
            except Exception:  # whatever it was, a gateway without Redis must keep trying
                log.exception("connecting to Redis at %s failed", self.endpoint)
            await asyncio.sleep(delay)
            delay = min(delay * 2, BACKOFF_MAX_S)

    async def _connect(self) -> bool:
        wire = Wire(self)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await self.endpoint.dial(lambda: wire)
                await self._greet(wire)
        except ssl.SSLCertVerificationError as problem:
            raise CountersMisconfigured(
                f"Redis at {self.endpoint} shows a certificate that is not trusted: "
                f"{problem.verify_message}"
            ) from None
        except (OSError, CountersUnavailable) as problem:  # TimeoutError is an OSError
            wire.cut()
            self.problem = str(problem) or "it does not answer in time"
            return False
        except BaseException:
            wire.cut()
            raise
        if wire.ended:  # in the very tick of its last greeting, when it was not ours yet
            self.problem = "the connection was lost at once"
            return False
        self._wire = wire
        self.resumed(wire)
        return True

    async def _greet(self, wire: Wire) -> None:
        endpoint = self.endpoint
        if endpoint.password is not None:
            login = [endpoint.user] if endpoint.user is not None else []
            await self._ask(wire, pack("AUTH", *login, endpoint.password))
        hello = await self._ask(wire, pack("HELLO", "2"))
        facts = dict(zip(hello[::2], hello[1::2], strict=True))
        self._check(facts)
        await self._ask(wire, pack("CLIENT", "SETNAME", CLIENT_NAME))
        if endpoint.database:
            await self._ask(wire, pack("SELECT", endpoint.database))
        # So that a script which does not compile is known at start; later, NOSCRIPT would do.
        loads = (pack("SCRIPT", "LOAD", script.text) for script in self._scripts)
        await asyncio.gather(*(self._ask(wire, load) for load in loads))
        self.run = await self._identity(wire)
        if self._resume is not None:
            await asyncio.gather(*(self._ask(wire, part) for part in self._resume(self.run)))

    async def _identity(self, wire: Wire) -> str:
        server = await self._ask(wire, pack("INFO", "server"))
        replication = await self._ask(wire, pack("INFO", "replication"))
        return identity_of(server + replication)

    def _check(self, facts: dict[bytes, Any]) -> None:
        text = facts[b"version"].decode()
        if tuple(int(number) for number in text.split(".")[:2]) < VERSION_MIN:
            raise CountersMisconfigured(
                f"Redis at {self.endpoint} is {text}; 6.2 is the oldest usable"
            )
        if facts[b"mode"] == b"cluster":
            raise CountersMisconfigured(f"Redis at {self.endpoint} is part of a cluster")
        if facts[b"role"] != b"master":
            raise CountersUnavailable("it is a replica and cannot be written to")

    async def _ask(self, wire: Wire, command: bytes) -> Any:
        reply = await wire.submit(command)
        if isinstance(reply, hiredis.ReplyError):
            text = str(reply)
            if text.startswith(LOGIN_REFUSED):
                raise CountersMisconfigured(f"Redis at {self.endpoint} refuses the login: {text}")
            if text.startswith("ERR"):
                raise CountersMisconfigured(f"Redis at {self.endpoint} cannot be used: {text}")
            raise CommandRefused(text)
        return reply

    def _not_ready(self, _command: bytes) -> asyncio.Future[Any]:
        raise NotReady(f"Redis at {self.endpoint} is not usable: {self.problem}")


def identity_of(info: bytes) -> str:
    """The run of a server, and of its data, by its `INFO` of server and replication."""
    return b":".join(_IDENTITY.findall(info)).decode()


def _forget_failure(future: asyncio.Future[Any]) -> None:
    """Whatever went wrong here goes wrong for the commands sent after it, too."""
    if not future.cancelled():
        future.exception()
