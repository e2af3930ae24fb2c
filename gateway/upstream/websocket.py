"""The handshake of a WebSocket with an agent (RFC 6455 section 4), and the bytes that follow it.

What the agent agrees to is checked as a client must: the proof that it has read our key, no
extension (none is offered), and no subprotocol but one that was offered. What a frame is, nobody
knows here.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import secrets
from typing import TYPE_CHECKING, Protocol

from gateway.upstream.answer import Answer
from gateway.upstream.errors import UpstreamBroken

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from gateway.upstream.client import UpstreamClient
    from gateway.upstream.origin import Origin
    from gateway.upstream.protocol import Connection

KEY_BYTES = 16
# Written bytes that an agent has not taken at which `writing_paused` begins.
WRITE_BUFFER_MAX_BYTES = 64 * 1024
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Receiver(Protocol):
    """Who gets the bytes of a tunnel."""

    def feed_data(self, data: bytes) -> object:
        """The next bytes."""

    def feed_eof(self) -> object:
        """There are no more: the connection is closed."""

    def writable(self) -> object:
        """`writing_paused` is over."""


class Tunnel(Answer, asyncio.Protocol):
    """The answer of an agent that agreed (101), and both ways of its connection from then on.

    Reads nothing until somebody is there to receive it.
    """

    __slots__ = ("_closed", "_connection", "_receiver", "_rest", "_transport", "writing_paused")

    def __init__(self, connection: Connection, rest: bytes) -> None:
        super().__init__(101, connection.reason, "1.1", connection.head, None, b"")
        self._connection = connection
        self._rest = rest  # came with the head
        self._receiver: Receiver | None = None
        self._closed = False
        self.writing_paused = False
        transport = self._transport = connection.transport
        transport.pause_reading()
        transport.set_protocol(self)
        transport.set_write_buffer_limits(high=WRITE_BUFFER_MAX_BYTES)

    def attach(self, receiver: Receiver) -> None:
        """Begin to read, to the end of the connection."""
        self._receiver = receiver
        rest, self._rest = self._rest, b""
        self._transport.resume_reading()
        if rest:
            receiver.feed_data(rest)
        if self._closed:
            receiver.feed_eof()

    def write(self, data: bytes) -> None:
        """Hand bytes to the socket; nothing happens when it is closed."""
        if not self._closed:
            self._transport.write(data)

    def pause_reading(self) -> None:
        """Hold the agent back."""
        if not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Go on reading."""
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def abort(self) -> None:
        """Close at once. Harmless when repeated."""
        self._connection.close()

    # What the loop tells.

    def data_received(self, data: bytes) -> None:
        """Some bytes. Before a receiver is there a loop may still have had one read under way."""
        if self._receiver is None:
            self._rest += data
        else:
            self._receiver.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """The end, also after `abort`."""
        self._closed = True
        self._connection.connection_lost(exc)
        if self._receiver is not None:
            self._receiver.feed_eof()

    def pause_writing(self) -> None:
        """The agent takes no more at the moment."""
        self.writing_paused = True

    def resume_writing(self) -> None:
        """It does again."""
        self.writing_paused = False
        if self._receiver is not None:
            self._receiver.writable()


def new_key() -> bytes:
    """A nonce for `Sec-WebSocket-Key`."""
    return base64.b64encode(secrets.token_bytes(KEY_BYTES))


def accept_of(key: bytes) -> bytes:
    """What a server has to answer to a client's key, as `Sec-WebSocket-Accept`."""
    return base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())


async def open_websocket(
    client: UpstreamClient,
    origin: Origin,
    head: bytes,
    *,
    key: bytes,
    offered: Sequence[bytes],
    sending: Callable[[], Awaitable[None]],
) -> Answer:
    """A `Tunnel` if the agent agrees, else the answer with which it refuses.

    `head` is the complete request head with this key and the `offered` subprotocols. `sending` is
    awaited once, with a connection and before the first byte; if it raises, none is sent.

    Raises: as `UpstreamClient.send`; UpstreamBroken also for an agent that agrees to something
    else.
    """
    answer = await client.switch(origin, head, Tunnel, sending)
    if isinstance(answer, Tunnel):
        mistake = _mistake_in(answer.headers, key, offered)
        if mistake is not None:
            answer.abort()
            raise UpstreamBroken(f"no WebSocket: {mistake}", sent=True)
    return answer


def subprotocols_in(headers: Sequence[tuple[bytes, bytes]]) -> list[bytes]:
    """The subprotocols that headers name, in order."""
    return [
        word.strip()
        for name, value in headers
        if name.lower() == b"sec-websocket-protocol"
        for word in value.split(b",")
    ]


def _mistake_in(
    headers: Sequence[tuple[bytes, bytes]], key: bytes, offered: Sequence[bytes]
) -> str | None:
    """What is wrong with an agreement. That it upgrades to something, the parser has seen."""
    values: dict[bytes, list[bytes]] = {}
    for name, value in headers:
        values.setdefault(name.lower(), []).append(value.strip())
    if [value.lower() for value in values[b"upgrade"]] != [b"websocket"]:
        return "another protocol than was asked for"
    if values.get(b"sec-websocket-accept") != [accept_of(key)]:
        return "Sec-WebSocket-Accept is not that of our key"
    if b"sec-websocket-extensions" in values:
        return "an extension that was not offered"
    chosen = subprotocols_in(headers)
    if len(chosen) > 1 or not set(chosen) <= set(offered):
        return "a subprotocol that was not offered"
    return None
