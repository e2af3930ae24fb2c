"""How many values a request's JSON has, said before it is decoded.

A few bytes of JSON can take a hundred times as many in memory, and megabytes of them would hold up
all other calls while they are decoded. Counting takes time by the body's length alone.
"""

from __future__ import annotations

from typing import NamedTuple


class ValuesMax(NamedTuple):
    """How much may be decoded in one go."""

    names: int  # members, objects and lists
    items: int  # what commas separate


# Tens of milliseconds, and tens of megabytes, at the very most. A batch of embeddings has as many.
DECODED_MAX = ValuesMax(names=50_000, items=300_000)
# Of JSON that is decoded by slower means, to look at its members one by one.
WALKED_MAX = ValuesMax(names=20_000, items=100_000)

_NAMES = (b":", b"{", b"[")
_NO_MARKS = bytes(set(range(256)) - set(b'",:{['))


def has_too_many_values(body: bytes, most: ValuesMax = DECODED_MAX) -> bool:
    """Whether a body has more values than may be decoded; never wrongly True of valid JSON."""
    if len(body) <= most.names or not _are_too_many(body, most):
        return False
    # Some of what was counted may be within texts: they are taken out, and their escapes before.
    marks = body.replace(rb"\\", b"").replace(rb"\"", b"").translate(None, _NO_MARKS)
    texts_max = 2 * most.names + most.items + 1
    if marks.count(b'"') > 2 * texts_max:
        return True
    return _are_too_many(b"".join(marks.split(b'"')[::2]), most)


def _are_too_many(text: bytes, most: ValuesMax) -> bool:
    return sum(map(text.count, _NAMES)) > most.names or text.count(b",") > most.items
