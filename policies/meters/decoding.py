"""Reads through compression: a copy of the passing bytes is decoded for the meters.

Clients ask for compressed answers by themselves (every Python and JavaScript SDK does), and such an
answer passes untouched. What meters see is bounded, per chunk and in all, so that a small answer
which decodes without end costs the gateway neither memory nor time.

zlib's encodings are decoded here; decoders of others come from the gateway.
"""

from __future__ import annotations

import zlib
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

DECODED_BODY_MAX_BYTES = 64 * 1024 * 1024
# Of what came in one piece, so that no other call waits long for it; less of a small one, which
# in honest answers does not become much.
DECODED_CHUNK_MAX_BYTES = 8 * 1024 * 1024
DECODED_SMALL_CHUNK_MAX_BYTES = 1024 * 1024
DECODED_PER_ENCODED_MAX = 64  # for each byte it has
DECODED_PIECE_MAX_BYTES = 64 * 1024
# Decoders copy what they have not read yet, so a long chunk is given to them bit by bit.
ENCODED_PIECE_MAX_BYTES = 16 * 1024
# A body may have several, one after another; each costs much more than its bytes.
MEMBERS_MAX = 1024
_GZIP_MAGIC = b"\x1f\x8b"
# Either header: gzip (RFC 1952) or zlib (RFC 1950, which HTTP calls "deflate").
_ANY_HEADER = 32 + zlib.MAX_WBITS
_NO_HEADER = -zlib.MAX_WBITS


class DecodeError(ValueError):
    """A body is not what its encoding promises."""


class Decoder(Protocol):
    """Decodes one body."""

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """The plain bytes in the next encoded ones, about `DECODED_PIECE_MAX_BYTES` each at most.

        Raises: DecodeError.
        """


class Decoding:
    """Decodes one body within bounds.

    `failed` says that the body was not what its encoding promises, or too long, or that nobody can
    decode it (`decoder` is None): what was read from it does not count.
    """

    __slots__ = ("_decoder", "_size", "failed")

    def __init__(self, decoder: Decoder | None) -> None:
        self._decoder = decoder
        self._size = 0
        self.failed = decoder is None

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """The plain bytes in the next encoded ones; none any more once it has failed."""
        decoder = self._decoder
        most = min(self._size + decoded_max_bytes(len(chunk)), DECODED_BODY_MAX_BYTES)
        try:
            for start in range(0, len(chunk), ENCODED_PIECE_MAX_BYTES):
                if decoder is None or self.failed:
                    return
                for piece in decoder.feed(chunk[start : start + ENCODED_PIECE_MAX_BYTES]):
                    self._size += len(piece)
                    if self._size > most:
                        self.failed = True
                        return
                    yield piece
        except DecodeError:
            self.failed = True


def decoded_max_bytes(length: int) -> int:
    """What a chunk of so many bytes may become; more makes its body fail."""
    most = DECODED_SMALL_CHUNK_MAX_BYTES + length * DECODED_PER_ENCODED_MAX
    return min(most, DECODED_CHUNK_MAX_BYTES)


class Inflate:
    """gzip and deflate; `bare`: also deflate without a header, as some servers send it."""

    __slots__ = ("_bare", "_head", "_member", "_members")

    def __init__(self, *, bare: bool) -> None:
        self._bare = bare
        self._head = b""  # of a body whose header is not decided yet
        self._member = None if bare else zlib.decompressobj(_ANY_HEADER)
        self._members = 1

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """See `Decoder`."""
        member = self._member
        if member is None:
            chunk = self._head + chunk
            if len(chunk) < 2:
                self._head = chunk
                return
            member = zlib.decompressobj(_ANY_HEADER if _has_header(chunk) else _NO_HEADER)
        while chunk:
            if member.eof:
                self._members += 1
                if self._members > MEMBERS_MAX:
                    raise DecodeError
                member = zlib.decompressobj(_ANY_HEADER)
            try:
                piece = member.decompress(chunk, DECODED_PIECE_MAX_BYTES)
            except zlib.error as bad:
                raise DecodeError from bad
            if piece:
                yield piece
            chunk = member.unused_data if member.eof else member.unconsumed_tail
        self._member = member


ZLIB_DECODERS: Mapping[str, Callable[[], Decoder]] = MappingProxyType(
    {
        "gzip": partial(Inflate, bare=False),
        "x-gzip": partial(Inflate, bare=False),
        "deflate": partial(Inflate, bare=True),
    }
)


def _has_header(start: bytes) -> bool:
    """Whether a body begins as gzip or zlib (RFC 1950 section 2.2) says, of its first two bytes."""
    if start.startswith(_GZIP_MAGIC):
        return True
    method, flags = start[0], start[1]
    return method & 15 == zlib.DEFLATED and method >> 4 <= 7 and (method << 8 | flags) % 31 == 0
