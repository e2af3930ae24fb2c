"""Whether a value in a request's JSON has one reading.

Parsers differ in which of two members of one name they take, and some take "Model" for "model". If
the gateway read one and the agent the other, whoever calls could choose what he pays.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from policies.meters.pointer import element_of

if TYPE_CHECKING:
    from policies.meters.pointer import Way

# Names and values that are looked at one by one, in JSON that a search says too little about.
WALKED_VALUES_MAX = 100_000
_BACKSLASH = ord("\\")
# The two letters beyond ASCII that are another case of one in it: the long s, and Kelvin.
_OTHER_CASES = (b"\xc5\xbf", b"\xe2\x84\xaa")
# An escape that a search for a name would not see through: of ASCII, or of one of those.
_ESCAPED = re.compile(rb"\\u(?:00[0-7]|017|212)")


class _Members(list[tuple[str, object]]):
    """An object with all its members, also those of one name."""


def is_repeated(body: bytes, way: Way) -> bool:
    """Whether some member on a way into a request's JSON is there twice, in any case of letters.

    True also for what can't be told: JSON that is too deep or has too many values.
    """
    return not _is_surely_single(body, way) and _is_repeated_on_way(body, way)


def _is_surely_single(body: bytes, way: Way) -> bool:
    """A search, which nearly always is enough."""
    folded = body.lower()
    for name in way:
        needle = f'"{name.lower()}"'.encode()
        if not name.isascii() or folded.find(needle) != folded.rfind(needle):
            return False
    if not body.isascii() and any(body.find(letter) >= 0 for letter in _OTHER_CASES):
        return False
    return _BACKSLASH not in body or not _ESCAPED.search(body)


def _is_repeated_on_way(body: bytes, way: Way) -> bool:
    if sum(map(body.count, (b":", b",", b"[", b"{"))) > WALKED_VALUES_MAX:
        return True
    try:
        value = json.loads(body, object_pairs_hook=_Members)
    except (ValueError, RecursionError):
        return True
    for name in way:
        if isinstance(value, _Members):
            same = [(key, inner) for key, inner in value if _folded(key) == _folded(name)]
            if len(same) > 1:
                return True
            value = same[0][1] if same else None
        else:
            value = element_of(value, name) if isinstance(value, list) else None
    return False


def _folded(name: str) -> str:
    """What readers that ignore case, or stop at a NUL, take a name for."""
    return name.partition("\0")[0].casefold()
