"""One end of a proxied WebSocket: its frames one by one, and how much of it may wait.

Bytes come as the loop reads them and are taken as frames by one task; others write to it. What is
read ahead is bounded: one frame, and `READ_AHEAD_MAX_BYTES` behind it (one read of the loop can
come on top). Beyond, the socket is not read, so that whoever sends faster than the other end takes
is held back by its own TCP.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from websockets.frames import Opcode

from gateway.proxy.websocket_frames import BrokenFramesError, FrameReader, close_frame

if TYPE_CHECKING:
    from websockets.frames import Frame

READ_AHEAD_MAX_BYTES = 64 * 1024


class Wire(Protocol):
    """A socket's other uses: the client's connection, or the agent's tunnel."""

    @property
    def writing_paused(self) -> bool:
        """Whether it takes no more at the moment."""

    def write(self, data: bytes) -> object:
        """Hand it bytes."""

    def pause_reading(self) -> object:
        """Read nothing until told to."""

    def resume_reading(self) -> object:
        """Read again."""


class Peer:
    """The client, or the agent. One task may wait for its frames, one for room to write."""

    __slots__ = (
        "_broken",
        "_discarding",
        "_frames",
        "_loop",
        "_masks",
        "_paused",
        "_ready",
        "_room",
        "_waiter",
        "closed",
        "gone",
        "heard",
        "wire",
    )

    def __init__(self, wire: Wire, *, client: bool, message_max_bytes: int) -> None:
        """Make the client's end, or the agent's; messages from it are bounded."""
        self.wire = wire
        self.closed = False  # its close frame was taken
        self.gone = False  # its connection is closed
        self._loop = asyncio.get_running_loop()
        self.heard = self._loop.time()  # when its last bytes came
        self._masks = not client  # what a client would send us is masked, and what we send agents
        self._frames = FrameReader(masked=client, message_max_bytes=message_max_bytes)
        self._ready: Frame | None = None
        self._broken: BrokenFramesError | None = None
        self._discarding = False
        self._paused = False
        self._waiter: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None

    async def next(self) -> Frame | None:
        """Its next frame, or None once its connection is closed.

        Raises: BrokenFramesError.
        """
        while self._ready is None:
            if self._broken is not None:
                raise self._broken
            if self.gone:
                return None
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        frame, self._ready = self._ready, None
        if frame.opcode is Opcode.CLOSE:
            self.closed = self._discarding = True
        self._advance()
        return frame

    def pass_on(self, frame: Frame) -> None:
        """Write a frame of the other end."""
        self.wire.write(frame.serialize(mask=self._masks))

    def close(self, payload: bytes) -> None:
        """Write a close frame."""
        self.wire.write(close_frame(payload, masked=self._masks))

    async def drained(self, timeout_s: float) -> None:
        """Wait until it has taken enough of what was written, or is gone.

        Raises: TimeoutError when it did not in that time.
        """
        async with asyncio.timeout(timeout_s):
            while self.wire.writing_paused and not self.gone:
                self._room = self._loop.create_future()
                try:
                    await self._room
                finally:
                    self._room = None

    async def parted(self) -> None:
        """Wait for its part of the end, and throw away what else comes.

        A client answers with a close frame, and then it is on us to close the connection; an agent
        closes it (RFC 6455 section 7.1.1).
        """
        while not self.gone and (self._masks or not self.closed):
            try:
                await self.next()
            except BrokenFramesError:
                self._broken, self._discarding = None, True
                self._resume()

    # What its connection tells. The first two are as aiohttp's server calls a parser.

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """Some bytes."""
        if not self._discarding:
            self.heard = self._loop.time()
            self._frames.feed(data)
            self._advance()
        return False, b""

    def feed_eof(self) -> None:
        """There are no more, and none can be written."""
        self.gone = True
        _wake(self._waiter)
        _wake(self._room)

    def writable(self) -> None:
        """There is room again."""
        _wake(self._room)

    def _advance(self) -> None:
        """Have the next frame ready, and decide whether more may come."""
        if self._ready is None and self._broken is None:
            try:
                self._ready = self._frames.next()
            except BrokenFramesError as broken:
                self._broken = broken
        if self._ready is None and self._broken is None:
            self._resume()
            return
        _wake(self._waiter)
        if self._frames.unread_bytes < READ_AHEAD_MAX_BYTES and self._broken is None:
            self._resume()
        elif not self._paused:
            self._paused = True
            self.wire.pause_reading()

    def _resume(self) -> None:
        if self._paused:
            self._paused = False
            self.wire.resume_reading()


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)
