"""One canonical path per call: what is matched and priced is, byte for byte, what is forwarded.

A path that two readers could understand differently (dot segments, encoded slashes, path
parameters) is refused, because the agent behind us may read it the other way (RFC 3986 section 6,
FACTS).
"""

from __future__ import annotations

import re

TARGET_BYTES_MAX = 8_190

_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
# One or more segments that do not begin with a dot, without escapes: already canonical.
_PLAIN = re.compile(r"(?:/[A-Za-z0-9_~!$&'()*+,=:@-][A-Za-z0-9._~!$&'()*+,=:@-]*)+/?|/")
_ALLOWED = re.compile(r"/(?:[A-Za-z0-9._~!$&'()*+,=:@/-]|%[0-9A-Fa-f]{2})*")
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
_QUERY = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@/?%\[\]|^`{}\"<>\\-]*")
# NUL, slash and backslash mean different things to different readers once decoded.
_REFUSED_ESCAPES = frozenset({"\x00", "/", "\\"})


def canonical_path(path: str) -> str | None:
    """The canonical form of a request's path, or None if it is ambiguous.

    Escapes of unreserved characters are decoded, other escapes are upper-cased. Refused: `%00 %2f
    %5c`, bad escapes, a backslash, `#`, `;`, `//`, and dot segments, raw or encoded.
    """
    if _PLAIN.fullmatch(path):
        return path
    if not _ALLOWED.fullmatch(path):
        return None
    if any(chr(int(code, 16)) in _REFUSED_ESCAPES for code in _ESCAPE.findall(path)):
        return None
    canonical = _ESCAPE.sub(_decoded_if_unreserved, path)
    segments = canonical.split("/")
    if "" in segments[1:-1] or "." in segments or ".." in segments:
        return None
    return canonical


def valid_query(query: str) -> bool:
    """Whether a query can be forwarded as it is: visible ASCII without `#`."""
    return _QUERY.fullmatch(query) is not None


def _decoded_if_unreserved(escape: re.Match[str]) -> str:
    character = chr(int(escape[1], 16))
    return character if character in _UNRESERVED else escape[0].upper()
