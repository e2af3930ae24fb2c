"""One admitted WebSocket, from its hold to its settlement: handshake, conversation, two closes.

    HELD ──mark──► DISPATCHED ──101──► CONVERSING ──over──► SETTLED ──closes──► gone
      │ client gone      │ refused, late    (websocket_relay.py)
      └──► void ◄─ unsent ┴────────► settle

It is an `Exchange` whose answer is a conversation. An agent that refuses is answered for as for any
other call. Both handshakes are the gateway's own: it offers no extension to the agent and agrees to
none, because frames that are compressed could be neither bounded nor counted. A conversation
settles before either end gets the gateway's close frame.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
from functools import partial
from typing import TYPE_CHECKING

from websockets.frames import CloseCode

from gateway.errors import Refusal, bad_request
from gateway.proxy import answers
from gateway.proxy.decoders import METER_TOOLS
from gateway.proxy.exchange import Exchange
from gateway.proxy.forward import request_head
from gateway.proxy.websocket_cover import Cover
from gateway.proxy.websocket_frames import close_payload
from gateway.proxy.websocket_peer import Peer
from gateway.proxy.websocket_relay import Relay
from gateway.upstream import UpstreamBroken
from gateway.upstream.websocket import (
    KEY_BYTES,
    WRITE_BUFFER_MAX_BYTES,
    Tunnel,
    accept_of,
    new_key,
    open_websocket,
    subprotocols_in,
)
from policies.catalog import Ending, Protocol

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from gateway.proxy.heads import RequestHead
    from gateway.proxy.hold import Hold
    from gateway.proxy.roles import Tools
    from gateway.proxy.server import Call
    from gateway.proxy.websocket_relay import Over
    from gateway.upstream import Answer
    from policies.catalog import Route
    from policies.meters.facts import RequestFacts

# How long both ends have, once all is settled, to answer a close frame with theirs.
PARTING_S = 2.0
SWITCHED_STATUS = 101
_VERSION = b"13"
_PROTOCOL = b"sec-websocket-protocol"
# What is negotiated on each side on its own.
_HANDSHAKE = frozenset(
    {
        b"sec-websocket-accept",
        b"sec-websocket-extensions",
        b"sec-websocket-key",
        b"sec-websocket-version",
    }
)
_OWN_ANSWER = _HANDSHAKE | {_PROTOCOL}
_UPGRADE_REQUIRED = Refusal(
    426, "upgrade_required", "This route is a WebSocket: open it with a WebSocket client."
)
_OTHER_VERSION = Refusal(
    426, "upgrade_required", "The WebSocket version that is spoken here is 13 (RFC 6455)."
)
_NO_WEBSOCKET = bad_request("This route is not a WebSocket.")
_BAD_KEY = bad_request("Send one Sec-WebSocket-Key: 16 bytes in base64.")

log = logging.getLogger("tollkeeper.proxy")


def mistake_in_protocol(head: RequestHead, route: Route) -> Refusal | None:
    """Why a request can't be served on a route: only one of the two is a WebSocket, or wrongly."""
    if not head.websocket:
        return _UPGRADE_REQUIRED if route.protocol is Protocol.WEBSOCKET else None
    if route.protocol is not Protocol.WEBSOCKET:
        return _NO_WEBSOCKET
    if _values(head, b"sec-websocket-version") != [_VERSION]:
        return _OTHER_VERSION
    keys = _values(head, b"sec-websocket-key")
    try:
        good = len(keys) == 1 and len(base64.b64decode(keys[0], validate=True)) == KEY_BYTES
    except binascii.Error:
        good = False
    return None if good else _BAD_KEY


class Client(Peer):
    """The client's end, which also hears that this worker stops."""

    __slots__ = ("call", "over", "stopping")

    def __init__(self, call: Call, message_max_bytes: int) -> None:
        super().__init__(_ClientWire(call), client=True, message_max_bytes=message_max_bytes)
        self.call = call
        self.over = asyncio.Event()  # it need not be waited for any more
        self.stopping: Callable[[], object] | None = None

    def stop(self) -> None:
        """End soon."""
        if self.stopping is not None:
            self.stopping()

    def cut(self) -> None:
        """End now, as far as what is settled allows."""
        self.stop()
        self.over.set()


class WebSocketCall(Exchange):
    """Carries one hold to its settlement. Used once."""

    __slots__ = ("_ended_ms", "_key", "_opened")

    def __init__(
        self,
        call: Call,
        head: RequestHead,
        hold: Hold,
        tools: Tools,
        facts: RequestFacts | None = None,
    ) -> None:
        super().__init__(call, head, hold, tools, facts)
        self._key = new_key()
        self._opened: float | None = None  # loop time at which the conversation began
        self._ended_ms: int | None = None  # how long it has lasted

    def elapsed_ms(self) -> int:
        """How long the conversation has lasted, in milliseconds begun; 0 before it begins."""
        if self._ended_ms is not None:
            return self._ended_ms
        if self._opened is None:
            return 0
        return int((asyncio.get_running_loop().time() - self._opened) * 1000) + 1

    def _send(self, _body: bytes | None, _start: bytes) -> Awaitable[Answer]:
        head, offer = self.head, self.hold.offer
        lines = [line for line in head.lines if _name(line) not in _HANDSHAKE]
        lines += [
            b"Connection: Upgrade",
            b"Upgrade: websocket",
            b"Sec-WebSocket-Version: " + _VERSION,
            b"Sec-WebSocket-Key: " + self._key,
        ]
        asked = head._replace(lines=lines)
        return open_websocket(
            self.tools.client,
            offer.origin,
            request_head(self.call, asked, offer, self.hold.call_id, 0),
            key=self._key,
            offered=_offered(head),
            sending=partial(self.tools.mark, self),
        )

    async def _answer_whole(self, answer: Answer, body: bytes) -> None:
        if isinstance(answer, Tunnel):
            await self._converse(answer)
        else:
            _refused(answer)
            await super()._answer_whole(answer, body)

    async def _answer_stream(self, answer: Answer) -> None:
        _refused(answer)
        await super()._answer_stream(answer)

    async def _converse(self, tunnel: Tunnel) -> None:
        """Relay until it is over, settle, then let both ends go."""
        route = self.hold.offer.route
        rule = route.websocket
        client = Client(self.call, rule.message_max_bytes)
        agent = Peer(tunnel, client=False, message_max_bytes=rule.message_max_bytes)
        try:
            cover = self._begin(tunnel)
            relay = Relay(
                client,
                agent,
                cover,
                timeouts=route.timeouts,
                client_wait_s=self.tools.body_timeout_s,
                interval_ms=rule.check_ms,
                elapsed_ms=self.elapsed_ms,
            )
            client.stopping = relay.stop
            self.call.connection.upgrade(client)
            tunnel.attach(agent)
            try:
                over = await relay.run()
            finally:
                # What it has used is what the hold was seen to cover, and so is what it pays.
                self._ended_ms = cover.paid_ms(self.elapsed_ms())
                self.hold = _at_most_held(self.hold)
            log.info("call %s: %s", self.hold.call_id, _told(over))
            await self._end(over.ending, self._reading(), whole=over.ending is Ending.COMPLETED)
            await self._part(over, client, agent)
        except BaseException:
            agent.close(close_payload(CloseCode.GOING_AWAY))
            raise
        finally:
            tunnel.abort()

    def _begin(self, tunnel: Tunnel) -> Cover:
        """Tell the client that it is a WebSocket now, and begin to count."""
        call, hold = self.call, self.hold
        plan = hold.offer.answer_kind((b"", b"")).meter_plan
        if plan is not None:
            self.meter = plan.open(METER_TOOLS, tunnel.headers, self.facts)
            self.meter.note_messages(0, 0)
        lines, _ = answers.read_headers(tunnel.headers)
        chosen = subprotocols_in(tunnel.headers)
        [key] = _values(self.head, b"sec-websocket-key")
        transport = call.connection.transport
        if transport is not None:
            transport.set_write_buffer_limits(high=WRITE_BUFFER_MAX_BYTES)
        call.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: %b\r\n%b%b%b%b\r\n"
            % (
                accept_of(key),
                b"Sec-WebSocket-Protocol: %b\r\n" % chosen[0] if chosen else b"",
                answers.without(lines, _OWN_ANSWER | hold.offer.hidden_names),
                answers.reserve_lines(hold.call_id, hold.held, hold.admitted),
                answers.rate_lines(hold.admitted),
            )
        )
        self.status = SWITCHED_STATUS
        self._opened = asyncio.get_running_loop().time()
        raises = self.tools.raises
        if raises is None:
            raise RuntimeError("a WebSocket without a hold")
        return Cover(self, raises, hold.offer.route.websocket.check_ms)

    async def _part(self, over: Over, client: Client, agent: Peer) -> None:
        """Send what is left to be said, and wait a while for both ends to hear it."""
        waits = []
        if over.to_agent is not None:
            agent.close(over.to_agent)
            waits.append(agent.parted())
        if over.to_client is None:
            self.call.abort()
        else:
            client.close(over.to_client)
            waits.append(client.parted())
        parting = [asyncio.ensure_future(wait) for wait in waits]
        cut = asyncio.ensure_future(client.over.wait())
        parted = asyncio.gather(*parting)
        try:
            await asyncio.wait(
                (parted, cut), timeout=PARTING_S, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            for task in (*parting, cut):
                task.cancel()
            await asyncio.gather(parted, cut, return_exceptions=True)


class _ClientWire:
    """A client's connection, as its peer writes to it."""

    __slots__ = ("_call",)

    def __init__(self, call: Call) -> None:
        self._call = call

    @property
    def writing_paused(self) -> bool:
        return self._call.connection.writing_paused

    def write(self, data: bytes) -> None:
        self._call.write(data)

    def pause_reading(self) -> None:
        self._call.connection.pause_reading()

    def resume_reading(self) -> None:
        self._call.connection.resume_reading()


def _refused(answer: Answer) -> None:
    """See that an agent which does not agree refuses.

    Raises: UpstreamBroken for a success that is no WebSocket, and for a place to go to instead.
    """
    if answer.status < 400:
        answer.abort()
        raise UpstreamBroken(f"no WebSocket: it answered {answer.status}", sent=True)


def _at_most_held(hold: Hold) -> Hold:
    """The hold of a conversation whose end costs no more than what was reserved for it."""
    bound = hold.terms.bound
    most = hold.held if bound is None else min(bound, hold.held)
    return hold._replace(terms=hold.terms._replace(bound=most))


def _told(over: Over) -> str:
    if over.to_client is None:
        return over.ending
    return f"{over.ending}, closed with {over.to_client[2:].decode()!r}"


def _name(line: bytes) -> bytes:
    return line.partition(b":")[0].lower()


def _values(head: RequestHead, name: bytes) -> list[bytes]:
    return [line.partition(b":")[2].strip() for line in head.lines if _name(line) == name]


def _offered(head: RequestHead) -> Sequence[bytes]:
    """The subprotocols that the client offers."""
    return subprotocols_in([(_PROTOCOL, value) for value in _values(head, _PROTOCOL)])
