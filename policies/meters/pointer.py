"""JSON pointers (RFC 6901), and what a source may add to them.

/usage/total_tokens         the integer there
/messages/#                 the length of the list there
/-1/usage/total_tokens      "-1": the last element of a list
/a/read+/a/written          the sum of what is there of these
/status=delivered|partial   1 if the value there is one of these, 0 if it is another
"""

from __future__ import annotations

import re
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Final

from policies.meters.reader import UNITS_MAX, as_units

if TYPE_CHECKING:
    from collections.abc import Callable

# Pointers come from the config, a few per route; the bound is for tests that make many.
POINTERS_CACHED_MAX = 1024
# Keys that every JSON encoder writes as they are, so that a document with the key has these bytes.
_PLAIN_KEY = re.compile(r"[A-Za-z0-9_.:\-]*[A-Za-z_.:][A-Za-z0-9_.:\-]*")
_INDEX = re.compile(r"0|[1-9][0-9]{0,15}")
_LENGTH = "#"
_LAST = "-1"
_BAD_ESCAPE = re.compile(r"~(?![01])")
_PLUS = re.compile(r"\+(?=/)")
BYTE_ORDER_MARK = b"\xef\xbb\xbf"

Way = tuple[str, ...]


class Absent:
    """The value of what is not there; null is."""


ABSENT: Final = Absent()


class Pointer:
    """A compiled pointer.

    `units_in` gives the units it finds in a document; None where the way or the value is not there.

    `needles` are bytes one of which a document holding the value must contain: its last plain key
    in quotes. A search for them is far cheaper than decoding, and most events of a stream fail it.
    (An agent that writes a plain key with needless escapes is not read: units missing.) The empty
    needle, which is everywhere, stands where no such bytes are known.
    """

    __slots__ = ("needles", "units_in", "wanted", "ways")

    units_in: Callable[[object], int | None]

    def __init__(self, ways: tuple[Way, ...], wanted: frozenset[str] | None) -> None:
        self.ways = ways
        self.wanted = wanted
        self.needles = _needles(ways)
        if wanted is not None:
            self.units_in = partial(_compared, ways[0], wanted)
        elif len(ways) == 1:
            self.units_in = partial(_units_at, ways[0])
        else:
            self.units_in = partial(_summed, ways)

    def is_in(self, document: object) -> bool:
        """Whether a value is there: not null, and one of those it is compared with, if it is."""
        if self.wanted is not None:
            return self.units_in(document) == 1
        return any(
            value is not ABSENT and value is not None
            for value in (value_at(way, document) for way in self.ways)
        )


@lru_cache(maxsize=POINTERS_CACHED_MAX)
def compile_pointer(text: str) -> Pointer:
    """The pointer of a text without mistakes, such as "/usage/total_tokens"."""
    path, equals, values = text.partition("=")
    ways = tuple(
        tuple(token.replace("~1", "/").replace("~0", "~") for token in way[1:].split("/"))
        for way in _PLUS.split(path)
    )
    return Pointer(ways, frozenset(values.split("|")) if equals else None)


def mistake_in_pointer(argument: str) -> str | None:
    """What keeps an argument from being a JSON pointer to a value below the root."""
    path, equals, values = argument.partition("=")
    if not path.startswith("/"):
        return 'needs a JSON pointer, such as "/usage/total_tokens"'
    if _BAD_ESCAPE.search(path):
        return 'has a "~" that is neither "~0" (for "~") nor "~1" (for "/")'
    if equals and "" in values.split("|"):
        return 'has no value behind "=" or "|", such as "/status=delivered|partial"'
    if equals and _PLUS.search(path):
        return 'compares a sum; a comparison ("=") has one pointer'
    return None


def value_at(way: Way, document: object) -> object:
    """The value at the end of a way into a decoded document, else `ABSENT`."""
    value = document
    for token in way:
        if isinstance(value, dict):
            value = value.get(token, ABSENT)
        elif isinstance(value, list):
            value = element_of(value, token)
        else:
            return ABSENT
    return value


def text_of(value: object) -> str | None:
    """A string itself, an integer, bool or null as JSON writes it; None for anything else."""
    if isinstance(value, str):
        return value
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int) else None


def element_of(values: list[object], token: str) -> object:
    """What a token stands for in a list: an element, its last, or its length; else `ABSENT`."""
    if token == _LENGTH:
        return len(values)
    if token == _LAST:
        return values[-1] if values else ABSENT
    if _INDEX.fullmatch(token):
        index = int(token)
        return values[index] if index < len(values) else ABSENT
    return ABSENT


def _units_at(way: Way, document: object) -> int | None:
    """As `value_at` and `as_units` say, by the shortest way for what nearly every answer is."""
    value = document
    for token in way:
        if type(value) is not dict:
            return as_units(value_at(way, document))
        value = value.get(token)
    if type(value) is int and 0 <= value <= UNITS_MAX:
        return value
    return as_units(value)


def _compared(way: Way, wanted: frozenset[str], document: object) -> int | None:
    value = value_at(way, document)
    if value is ABSENT:
        return None
    return 1 if text_of(value) in wanted else 0


def _summed(ways: tuple[Way, ...], document: object) -> int | None:
    """What is absent or null counts as 0; one wrong value spoils the sum."""
    total = None
    for way in ways:
        value = value_at(way, document)
        if value is not ABSENT and value is not None:
            units = as_units(value)
            if units is None:
                return None
            total = units if total is None else total + units
    return as_units(total)


def _needles(ways: tuple[Way, ...]) -> tuple[bytes, ...]:
    plain = [[token for token in way if _PLAIN_KEY.fullmatch(token)] for way in ways]
    if not all(plain):
        return (b"",)
    shared = [token for token in plain[0] if all(token in keys for keys in plain)]
    keys = shared[-1:] or [tokens[-1] for tokens in plain]
    return tuple(dict.fromkeys(f'"{key}"'.encode() for key in keys))
