"""Whether a value in a request's JSON has one reading.

Parsers differ in which of two members of one name they take, and some take "Model" for "model". If
the gateway read one and the agent the other, whoever calls could choose what he pays.
"""

from __future__ import annotations

import json
import re
from itertools import chain
from typing import TYPE_CHECKING

from policies.meters.pointer import element_of
from policies.meters.values import WALKED_MAX, has_too_many_values

if TYPE_CHECKING:
    from collections.abc import Sequence

    from policies.meters.pointer import Way

_BACKSLASH = ord("\\")
# The two letters beyond ASCII that are another case of one in it: the long s, and Kelvin.
_OTHER_CASES = (b"\xc5\xbf", b"\xe2\x84\xaa")
# An escape that a search for a name would not see through: of ASCII, or of one of those.
_ESCAPED = re.compile(rb"\\u(?:00[0-7]|017|212)")


def is_repeated(body: bytes, *ways: Way) -> bool:
    """Whether some member on a way into a request's JSON is there twice, in any case of letters.

    True also for what can't be told: JSON that is too deep or has too many values.
    """
    return not _are_surely_single(body, ways) and _is_repeated_on_a_way(body, ways)


def with_all_members(body: bytes) -> object:
    """What is in JSON, its objects as tuples of (name, value), also of those of one name.

    For bodies without too many values. Raises: ValueError, RecursionError.
    """
    return json.loads(body, object_pairs_hook=tuple)


def folded(name: str) -> str:
    """What readers that ignore case, or stop at a NUL, take a name for."""
    return name.partition("\0")[0].casefold()


def _are_surely_single(body: bytes, ways: Sequence[Way]) -> bool:
    """A search, which nearly always is enough."""
    lower = body.lower()
    for name in dict.fromkeys(chain.from_iterable(ways)):
        needle = f'"{name.lower()}"'.encode()
        if not name.isascii() or lower.count(needle) > 1:
            return False
    if not body.isascii() and any(body.find(letter) >= 0 for letter in _OTHER_CASES):
        return False
    return _BACKSLASH not in body or not _ESCAPED.search(body)


def _is_repeated_on_a_way(body: bytes, ways: Sequence[Way]) -> bool:
    if has_too_many_values(body, WALKED_MAX):
        return True
    try:
        document = with_all_members(body)
    except (ValueError, RecursionError):
        return True
    return any(_is_repeated_on_way(document, way) for way in ways)


def _is_repeated_on_way(value: object, way: Way) -> bool:
    for name in way:
        if isinstance(value, tuple):
            same = [(key, inner) for key, inner in value if folded(key) == folded(name)]
            if len(same) > 1:
                return True
            value = same[0][1] if same else None
        else:
            value = element_of(value, name) if isinstance(value, list) else None
    return False
