"""One document from a URL that an owner gave, such as the keys of an issuer of tokens (a JWKS)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from gateway.upstream.errors import UpstreamBroken
from gateway.upstream.origin import Origin
from policies.catalog import Timeouts

if TYPE_CHECKING:
    import ssl

    from gateway.upstream.answer import Answer
    from gateway.upstream.client import UpstreamClient
    from gateway.upstream.networks import Networks

_HEAD = (
    b"GET %b HTTP/1.1\r\nHost: %b\r\nAccept: application/json\r\n"
    b"User-Agent: tollkeeper\r\nConnection: close\r\n\r\n"
)
_PLAIN = {b"", b"identity"}


async def fetch(
    client: UpstreamClient,
    url: str,
    networks: Networks,
    *,
    bytes_max: int,
    timeout_s: float,
    tls: ssl.SSLContext | None = None,
) -> bytes:
    """The body of the answer to one GET, of at most `bytes_max`, within `timeout_s`.

    Over https, or over http into networks that are allowed: what comes over a public one in the
    open, anybody may have written. A redirect is an answer like any other that is not 200: what it
    names, the owner did not. For https without `tls` a context is made, as in `Origin.parse`.

    Raises: ValueError for a URL that is none; UpstreamError for all else, an answer that is
    too long or compressed included.
    """
    place, _, query = url.partition("?")
    timeout_ms = max(1, round(timeout_s * 1000))
    timeouts = Timeouts(timeout_ms, timeout_ms, timeout_ms, timeout_ms)
    origin, _ = Origin.parse(place, tls=tls, networks=networks, timeouts=timeouts)
    if not query.isascii() or not query.isprintable() or " " in query or "#" in query:
        raise ValueError(f'"{url}" must be ASCII without spaces or a fragment')
    if origin.scheme == "http":
        origin = replace(origin, networks=networks.only_allowed())
    target = (urlsplit(place).path or "/") + (f"?{query}" if query else "")
    head = _HEAD % (target.encode("ascii"), origin.host_header)
    answer = await client.send(origin, head, method=b"GET", safe=True)
    try:
        return await _body(answer, bytes_max)
    finally:
        answer.abort()


async def _body(answer: Answer, bytes_max: int) -> bytes:
    if answer.status != 200:
        raise UpstreamBroken(f"answered {answer.status}, not 200", sent=True)
    for name, value in answer.headers:
        if name.lower() == b"content-encoding" and value.strip().lower() not in _PLAIN:
            raise UpstreamBroken("its answer is compressed, which was not asked for", sent=True)
    body = bytearray()
    while piece := await answer.read():
        body += piece
        if len(body) > bytes_max:
            raise UpstreamBroken(f"its answer is longer than {bytes_max} bytes", sent=True)
    return bytes(body)
