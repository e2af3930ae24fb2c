"""Redis' request format (RESP2), for commands that are packed once and sent often.

The replies' side of the protocol is hiredis'. See
https://redis.io/docs/latest/develop/reference/protocol-spec/.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

Part = bytes | str | int

INTEGERS_MAX = 8_192


def bulk(part: Part) -> bytes:
    """One argument: its length in bytes, then itself."""
    if isinstance(part, int):
        raw = b"%d" % part
    elif isinstance(part, str):
        raw = part.encode()
    else:
        raw = part
    return b"$%d\r\n%b\r\n" % (len(raw), raw)


def pack(*parts: Part) -> bytes:
    """One whole command."""
    return b"*%d\r\n%b" % (len(parts), bulks(parts))


def bulks(parts: Iterable[Part]) -> bytes:
    """Arguments in a row, to be joined to a head that has counted them."""
    return b"".join(map(bulk, parts))


class Integers(dict[int, bytes]):
    """Packed integers, remembered: prices and leases come again on every call of a route.

    At most INTEGERS_MAX of them; then it starts anew.
    """

    def __missing__(self, number: int) -> bytes:
        if len(self) >= INTEGERS_MAX:
            self.clear()
        packed = self[number] = bulk(number)
        return packed
