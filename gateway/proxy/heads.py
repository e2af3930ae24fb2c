"""Request heads: refused when ambiguous, else read once into what the call's way needs.

One pass over the raw header lines does everything: framing checks, the credential, and the lines
that may be forwarded. Hop-by-hop headers (RFC 9110 section 7.6.1) and whatever `Connection` names
stay here; the client's own key never leaves the gateway.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from gateway.errors import Refusal, bad_request
from gateway.proxy.paths import TARGET_BYTES_MAX, canonical_path, valid_query
from policies.idempotency import KEY_CHARACTERS_MAX, parse_key
from policies.units import parse_credits

if TYPE_CHECKING:
    from aiohttp.http_parser import RawRequestMessage

CREDENTIAL_PREFIX = b"tk_"
# Most calls have one of a few targets. At most 8 KiB each.
TARGETS_CACHED_MAX = 1_024
LENGTH_DIGITS_MAX = 19  # as many as 2**63 has; int() refuses to read thousands
_METHODS_REFUSED = frozenset({"CONNECT", "TRACE"})
_BEARER = b"bearer "
_SESSION_ID = re.compile(rb"[A-Za-z0-9._~:-]{1,128}")
_BAD_SESSION = Refusal(
    400,
    "bad_request",
    "Send one X-Session-Id of 1 to 128 letters, digits and '.', '_', '~', ':', '-'.",
)

_BAD_MAX_CREDITS = Refusal(
    400,
    "bad_request",
    "Send one X-Max-Credits: the most that the call may cost, as a plain decimal such as '2.5'.",
)
_BAD_KEY = Refusal(
    400,
    "bad_request",
    f"Send one Idempotency-Key of at most {KEY_CHARACTERS_MAX} characters: a quoted string, or "
    "letters, digits and !#$%&'*+-./:=@^_`|~ without quotes.",
)
_KEYED_WEBSOCKET = bad_request("A WebSocket can't have an Idempotency-Key: it has no one answer.")

(
    _FORWARD,
    _DROP,
    _CREDENTIAL,
    _HOST,
    _LENGTH,
    _CODING,
    _CONNECTION,
    _EXPECT,
    _ENCODING,
    _SESSION,
    _MAX_CREDITS,
    _IDEMPOTENCY,
    _UPGRADE,
    _UNDERSCORE,
) = range(14)
_SPECIAL = {
    b"authorization": _CREDENTIAL,
    b"x-api-key": _CREDENTIAL,
    b"host": _HOST,
    b"content-length": _LENGTH,
    b"transfer-encoding": _CODING,
    b"connection": _CONNECTION,
    b"expect": _EXPECT,
    b"upgrade": _UPGRADE,
    b"accept-encoding": _ENCODING,
    b"x-session-id": _SESSION,
    b"x-max-credits": _MAX_CREDITS,
    b"idempotency-key": _IDEMPOTENCY,
    **dict.fromkeys(
        (
            b"keep-alive",
            b"proxy-authenticate",
            b"proxy-authorization",
            b"proxy-connection",
            b"te",
            b"trailer",
            b"forwarded",
            b"x-forwarded-for",
            b"x-forwarded-host",
            b"x-forwarded-proto",
            b"x-forwarded-port",
            b"x-real-ip",
            b"x-request-id",
        ),
        _DROP,
    ),
}
_BAD_UPGRADE = bad_request(
    "The only upgrade that is offered here is one GET by HTTP/1.1 to 'websocket', without a body "
    "and with 'Connection: Upgrade'."
)
_BAD_NAME = bad_request("Header names with '_' are refused: some readers take it for '-'.")
# Header names as clients spell them, classified once. Bounded: names beyond it are classified
# each time.
CLASSIFIED_NAMES_MAX = 2_048
_classified: dict[bytes, int] = {}
_CONNECTION_OPTIONS = frozenset({b"keep-alive", b"close", b""})


class RequestHead(NamedTuple):
    """What the call's way needs of a request head."""

    method: str
    path: str  # canonical
    query: str  # with its "?", as received; or empty
    credential: bytes | None  # the key's text
    host: bytes
    lines: list[bytes]  # "Name: value" to forward, without line ends
    accept_encoding: bytes | None
    content_length: int | None
    chunked: bool
    expects_continue: bool  # and a body is to come, in a version that knows of it
    session: bytes  # X-Session-Id; empty: none was sent
    credits_max: int | None = None  # X-Max-Credits, microcredits
    idempotency_key: bytes = b""  # empty: none was sent
    websocket: bool = False  # it asks to become one (RFC 6455)


def read_head(message: RawRequestMessage) -> RequestHead | Refusal:  # noqa: C901, PLR0911, PLR0912, PLR0915 - one pass
    """The head of a request, or why it can't be forwarded safely (400, 501)."""
    method = message.method
    if method in _METHODS_REFUSED:
        return bad_request(f"{method} is not offered here.", status=501)
    target = read_target(message.path)
    if isinstance(target, Refusal):
        return target
    credential = host = length = coding = encoding = None
    expects, session, credits_max, key, websocket = False, b"", None, b"", False
    dropped: frozenset[bytes] | None = None
    lines: list[bytes] = []
    for name, value in message.raw_headers:
        kind = _classified.get(name)
        if kind is None:
            kind = _classify(name)
        if kind == _FORWARD:
            lines.append(name + b": " + value)
        elif kind == _CREDENTIAL:
            found = _credential(value)
            if found is None:
                lines.append(name + b": " + value)
            else:
                credential = credential or found
        elif kind == _HOST:
            if host is not None:
                return bad_request("Send exactly one Host header.")
            host = value
        elif kind == _LENGTH:
            if length is not None or not value.isdigit() or len(value) > LENGTH_DIGITS_MAX:
                return bad_request("Send exactly one Content-Length, as a decimal number.")
            length = int(value)
        elif kind == _CODING:
            if coding is not None or value.lower() != b"chunked":
                detail = "The only Transfer-Encoding that is understood here is 'chunked'."
                return bad_request(detail, status=501)
            coding = value
        elif kind == _CONNECTION:
            dropped = _connection_options(value, dropped)
        elif kind == _EXPECT:
            if value.lower() != b"100-continue":
                return bad_request("The only Expect that is understood here is '100-continue'.")
            expects = True
        elif kind == _ENCODING:
            encoding = value
        elif kind == _SESSION:
            if session or not _SESSION_ID.fullmatch(value):
                return _BAD_SESSION
            session = value
            lines.append(name + b": " + value)
        elif kind == _MAX_CREDITS:
            if credits_max is not None:
                return _BAD_MAX_CREDITS
            try:
                credits_max = parse_credits(value.decode("latin-1"))
            except ValueError:
                return _BAD_MAX_CREDITS
        elif kind == _IDEMPOTENCY:
            parsed = parse_key(value)
            if key or parsed is None:
                return _BAD_KEY
            key = parsed
        elif kind == _UPGRADE:
            if websocket or value.lower() != b"websocket":
                return _BAD_UPGRADE
            websocket = True
        elif kind == _UNDERSCORE:
            return _BAD_NAME
    if coding is not None and (length is not None or message.version < (1, 1)):
        return bad_request("Transfer-Encoding can't be sent with Content-Length or HTTP/1.0.")
    if expects:
        # RFC 9110 section 10.1.1: from HTTP/1.0, or without a body, it means nothing.
        expects = message.version >= (1, 1) and bool(length or coding)
    if host is None:
        if message.version >= (1, 1):
            return bad_request("Send exactly one Host header.")
        host = b""
    elif not host or b"," in host or b"@" in host or b" " in host or b"/" in host:
        return bad_request("The Host header is not a host.")
    if websocket and key:
        return _KEYED_WEBSOCKET
    if websocket and (length or coding or method != "GET" or not _upgrades(message)):
        return _BAD_UPGRADE
    if dropped:
        lines = [line for line in lines if line.partition(b":")[0].lower() not in dropped]
    path, query = target
    chunked = coding is not None
    return RequestHead(
        method,
        path,
        query,
        credential,
        host,
        lines,
        encoding,
        length,
        chunked,
        expects,
        session,
        credits_max,
        key,
        websocket,
    )


@lru_cache(maxsize=TARGETS_CACHED_MAX)
def read_target(target: str) -> tuple[str, str] | Refusal:
    """Canonical path and raw query of a request target in origin form."""
    if not target.startswith("/") or len(target) > TARGET_BYTES_MAX:
        return bad_request("The request target must be a path such as '/v1/chat/completions'.")
    path, mark, query = target.partition("?")
    canonical = canonical_path(path)
    if canonical is None or (mark and not valid_query(query)):
        return bad_request("The path or query is ambiguous; send it normalised and escaped.")
    return canonical, target[len(path) :] if mark else ""


def _upgrades(message: RawRequestMessage) -> bool:
    """Whether `Connection` says so, too, in a version that knows of it."""
    return bool(message.upgrade) and message.version >= (1, 1)


def _classify(name: bytes) -> int:
    lower = name.lower()
    kind = _SPECIAL.get(lower, _UNDERSCORE if b"_" in lower else _FORWARD)
    if len(_classified) < CLASSIFIED_NAMES_MAX:
        _classified[name] = kind
    return kind


def _credential(value: bytes) -> bytes | None:
    if value.startswith(CREDENTIAL_PREFIX):
        return value
    if value[:7].lower() == _BEARER:
        token = value[7:].strip()
        if token.startswith(CREDENTIAL_PREFIX):
            return token
    return None


def _connection_options(value: bytes, known: frozenset[bytes] | None) -> frozenset[bytes] | None:
    """Names of headers that the sender marks as hop-by-hop; None when there are none."""
    if value in _CONNECTION_OPTIONS:
        return known
    options = frozenset(option.strip().lower() for option in value.split(b","))
    return (options - _CONNECTION_OPTIONS) | (known or frozenset())
