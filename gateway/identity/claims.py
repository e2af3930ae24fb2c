"""What a token says, read strictly, before and after anybody believes it.

Bounded in size, three parts of unpadded base64url, JSON objects; whatever names a key to verify
with (RFC 7515, 4.1.2 to 4.1.6) or an extension is refused, and so is a token without `kid`.
Reasons are for logs: callers are told one thing, and no reason repeats anything of the token.
"""

from __future__ import annotations

import base64
import math
import re
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

if TYPE_CHECKING:
    from collections.abc import Mapping

# How far clocks may be apart: a token counts so long before its begin, and after its end.
CLOCK_LEEWAY_S = 30
KEY_ID_CHARACTERS_MAX = 256
ISSUER_CHARACTERS_MAX = 512
AUDIENCES_MAX = 32
_SECONDS_MAX = 253_402_300_799  # the end of the year 9999

_FORM = re.compile(r"[\w-]+\.[\w-]+\.[\w-]+", re.ASCII)
_FORBIDDEN_HEADERS = frozenset({"jku", "jwk", "x5u", "x5c", "crit", "b64", "zip"})
_TYPES = frozenset({"jwt", "at+jwt", "application/at+jwt"})


class Refused(NamedTuple):
    """A token that is not accepted, and why, for logs."""

    why: str


class Envelope(NamedTuple):
    """What an unverified token says about who signed it, with what, for whom."""

    algorithm: str
    key_id: str
    issuer: str
    audiences: tuple[str, ...]


def read_envelope(text: str, bytes_max: int) -> Envelope | Refused:
    """The header and the parties of a token, not verified yet."""
    if len(text) > bytes_max or _FORM.fullmatch(text) is None:
        return Refused("not a JWT, or too long")
    header, claims = map(_object_of, text.split(".")[:2])
    if header is None or claims is None:
        return Refused("not a JWT")
    if why := _wrong_in(header):
        return Refused(why)
    issuer, audiences = claims.get("iss"), _audiences_of(claims.get("aud"))
    if not isinstance(issuer, str) or len(issuer) > ISSUER_CHARACTERS_MAX or audiences is None:
        return Refused("no issuer, or no audience")
    return Envelope(header["alg"], header["kid"], issuer, audiences)


def read_expiry_ms(claims: Mapping[str, Any], now_ms: int, life_s_max: int) -> int | Refused:
    """When verified claims end, if they count now, and for no longer than they may.

    `exp` must be there; `iat` and `nbf` are believed where they are.
    """
    expires_ms, leeway_ms = _moment_ms(claims.get("exp")), CLOCK_LEEWAY_S * 1000
    if expires_ms is None:
        return Refused("no expiry")
    if expires_ms <= now_ms - leeway_ms:
        return Refused("expired")
    if expires_ms > now_ms + leeway_ms + life_s_max * 1000:
        return Refused("good for too long")
    for name in ("iat", "nbf"):
        if name not in claims:
            continue
        begin_ms = _moment_ms(claims[name])
        if begin_ms is None or begin_ms > now_ms + leeway_ms:
            return Refused("not valid yet")
        if name == "iat" and expires_ms - begin_ms > life_s_max * 1000:
            return Refused("good for too long")
    return expires_ms


def _wrong_in(header: Mapping[str, Any]) -> str:
    """What a header may not have, or must; "" for a good one."""
    if not _FORBIDDEN_HEADERS.isdisjoint(header):
        return "a header that is not allowed"
    if str(header.get("typ", "JWT")).lower() not in _TYPES:
        return "another type of token"
    if not isinstance(header.get("alg"), str):
        return "no algorithm"
    key_id = header.get("kid")
    if not isinstance(key_id, str) or len(key_id) > KEY_ID_CHARACTERS_MAX:
        return "no key id"
    return ""


def _object_of(part: str) -> dict[str, Any] | None:
    try:
        value = orjson.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except ValueError:  # of base64 and of JSON
        return None
    return value if isinstance(value, dict) else None


def _audiences_of(value: object) -> tuple[str, ...] | None:
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not 0 < len(values) <= AUDIENCES_MAX:
        return None
    return tuple(values) if all(isinstance(one, str) for one in values) else None


def _moment_ms(value: object) -> int | None:
    """Milliseconds of a NumericDate (RFC 7519, 2), which may have a fraction."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return int(value * 1000) if 0 <= value <= _SECONDS_MAX else None
