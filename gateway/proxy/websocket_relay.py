"""A conversation between a client and an agent, frame by frame, until something ends it.

Pings and pongs pass, too, so that either end learns whether the other is there. What ends a
conversation, and what each end is told (nothing is written here: the call is settled first):

    cause                              ending             client          agent
    the client closes                  completed          agent's close   client's close, at once
    the agent closes                   completed          agent's close   its own
    nothing was said for too long      completed          1001            1001
    it has lasted as long as it may    completed          1001            1001
    this worker stops                  completed          1012            1001
    what is held can't be known        completed          1013            1001
    credits, cap, key or account       exhausted          1008            1001
    the client has gone                client_disconnect                  1001
    … sends what is no WebSocket       client_disconnect  1002 1007 1009  1001
    … takes nothing any more           client_disconnect                  1001
    the agent has gone                 upstream_error     1011
    … sends what is no WebSocket       upstream_error     1011            1002 1007 1009
    … takes nothing any more           upstream_timeout   1011

Nothing that a client does makes its conversation one of the endings that cost nothing by default.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple

from websockets.frames import CloseCode, Opcode

from gateway.proxy.websocket_frames import (
    BrokenFramesError,
    begins_message,
    close_payload,
    is_data,
)
from policies.catalog import Ending

if TYPE_CHECKING:
    from collections.abc import Callable

    from websockets.frames import Frame

    from gateway.proxy.websocket_cover import Cover, Denied
    from gateway.proxy.websocket_peer import Peer
    from policies.catalog import Timeouts

# How long a client that has closed waits for what its agent still says.
CLOSE_WAIT_S = 5.0
# Frames of one end that pass in one go, before others have their turn.
FRAMES_PER_TURN = 64
GOING_AWAY = close_payload(CloseCode.GOING_AWAY)
CLIENT_GONE = close_payload(CloseCode.GOING_AWAY, "client_gone")
UPSTREAM_ERROR = close_payload(CloseCode.INTERNAL_ERROR, "upstream_error")
UPSTREAM_TIMEOUT = close_payload(CloseCode.INTERNAL_ERROR, "upstream_timeout")
IDLE = close_payload(CloseCode.GOING_AWAY, "idle_timeout")
TOO_LONG = close_payload(CloseCode.GOING_AWAY, "total_timeout")
STOPPING = close_payload(CloseCode.SERVICE_RESTART, "service_restart")


class Over(NamedTuple):
    """How a conversation ended, and the close that each end is still to be sent, if it is."""

    ending: Ending
    to_client: bytes | None
    to_agent: bytes | None


class Relay:
    """One conversation. `run` once."""

    __slots__ = (
        "_agent",
        "_check_at",
        "_client",
        "_client_close",
        "_client_wait_s",
        "_cover",
        "_elapsed_ms",
        "_interval_s",
        "_loop",
        "_over_at",
        "_spent",
        "_stopped",
        "_timeouts",
    )

    def __init__(
        self,
        client: Peer,
        agent: Peer,
        cover: Cover,
        *,
        timeouts: Timeouts,
        client_wait_s: float,
        interval_ms: int,
        elapsed_ms: Callable[[], int],
    ) -> None:
        """`client_wait_s` is how long a client may take nothing of what is sent to it."""
        self._client = client
        self._agent = agent
        self._cover = cover
        self._timeouts = timeouts
        self._client_wait_s = client_wait_s
        self._interval_s = interval_ms / 1000
        self._elapsed_ms = elapsed_ms
        self._loop = asyncio.get_running_loop()
        self._over_at = self._loop.time() + timeouts.total_ms / 1000
        self._check_at = 0.0
        self._client_close: bytes | None = None  # what it has closed with
        self._stopped: asyncio.Future[Over] = self._loop.create_future()
        self._spent = asyncio.Event()

    def stop(self) -> None:
        """This worker stops: end the conversation as soon as it can be settled."""
        if not self._stopped.done():
            self._stopped.set_result(Over(Ending.COMPLETED, STOPPING, GOING_AWAY))

    async def run(self) -> Over:
        """Relay until it is over."""
        ways: list[asyncio.Future[Over]] = [
            asyncio.ensure_future(self._pass(self._client, self._agent, inbound=True)),
            asyncio.ensure_future(self._pass(self._agent, self._client, inbound=False)),
            asyncio.ensure_future(self._watch()),
            self._stopped,
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            return next(way.result() for way in ways if way.done())
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _pass(self, source: Peer, sink: Peer, *, inbound: bool) -> Over:
        """Pass the frames of one end on to the other, until one of them is the last."""
        turn = 0
        while True:
            try:
                frame = await source.next()
            except BrokenFramesError as broken:
                return self._broken(broken, inbound=inbound)
            if frame is None:
                return self._gone(inbound=inbound)
            if frame.opcode is Opcode.CLOSE:
                return await self._closed(bytes(frame.data), inbound=inbound)
            if is_data(frame):
                denied = await self._count(frame, inbound=inbound)
                if denied is not None:
                    return over_money(denied)
            sink.pass_on(frame)
            if sink.wire.writing_paused:
                try:
                    await sink.drained(self._wait_s(sink))
                except TimeoutError:
                    return self._stalled(sink)
            turn += 1
            if turn % FRAMES_PER_TURN == 0:
                await asyncio.sleep(0)

    async def _count(self, frame: Frame, *, inbound: bool) -> Denied | None:
        """Count a frame of a message that may pass; or why it may not."""
        data, begins = frame.data, begins_message(frame)
        elapsed_ms = self._elapsed_ms()
        if not self._cover.covers(elapsed_ms, len(data), inbound=inbound, begins=begins):
            denied = await self._cover.cover(elapsed_ms, len(data), inbound=inbound, begins=begins)
            if denied is not None:
                return denied
        self._cover.note(data, inbound=inbound, begins=begins)
        if self._cover.tight:
            self._spent.set()
        return None

    async def _closed(self, payload: bytes, *, inbound: bool) -> Over:
        """One end closes. What the agent still says to a client that does, is passed on."""
        if not inbound:
            reply = None if self._client_close is not None else payload
            return Over(Ending.COMPLETED, payload, reply)
        self._client_close = payload
        self._agent.close(payload)
        await asyncio.sleep(CLOSE_WAIT_S)
        return Over(Ending.COMPLETED, payload, None)

    def _gone(self, *, inbound: bool) -> Over:
        if inbound:
            return Over(Ending.CLIENT_DISCONNECT, None, CLIENT_GONE)
        if self._client_close is not None:
            return Over(Ending.COMPLETED, self._client_close, None)
        return Over(Ending.UPSTREAM_ERROR, UPSTREAM_ERROR, None)

    def _broken(self, broken: BrokenFramesError, *, inbound: bool) -> Over:
        payload = close_payload(broken.code, str(broken))
        if inbound:
            return Over(Ending.CLIENT_DISCONNECT, payload, GOING_AWAY)
        if self._client_close is not None:
            return Over(Ending.COMPLETED, self._client_close, None)
        return Over(Ending.UPSTREAM_ERROR, UPSTREAM_ERROR, payload)

    def _stalled(self, sink: Peer) -> Over:
        # An agent that can't be rid of its answers takes nothing either, and is not to blame.
        if sink is self._client or self._client.wire.writing_paused:
            return Over(Ending.CLIENT_DISCONNECT, None, CLIENT_GONE)
        return Over(Ending.UPSTREAM_TIMEOUT, UPSTREAM_TIMEOUT, None)

    def _wait_s(self, sink: Peer) -> float:
        return self._client_wait_s if sink is self._client else self._timeouts.idle_ms / 1000

    async def _watch(self) -> Over:
        """Look at times, credits, key and account, when something of it is due."""
        self._check_at = self._loop.time() + self._interval_s
        while True:
            now, elapsed_ms = self._loop.time(), self._elapsed_ms()
            most_ms = max(int((self._check_at - now) * 1000), 0) + 1
            lasts_s = self._cover.lasts_ms(elapsed_ms, most_ms) / 1000
            due = min(now + lasts_s, self._over_at, self._idle_at())
            self._spent.clear()
            try:
                async with asyncio.timeout(max(due - now, 0)):
                    await self._spent.wait()  # what a frame has used can't pay for time
            except TimeoutError:
                over = await self._look()
                if over is not None:
                    return over

    async def _look(self) -> Over | None:
        now = self._loop.time()
        if now >= self._over_at:
            return Over(Ending.COMPLETED, TOO_LONG, TOO_LONG)
        if now >= self._idle_at():
            for sink in (self._client, self._agent):
                if sink.wire.writing_paused:
                    return self._stalled(sink)
            return Over(Ending.COMPLETED, IDLE, IDLE)
        elapsed_ms = self._elapsed_ms()
        if now >= self._check_at or not self._cover.lasts_ms(elapsed_ms, 1):
            self._check_at = now + self._interval_s
            denied = await self._cover.check(elapsed_ms)
            if denied is not None:
                return over_money(denied)
        return None

    def _idle_at(self) -> float:
        heard = max(self._client.heard, self._agent.heard)
        return heard + self._timeouts.idle_ms / 1000


def over_money(denied: Denied) -> Over:
    """The end of a conversation that is not covered any more."""
    if denied.later:
        payload = close_payload(CloseCode.TRY_AGAIN_LATER, denied.reason)
        return Over(Ending.COMPLETED, payload, GOING_AWAY)
    payload = close_payload(CloseCode.POLICY_VIOLATION, denied.reason)
    return Over(Ending.EXHAUSTED, payload, GOING_AWAY)
