"""The bytes that the client gets: the agent's answer with the price on it, or a refusal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.errors import NO_IDS, header_lines, http_status, reason, render
from policies.units import format_credits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.errors import Refusal, RpcIds
    from gateway.proxy.hold import Receipt
    from gateway.proxy.server import Call
    from gateway.upstream import Answer
    from policies.catalog import ErrorStyle
    from policies.decision import Admitted

_DROPPED = frozenset(
    {
        # Hop-by-hop (RFC 9110 section 7.6.1), and framing, which is ours.
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"content-length",
        # What the gateway says itself: an agent must not be able to speak for it.
        b"x-request-id",
        b"idempotency-replayed",
        b"x-credits-charged",
        b"x-credits-reserved",
        b"x-credits-remaining",
        b"ratelimit",
        b"ratelimit-policy",
    }
)
# Header names as agents spell them, classified once; names beyond the bound are classified each
# time.
CLASSIFIED_NAMES_MAX = 2_048
# What ends an event of a stream, in the three spellings of a line end.
BLANK_LINES = (b"\n\n", b"\r\n\r\n", b"\r\r")
SSE_END_BYTES = 4
_CONNECTION_OPTIONS = frozenset({b"close", b"keep-alive"})
# RFC 9110 section 15.5.22, RFC 6455 section 4.4.
_UPGRADE_LINES = b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
_DROP, _KEEP, _TYPE, _ENCODING, _CONNECTION = range(5)
_SPECIAL = {
    b"content-type": _TYPE,
    b"content-encoding": _ENCODING,
    b"connection": _CONNECTION,
}
_classified: dict[bytes, int] = {}


def read_headers(headers: Sequence[tuple[bytes, bytes]]) -> tuple[bytes, tuple[bytes, bytes]]:
    """The agent's headers in one pass: the lines that may pass, and what kind of answer it is.

    Nothing passes that its `Connection` names. The kind is (content type, content encoding).
    """
    lines = []
    content_type = content_encoding = b""
    named: frozenset[bytes] = frozenset()
    for name, value in headers:
        kind = _classified.get(name)
        if kind is None:
            kind = _classify(name)
        if kind:
            if kind == _TYPE:
                content_type = value
            elif kind == _ENCODING:
                content_encoding = value
            elif kind == _CONNECTION:
                if value not in _CONNECTION_OPTIONS:
                    named |= {option.strip().lower() for option in value.split(b",")}
                continue
            lines.append(b"%b: %b\r\n" % (name, value))
    if named:
        lines = [line for line in lines if line.partition(b":")[0].lower() not in named]
    return b"".join(lines), (content_type, content_encoding)


def length_line(answer: Answer) -> bytes:
    """The length that the agent announced, as a header line; of a HEAD too."""
    if answer.content_length is None or answer.status == 204:
        return b""
    return b"Content-Length: %d\r\n" % answer.content_length


def without(lines: bytes, names: frozenset[bytes]) -> bytes:
    """Header lines without those of some names, which are in lower case."""
    kept = [
        line
        for line in lines.split(b"\r\n")
        if line and line.partition(b":")[0].lower() not in names
    ]
    return b"".join([line + b"\r\n" for line in kept])


def price_lines(call_id: str, receipt: Receipt) -> bytes:
    """Header lines of an answer whose price is known."""
    if receipt.reserved_microcredits is None:
        price = f"X-Credits-Charged: {format_credits(receipt.charged_microcredits)}"
    else:
        price = f"X-Credits-Reserved: {format_credits(receipt.reserved_microcredits)}"
    lines = f"X-Request-Id: {call_id}\r\n{price}\r\n"
    if receipt.remaining_microcredits is not None:
        lines += f"X-Credits-Remaining: {format_credits(receipt.remaining_microcredits)}\r\n"
    return lines.encode("ascii")


def reserve_lines(call_id: str, held: int, admitted: Admitted) -> bytes:
    """Header lines of a stream, whose price is known only at its end."""
    if not admitted.epoch:  # on trust: nothing is held
        return b"X-Request-Id: %b\r\n" % call_id.encode()
    return b"X-Request-Id: %b\r\nX-Credits-Reserved: %b\r\nX-Credits-Remaining: %b\r\n" % (
        call_id.encode(),
        format_credits(held).encode(),
        format_credits(admitted.remaining).encode(),
    )


def rate_lines(admitted: Admitted) -> bytes:
    """`RateLimit` headers (draft-ietf-httpapi-ratelimit-headers) where the plan limits the rate."""
    if not admitted.rpm_limit:
        return b""
    return b'RateLimit-Policy: "plan";q=%d;w=60\r\nRateLimit: "plan";r=%d\r\n' % (
        admitted.rpm_limit,
        admitted.rpm_remaining,
    )


def sse_receipt(receipt: Receipt, sent: bytes) -> bytes:
    """The comment line that ends an SSE stream: every client ignores it, anyone can read it.

    `sent` is the end of what was sent before. An event that the agent left unfinished must stay so:
    a blank line would make clients take it for a whole one.
    """
    if receipt.reserved_microcredits is None:
        line = f": credits-charged={format_credits(receipt.charged_microcredits)}"
    else:
        line = f": credits-reserved={format_credits(receipt.reserved_microcredits)}"
    if receipt.remaining_microcredits is not None:
        line += f" credits-remaining={format_credits(receipt.remaining_microcredits)}"
    if sent.endswith(BLANK_LINES):
        return f"{line}\n\n".encode()
    if sent.endswith((b"\n", b"\r")):
        return f"{line}\n".encode()
    return f"\n{line}\n".encode()


def refuse(  # noqa: PLR0917 - a refusal, and how to say it
    call: Call,
    refusal: Refusal,
    style: ErrorStyle,
    call_id: str,
    extra_lines: bytes = b"",
    rpc_ids: RpcIds = NO_IDS,
) -> None:
    """Write a refusal as the whole answer; in JSON-RPC's style to the ids that wait for one.

    A body that the client still sends is not read: the connection ends.
    """
    if refusal.close or not call.payload.is_eof():
        call.keep_alive = False
    content_type, body = render(refusal, style, call_id, rpc_ids)
    status = http_status(refusal, style, rpc_ids)
    extra_lines = extra_lines or b"X-Request-Id: %b\r\n" % call_id.encode()
    extra_lines += header_lines(refusal, style, call_id)
    if refusal.retry_after_s is not None:
        extra_lines += b"Retry-After: %d\r\n" % refusal.retry_after_s
    if refusal.status == 401:
        extra_lines += b"WWW-Authenticate: Bearer\r\n"
    elif refusal.status == 426:
        extra_lines += _UPGRADE_LINES
    call.write(
        b"HTTP/1.1 %d %b\r\nContent-Type: %b\r\nContent-Length: %d\r\n%b%b\r\n%b"
        % (
            status,
            reason(status).encode(),
            content_type,
            len(body),
            extra_lines,
            connection_line(call),
            b"" if call.message.method == "HEAD" else body,
        )
    )


def connection_line(call: Call) -> bytes:
    """`Connection: close` where this answer is the connection's last."""
    return b"" if call.keep_alive else b"Connection: close\r\n"


def _classify(name: bytes) -> int:
    lower = name.lower()
    kind = _SPECIAL.get(lower, _DROP if lower in _DROPPED else _KEEP)
    if len(_classified) < CLASSIFIED_NAMES_MAX:
        _classified[name] = kind
    return kind
