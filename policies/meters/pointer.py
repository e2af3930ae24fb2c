"""JSON pointers (RFC 6901): where in a document a meter finds its units."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from policies.meters.reader import as_units

# Pointers come from the config, a few per route; the bound is for tests that make many.
POINTERS_CACHED_MAX = 1024
# Keys that every JSON encoder writes as they are, so that a document with the key has these bytes.
_PLAIN_KEY = re.compile(r"[A-Za-z0-9_.:\-]*[A-Za-z_.:\-][A-Za-z0-9_.:\-]*")
_INDEX = re.compile(r"0|[1-9][0-9]{0,15}")
_BAD_ESCAPE = re.compile(r"~(?![01])")


class Pointer(NamedTuple):
    """A compiled pointer.

    `needle` are bytes that a document holding the value must contain: its last plain key in
    quotes. A search for them is far cheaper than decoding, and most events of a stream fail it.
    (An agent that writes a plain key with needless escapes is not read: units missing.)
    Empty where no such bytes are known.
    """

    tokens: tuple[str, ...]
    needle: bytes

    def units_in(self, document: object) -> int | None:
        """The units this pointer finds; None where the way or the value is not there."""
        value = document
        for token in self.tokens:
            if isinstance(value, dict):
                value = value.get(token)
            elif isinstance(value, list) and _INDEX.fullmatch(token):
                index = int(token)
                value = value[index] if index < len(value) else None
            else:
                return None
        return as_units(value)


@lru_cache(maxsize=POINTERS_CACHED_MAX)
def compile_pointer(text: str) -> Pointer:
    """The pointer of a text without mistakes, such as "/usage/total_tokens"."""
    tokens = tuple(
        token.replace("~1", "/").replace("~0", "~") for token in text.removeprefix("/").split("/")
    )
    plain = [token for token in tokens if _PLAIN_KEY.fullmatch(token)]
    return Pointer(tokens, f'"{plain[-1]}"'.encode() if plain else b"")


def mistake_in_pointer(argument: str) -> str | None:
    """What keeps an argument from being a JSON pointer to a value below the root."""
    if not argument.startswith("/"):
        return 'needs a JSON pointer, such as "/usage/total_tokens"'
    if _BAD_ESCAPE.search(argument):
        return 'has a "~" that is neither "~0" (for "~") nor "~1" (for "/")'
    return None
