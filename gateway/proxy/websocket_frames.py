"""The frames that one end of a WebSocket sends (RFC 6455): its bytes in, its frames out.

`websockets` reads and writes each frame: masking, lengths, reserved bits, opcodes. Its `Protocol`
classes go further than a proxy may: they answer pings and closes themselves, the latter before
anybody has settled the call. So the little that is left of the state of a connection is here:

    between messages ──TEXT, BINARY without FIN──► within a message ──CONT with FIN──► between
          └──────────── PING, PONG at any place; nothing after CLOSE ────────────┘

Text is passed on as it is: whether it is UTF-8 is for the end that reads it to say.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from websockets.exceptions import PayloadTooBig, ProtocolError
from websockets.frames import Close, CloseCode, Frame, Opcode
from websockets.streams import StreamReader

if TYPE_CHECKING:
    from collections.abc import Generator

# RFC 6455 section 5.5; a longer one is refused once it is here.
CONTROL_MAX_BYTES = 125
REASON_MAX_BYTES = CONTROL_MAX_BYTES - 2
_FRAME_MIN_BYTES = 2
_CONTROL = frozenset({Opcode.CLOSE, Opcode.PING, Opcode.PONG})


class BrokenFramesError(Exception):
    """What the peer sent can't be read on: with this code it is to be told so."""

    def __init__(self, code: int, why: str) -> None:
        super().__init__(why)
        self.code = code


class FrameReader:
    """Reads one end's frames; see the top of the file.

    Keeps at most the bytes that it was fed and that are not yet in a frame it has given: who feeds
    it has to stop while nobody asks for frames.
    """

    __slots__ = ("_left", "_masked", "_max", "_parsing", "_stream", "_within")

    def __init__(self, *, masked: bool, message_max_bytes: int) -> None:
        """`masked`: what a client sends; the frames of a message have `message_max_bytes`."""
        self._stream = StreamReader()
        self._masked = masked
        self._max = self._left = message_max_bytes
        self._within = False  # a message, between two of its frames
        self._parsing: Generator[None, None, Frame] | None = None

    @property
    def unread_bytes(self) -> int:
        """How much was fed and is in no frame yet."""
        return len(self._stream.buffer)

    def feed(self, data: bytes) -> None:
        """The next bytes."""
        self._stream.feed_data(data)

    def next(self) -> Frame | None:
        """The next frame, or None until more bytes are here.

        Raises: BrokenFramesError; then there is no next frame.
        """
        parsing = self._parsing
        if parsing is None:
            if len(self._stream.buffer) < _FRAME_MIN_BYTES:
                return None
            # What a control frame may have must not depend on what a message may still have.
            most = max(self._left, CONTROL_MAX_BYTES)
            parsing = self._parsing = Frame.parse(
                self._stream.read_exact, mask=self._masked, max_size=most
            )
        try:
            next(parsing)
        except StopIteration as done:
            self._parsing = None
            frame: Frame = done.value
            self._check(frame)
            return frame
        except PayloadTooBig:
            raise self._too_big() from None
        except ProtocolError as mistake:
            raise BrokenFramesError(CloseCode.PROTOCOL_ERROR, str(mistake)) from None
        return None

    def _check(self, frame: Frame) -> None:
        """Whether a frame may come here."""
        opcode = frame.opcode
        if opcode in _CONTROL:
            if opcode is Opcode.CLOSE:
                _check_close(frame)
            return
        if self._within != (opcode is Opcode.CONT):
            expected = "a" if self._within else "no"
            why = f"expected {expected} continuation frame"
            raise BrokenFramesError(CloseCode.PROTOCOL_ERROR, why)
        if len(frame.data) > self._left:
            raise self._too_big()
        self._within = not frame.fin
        self._left = self._max if frame.fin else self._left - len(frame.data)

    def _too_big(self) -> BrokenFramesError:
        return BrokenFramesError(
            CloseCode.MESSAGE_TOO_BIG, f"message_too_big: {self._max} bytes at most"
        )


def is_data(frame: Frame) -> bool:
    """Whether a frame carries a part of a message."""
    return frame.opcode not in _CONTROL


def begins_message(frame: Frame) -> bool:
    """Whether a frame is the first of a message."""
    return frame.opcode in {Opcode.TEXT, Opcode.BINARY}


def close_payload(code: int, reason: str = "") -> bytes:
    """What a close frame carries; a reason that is too long is cut between two characters."""
    text = reason.encode()[:REASON_MAX_BYTES].decode(errors="ignore")
    return Close(code, text).serialize()


def close_frame(payload: bytes, *, masked: bool) -> bytes:
    """A close frame's bytes."""
    return Frame(Opcode.CLOSE, payload).serialize(mask=masked)


def _check_close(frame: Frame) -> None:
    try:
        Close.parse(frame.data)
    except UnicodeDecodeError:
        raise BrokenFramesError(CloseCode.INVALID_DATA, "the reason is not UTF-8") from None
    except ProtocolError as mistake:
        raise BrokenFramesError(CloseCode.PROTOCOL_ERROR, str(mistake)) from None
