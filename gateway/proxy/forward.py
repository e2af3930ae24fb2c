"""The request that the agent gets: its head, and its body piece by piece."""

from __future__ import annotations

import asyncio
from functools import lru_cache
from typing import TYPE_CHECKING

from gateway import errors
from gateway.proxy.decoders import READABLE_ENCODINGS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aiohttp.streams import StreamReader

    from gateway.errors import Refusal
    from gateway.proxy.heads import RequestHead
    from gateway.proxy.offers import Offer
    from gateway.proxy.server import Call
    from policies.meters.facts import RequestFacts

# Bodies up to this size are read before credits are held, so that a slow sender holds none.
SMALL_BODY_MAX_BYTES = 65_536
# Where the price depends on the body, it is read before credits are held up to this size; of a
# larger one the price knows nothing but its length.
REQUEST_READ_MAX_BYTES = 8 * 1024 * 1024
# What all such bodies of a worker may take while they are still coming.
READ_AHEAD_MAX_BYTES = 256 * 1024 * 1024
# What one account may take of it when it is half full: this part.
READ_AHEAD_SHARES = 8
# Clients send a handful of these; the bound is against one that makes them up.
ENCODINGS_CACHED_MAX = 256
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_METHODS_WITH_LENGTH = frozenset({"POST", "PUT", "PATCH"})


class BodyError(Exception):
    """A request's body can't be had."""


class BodyTooLargeError(BodyError):
    """The client sent more than the route allows."""

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(f"more than {limit_bytes} bytes")
        self.limit_bytes = limit_bytes


class BodyTimeoutError(BodyError):
    """The client did not send the next part of its body in time."""


class TooMuchReadError(BodyError):
    """Too many large bodies are being read ahead at this moment."""


class ClientGoneError(BodyError):
    """The client left before its body was complete."""


def request_head(
    call: Call, head: RequestHead, offer: Offer, call_id: str, length: int | None
) -> bytes:
    """The head for the agent; `length` is the body's, None for a chunked one.

    The client's hop-by-hop headers, key and forwarding claims are gone already; the route's own
    headers come last and replace the client's of the same name.
    """
    lines = head.lines
    if offer.injected_names:
        names = offer.injected_names
        lines = [line for line in lines if line.partition(b":")[0].lower() not in names]
    encoding = head.accept_encoding
    if offer.has_tasks:
        encoding = b"Accept-Encoding: identity\r\n"  # its answers are read
    elif encoding is None:
        encoding = b""
    else:
        if offer.metered:
            encoding = _readable_encodings(encoding)
        encoding = b"Accept-Encoding: " + encoding + b"\r\n"
    if length is None:
        framing = b"Transfer-Encoding: chunked\r\n"
    elif length or head.content_length is not None or head.method in _METHODS_WITH_LENGTH:
        framing = b"Content-Length: %d\r\n" % length
    else:
        framing = b""
    return (
        b"%b %b%b HTTP/1.1\r\nHost: %b\r\n"
        b"%b%b%b%bX-Forwarded-Host: %b\r\nX-Request-Id: %b\r\n%b\r\n"
        % (
            head.method.encode(),
            offer.upstream_path(head.path),
            head.query.encode(),
            offer.origin.host_header,
            b"\r\n".join(lines) + b"\r\n" if lines else b"",
            encoding,
            framing,
            call.connection.forwarded_for,
            head.host,
            call_id.encode(),
            offer.injected,
        )
    )


@lru_cache(maxsize=ENCODINGS_CACHED_MAX)
def _readable_encodings(accepted: bytes) -> bytes:
    """What of the client's Accept-Encoding a meter can read; `identity` if that is nothing.

    An agent that uses another encoding all the same is passed on untouched, and its units count
    as missing.
    """
    kept = [
        offer.strip()
        for offer in accepted.split(b",")
        if offer.partition(b";")[0].strip().lower().decode("latin-1") in READABLE_ENCODINGS
    ]
    return b", ".join(kept) or b"identity"


async def small_body(call: Call, timeout_s: float) -> bytes:
    """The whole body of a request that announced at most `SMALL_BODY_MAX_BYTES`.

    All of it has to come within `timeout_s`.

    Raises: BodyTimeoutError, ClientGoneError.
    """
    parts = []
    try:
        async with asyncio.timeout(timeout_s):
            while part := await _read(call.payload):
                parts.append(part)
    except TimeoutError:
        raise BodyTimeoutError from None
    return b"".join(parts)


def body_refusal(failure: BodyError) -> Refusal:
    """What a client is told whose body could not be read before its call was admitted."""
    match failure:
        case BodyTimeoutError():
            return errors.BODY_TIMEOUT
        case TooMuchReadError():
            return errors.unavailable("Too many large bodies are being read at once.")
        case BodyTooLargeError(limit_bytes=limit):
            return errors.too_large(limit)
    return errors.bad_request("The body ended early.")


class BodyReader:
    """Reads bodies before credits are held; bounded over all calls of a worker.

    Half of the room is for whoever comes. Of the rest an account has its share, so that one which
    sends slowly does not keep the others from being read.
    """

    def __init__(self) -> None:
        self._bytes = 0
        self._of_accounts: dict[int, int] = {}

    async def read(
        self,
        call: Call,
        account_id: int,
        timeout_s: float,
        limit_bytes: int = REQUEST_READ_MAX_BYTES,
    ) -> tuple[bytes, bool]:
        """The body, or its start where it is longer than `REQUEST_READ_MAX_BYTES`; and which.

        Each part has to come within `timeout_s`, and all of it be within `limit_bytes`.

        Raises: BodyTimeoutError, BodyTooLargeError, ClientGoneError, TooMuchReadError.
        """
        body = bytearray()
        taken = 0
        try:
            while len(body) <= REQUEST_READ_MAX_BYTES:
                part = await _next_part(call, timeout_s)
                if not part:
                    return bytes(body), True
                if len(body) + len(part) > limit_bytes:
                    raise BodyTooLargeError(limit_bytes)
                self._take(account_id, len(part))
                taken += len(part)
                body += part
            return bytes(body), False
        finally:
            self._give_back(account_id, taken)

    def _take(self, account_id: int, size: int) -> None:
        of_account = self._of_accounts.get(account_id, 0) + size
        used = self._bytes + size
        crowded = used > READ_AHEAD_MAX_BYTES // 2
        if used > READ_AHEAD_MAX_BYTES or (
            crowded and of_account > READ_AHEAD_MAX_BYTES // READ_AHEAD_SHARES
        ):
            raise TooMuchReadError
        self._bytes = used
        self._of_accounts[account_id] = of_account

    def _give_back(self, account_id: int, size: int) -> None:
        if not size:
            return
        self._bytes -= size
        left = self._of_accounts.pop(account_id) - size
        if left:
            self._of_accounts[account_id] = left


async def large_body(
    call: Call, timeout_s: float, limit_bytes: int, start: bytes, facts: RequestFacts | None
) -> AsyncIterator[bytes]:
    """The body in parts as they come, each within `timeout_s`; `start` was read before.

    With back-pressure: nothing is read before the last part was taken. `facts` are told how much
    has come of a body that did not announce its length.

    Raises: BodyTooLargeError, BodyTimeoutError, ClientGoneError.
    """
    total = len(start)
    if total > limit_bytes:
        raise BodyTooLargeError(limit_bytes)
    counted = facts if facts is not None and facts.body_bytes is None else None
    if counted is not None:
        counted.body_bytes = total
    if start:
        yield start
    while True:
        part = await _next_part(call, timeout_s)
        if not part:
            return
        total += len(part)
        if total > limit_bytes:
            raise BodyTooLargeError(limit_bytes)
        if counted is not None:
            counted.body_bytes = total
        yield part


async def _next_part(call: Call, timeout_s: float) -> bytes:
    try:
        async with asyncio.timeout(timeout_s):
            return await _read(call.payload)
    except TimeoutError:
        raise BodyTimeoutError from None


async def _read(payload: StreamReader) -> bytes:
    try:
        return await payload.readany()
    except Exception as exc:
        # aiohttp reports a lost connection, and framing that breaks mid-body, in several types.
        raise ClientGoneError from exc
