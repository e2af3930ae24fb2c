"""Request heads: refused when ambiguous, else read once into what the call's way needs.

One pass over the raw header lines does everything: framing checks, the credential, and the lines
that may be forwarded. Hop-by-hop headers (RFC 9110 section 7.6.1) and whatever `Connection` names
stay here; the client's own key never leaves the gateway. A signed token (JWT) is the client's
credential only where it sends no key: else it may be meant for the agent, and passes.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from gateway.errors import Refusal, bad_request
from gateway.proxy.paths import TARGET_BYTES_MAX, canonical_path, valid_query
from policies.idempotency import KEY_CHARACTERS_MAX, parse_key
from policies.units import parse_credits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiohttp.http_parser import RawRequestMessage

CREDENTIAL_PREFIX = b"tk_"
TOKEN_PREFIX = b"eyJ"  # base64 of '{"', as every header of a JWT begins
TOKEN_BYTES_MAX = 8_192
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
# What is wrong with a rare header, or with more than one of it.
_REFUSALS = {
    _EXPECT: bad_request("The only Expect that is understood here is '100-continue'."),
    _SESSION: _BAD_SESSION,
    _MAX_CREDITS: _BAD_MAX_CREDITS,
    _IDEMPOTENCY: _BAD_KEY,
    _UPGRADE: _BAD_UPGRADE,
    _UNDERSCORE: bad_request("Header names with '_' are refused: some readers take it for '-'."),
}
_BAD_HOSTS = bad_request("Send exactly one Host header.")
_BAD_CODING = bad_request(
    "The only Transfer-Encoding that is understood here is 'chunked'.", status=501
)
# Header names as clients spell them, classified once. Bounded: names beyond it are classified
# each time.
CLASSIFIED_NAMES_MAX = 2_048
_classified: dict[bytes, int] = {}
_CONNECTION_OPTIONS = frozenset({b"keep-alive", b"close", b""})


class _Wishes(NamedTuple):
    """What few requests ask of the gateway itself; see `RequestHead`."""

    expects_continue: bool = False
    session: bytes = b""
    credits_max: int | None = None
    idempotency_key: bytes = b""
    websocket: bool = False


_NO_WISHES = _Wishes()


class RequestHead(NamedTuple):
    """What the call's way needs of a request head."""

    method: str
    path: str  # canonical
    query: str  # with its "?", as received; or empty
    credential: bytes | None  # the text of a key or a token
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


def read_head(message: RawRequestMessage) -> RequestHead | Refusal:  # noqa: C901, PLR0911, PLR0912 - one pass
    """The head of a request, or why it can't be forwarded safely (400, 501)."""
    if message.method in _METHODS_REFUSED:
        return bad_request(f"{message.method} is not offered here.", status=501)
    target = read_target(message.path)
    if isinstance(target, Refusal):
        return target
    credential = token = host = length = coding = encoding = None
    dropped: frozenset[bytes] | None = None
    lines: list[bytes] = []
    rare: list[tuple[int, bytes]] = []
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
                token = token or _token(value)
            else:
                credential = credential or found
        elif kind == _HOST:
            if host is not None:
                return _BAD_HOSTS
            host = value
        elif kind == _LENGTH:
            if length is not None or not value.isdigit() or len(value) > LENGTH_DIGITS_MAX:
                return bad_request("Send exactly one Content-Length, as a decimal number.")
            length = int(value)
        elif kind == _CODING:
            if coding is not None or value.lower() != b"chunked":
                return _BAD_CODING
            coding = value
        elif kind == _CONNECTION:
            dropped = _connection_options(value, dropped)
        elif kind == _ENCODING:
            encoding = value
        elif kind != _DROP:
            rare.append((kind, value))
            if kind == _SESSION:
                lines.append(name + b": " + value)
    if credential is None and token is not None:
        credential = token
        lines = [line for line in lines if token not in line]
    chunked = coding is not None
    wishes = _read_wishes(rare) if rare else _NO_WISHES
    if isinstance(wishes, Refusal):
        return wishes
    mistake = _mistake_in(message, host, length, chunked=chunked, websocket=wishes.websocket)
    if mistake is not None:
        return mistake
    if wishes.expects_continue and (message.version < (1, 1) or not (length or chunked)):
        # RFC 9110 section 10.1.1: from HTTP/1.0, or without a body, it means nothing.
        wishes = wishes._replace(expects_continue=False)
    if dropped:
        lines = [line for line in lines if line.partition(b":")[0].lower() not in dropped]
    host, method, (path, query) = host or b"", message.method, target
    return RequestHead(
        method, path, query, credential, host, lines, encoding, length, chunked, *wishes
    )


def _read_wishes(rare: Sequence[tuple[int, bytes]]) -> _Wishes | Refusal:
    """What the rare headers ask for, each at most once."""
    wishes = _NO_WISHES
    for kind, value in rare:
        wish = _wish(kind, value)
        if isinstance(wish, Refusal):
            return wish
        (name,) = wish
        if kind != _EXPECT and getattr(wishes, name) != getattr(_NO_WISHES, name):
            return _REFUSALS[kind]
        wishes = wishes._replace(**wish)
    if wishes.websocket and wishes.idempotency_key:
        return _KEYED_WEBSOCKET
    return wishes


def _wish(kind: int, value: bytes) -> dict[str, Any] | Refusal:
    """The field of `_Wishes` that a rare header fills, and with what."""
    if kind == _EXPECT and value.lower() == b"100-continue":
        return {"expects_continue": True}
    if kind == _SESSION and _SESSION_ID.fullmatch(value):
        return {"session": value}
    if kind == _MAX_CREDITS and (most := _amount(value)) is not None:
        return {"credits_max": most}
    if kind == _IDEMPOTENCY and (key := parse_key(value)) is not None:
        return {"idempotency_key": key}
    if kind == _UPGRADE and value.lower() == b"websocket":
        return {"websocket": True}
    return _REFUSALS[kind]


def _amount(value: bytes) -> int | None:
    """Microcredits; None if that is no amount."""
    try:
        return parse_credits(value.decode("latin-1"))
    except ValueError:
        return None


def _mistake_in(
    message: RawRequestMessage,
    host: bytes | None,
    length: int | None,
    *,
    chunked: bool,
    websocket: bool,
) -> Refusal | None:
    """What makes a head ambiguous as a whole."""
    old = message.version < (1, 1)
    if chunked and (length is not None or old):
        return bad_request("Transfer-Encoding can't be sent with Content-Length or HTTP/1.0.")
    if host is None:
        if not old:
            return _BAD_HOSTS
    elif not host or b"," in host or b"@" in host or b" " in host or b"/" in host:
        return bad_request("The Host header is not a host.")
    # Without `Connection: Upgrade` it is not meant for us.
    upgrades = message.upgrade and not old and message.method == "GET"
    if websocket and (length or chunked or not upgrades):
        return _BAD_UPGRADE
    return None


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


def _token(value: bytes) -> bytes | None:
    """What may be a signed token."""
    token = value[7:].strip() if value[:7].lower() == _BEARER else value
    if token.startswith(TOKEN_PREFIX) and token.count(b".") == 2 and len(token) <= TOKEN_BYTES_MAX:
        return token
    return None


def _connection_options(value: bytes, known: frozenset[bytes] | None) -> frozenset[bytes] | None:
    """Names of headers that the sender marks as hop-by-hop; None when there are none."""
    if value in _CONNECTION_OPTIONS:
        return known
    options = frozenset(option.strip().lower() for option in value.split(b","))
    return (options - _CONNECTION_OPTIONS) | (known or frozenset())
