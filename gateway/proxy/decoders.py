"""What meters take from the world: a JSON decoder, and decoders of compressed answers."""

from __future__ import annotations

import sys
from types import MappingProxyType
from typing import TYPE_CHECKING

import brotli  # type: ignore[import-untyped]
import orjson

from policies.meters import Tools
from policies.meters.decoding import (
    DECODED_PIECE_MAX_BYTES,
    MEMBERS_MAX,
    ZLIB_DECODERS,
    DecodeError,
)

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from policies.meters.decoding import Decoder

# What RFC 9659 lets a content encoding ask for: 8 MiB of memory. A frame with more is refused.
ZSTD_WINDOW_LOG_MAX = 23


class Brotli:
    """`br` (RFC 7932)."""

    __slots__ = ("_decompressor",)

    def __init__(self) -> None:
        self._decompressor = brotli.Decompressor()

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """See `Decoder`."""
        decompressor = self._decompressor
        try:
            while True:
                piece = decompressor.process(chunk, output_buffer_limit=DECODED_PIECE_MAX_BYTES)
                chunk = b""
                if piece:
                    yield piece
                elif decompressor.can_accept_more_data():
                    return
        except brotli.error as bad:
            raise DecodeError from bad


class Zstd:
    """`zstd` (RFC 8878)."""

    __slots__ = ("_frame", "_frames")

    def __init__(self) -> None:
        self._frame = _frame()
        self._frames = 1

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """See `Decoder`."""
        try:
            while True:
                if self._frame.eof:  # a body may have several frames, one after another
                    chunk = chunk or self._frame.unused_data
                    if not chunk:
                        return
                    self._frames += 1
                    if self._frames > MEMBERS_MAX:
                        raise DecodeError
                    self._frame = _frame()
                piece = self._frame.decompress(chunk, DECODED_PIECE_MAX_BYTES)
                if piece:
                    yield piece
                chunk = b""
                if self._frame.needs_input:
                    return
        except zstd.ZstdError as bad:
            raise DecodeError from bad


def _frame() -> zstd.ZstdDecompressor:
    return zstd.ZstdDecompressor(
        options={zstd.DecompressionParameter.window_log_max: ZSTD_WINDOW_LOG_MAX}
    )


DECODERS: Mapping[str, Callable[[], Decoder]] = MappingProxyType({"br": Brotli, "zstd": Zstd})
# The proxy narrows Accept-Encoding to these on metered routes; other encodings pass, but unread.
READABLE_ENCODINGS = frozenset({"identity", *ZLIB_DECODERS, *DECODERS})
METER_TOOLS = Tools(orjson.loads, DECODERS)
