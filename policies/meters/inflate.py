"""Reads through compression: a copy of the passing bytes is inflated for the meters.

Clients ask for compressed answers by themselves (every Python and JavaScript SDK does), and such an
answer passes untouched. The bytes that meters see are bounded, so that a small answer which
inflates without end costs the gateway neither memory nor time.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

# What zlib reads; Brotli and zstd are not in the standard library.
INFLATABLE_ENCODINGS = ("gzip", "x-gzip", "deflate")
INFLATED_BODY_MAX_BYTES = 64 * 1024 * 1024
INFLATED_PIECE_MAX_BYTES = 64 * 1024
# Either header: gzip (RFC 1952) or zlib (RFC 1950, which HTTP calls "deflate").
_ANY_HEADER = 32 + zlib.MAX_WBITS


class Inflater:
    """Inflates one body in pieces.

    `failed` says that the body was not what its encoding promises, or too long: what was read from
    it does not count.
    """

    __slots__ = ("_member", "_size", "failed")

    def __init__(self) -> None:
        self._member = zlib.decompressobj(_ANY_HEADER)
        self._size = 0
        self.failed = False

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """The plain bytes in the next compressed ones, at most `INFLATED_PIECE_MAX_BYTES` each."""
        while chunk and not self.failed:
            if self._member.eof:  # gzip bodies may have several members, one after another
                self._member = zlib.decompressobj(_ANY_HEADER)
            try:
                piece = self._member.decompress(chunk, INFLATED_PIECE_MAX_BYTES)
            except zlib.error:
                self.failed = True
                return
            self._size += len(piece)
            if self._size > INFLATED_BODY_MAX_BYTES:
                self.failed = True
                return
            if piece:
                yield piece
            member = self._member
            chunk = member.unused_data if member.eof else member.unconsumed_tail
