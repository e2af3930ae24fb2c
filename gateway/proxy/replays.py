"""An answer as it is kept for the retries of its call, and how a retry gets it.

A replay is the agent's answer byte for byte, framed as it was, under the first call's request id
and with what that was charged. What was not kept is answered with a receipt: 410, because the call
has run and will not run again, and no client may take a receipt for the agent's answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import orjson

from gateway.proxy.answers import connection_line, price_lines, sse_receipt
from gateway.proxy.hold import Receipt
from policies.units import format_credits

if TYPE_CHECKING:
    from gateway.proxy.server import Call

_CHUNKED = b"Transfer-Encoding: chunked\r\n"
_RECEIPT_HEAD = b"HTTP/1.1 410 Gone\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"
_REPLAYED = b"Idempotency-Replayed: true\r\n"
_DETAIL = (
    "A call with this Idempotency-Key has ended and will not run again, but its answer was not "
    "kept. Send another key to make a new call."
)


class Head(NamedTuple):
    """The head of an agent's answer; `lines` and `framing` are header lines with their ends."""

    status: int
    reason: bytes
    lines: bytes
    framing: bytes
    events: bool  # an SSE stream, which ends with what it cost


class Replay(NamedTuple):
    """What is left of a call that has ended; without a head it is a receipt.

    `reserved` is what its task keeps, where that outlives the call: nothing is charged yet.
    """

    call_id: str
    ending: str
    status: int
    charged: int  # microcredits
    head: Head | None = None
    body: bytes = b""
    reserved: int | None = None

    def receipt(self) -> Replay:
        """The same without its answer."""
        return self._replace(head=None, body=b"")

    def encode(self) -> bytes:
        """As stores keep it: a line of JSON, and the body."""
        head = None
        if self.head is not None:
            status, reason, lines, framing, events = self.head
            texts = [part.decode("latin-1") for part in (reason, lines, framing)]
            head = [status, *texts, events]
        facts = [self.call_id, self.ending, self.status, self.charged, self.reserved, head]
        return orjson.dumps(facts) + b"\n" + self.body

    def write(self, call: Call) -> None:
        """Answer a retry."""
        if not call.payload.is_eof():
            call.keep_alive = False
        cost = Receipt(self.charged, None, self.reserved)
        price = price_lines(self.call_id, cost)
        if self.head is None:
            self._write_receipt(call, price)
            return
        status, reason, lines, framing, events = self.head
        body = self.body
        if events and body:
            body += sse_receipt(cost, body)
        if framing != _CHUNKED:
            # Without a body it is the length that the answer would have had, of HEAD or 304; one
            # that ended with its connection had none, and a retry's connection may go on.
            bodiless = call.message.method == "HEAD" or status in {204, 304}
            if body or not (framing or bodiless):
                framing = b"Content-Length: %d\r\n" % len(body)
        elif call.message.version < (1, 1):
            framing, call.keep_alive = b"", False
        else:
            body = (b"%x\r\n%b\r\n" % (len(body), body) if body else b"") + b"0\r\n\r\n"
        call.write(
            b"HTTP/1.1 %d %b\r\n%b%b%b%b%b\r\n%b"
            % (status, reason, lines, framing, price, _REPLAYED, connection_line(call), body)
        )

    def _write_receipt(self, call: Call, price: bytes) -> None:
        body = receipt_json(self)
        head = _RECEIPT_HEAD % len(body) + price + _REPLAYED + connection_line(call)
        call.write(head + b"\r\n" + (b"" if call.message.method == "HEAD" else body))


def receipt_json(replay: Replay) -> bytes:
    """What a retry is told of a call whose answer was not kept."""
    told = {
        "request_id": replay.call_id,
        "ending": replay.ending,
        "status": replay.status,
        "charged": format_credits(replay.charged),
    }
    if replay.reserved is not None:
        told["reserved"] = format_credits(replay.reserved)
    return orjson.dumps({**told, "detail": _DETAIL})


def parse_replay(kept: bytes) -> Replay:
    """What `encode` has made. Raises: ValueError for what it has not."""
    line, _, body = kept.partition(b"\n")
    call_id, ending, status, charged, reserved, head = orjson.loads(line)
    if head is None:
        return Replay(call_id, ending, status, charged, reserved=reserved)
    answered, *texts, events = head
    reason, lines, framing = (text.encode("latin-1") for text in texts)
    parsed = Head(answered, reason, lines, framing, events)
    return Replay(call_id, ending, status, charged, parsed, body, reserved)
