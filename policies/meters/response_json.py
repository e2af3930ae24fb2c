"""`response.json:/pointer`: units in a JSON answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from policies.meters.pointer import compile_pointer, mistake_in_pointer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from policies.meters.reader import Loads

# A longer answer passes untouched but unread: its units are missing.
JSON_BODY_MAX_BYTES = 8 * 1024 * 1024
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class ResponseJson:
    """Keeps the answer until it is complete, then looks up each pointer."""

    __slots__ = ("_chunks", "_loads", "_pointers", "_size")

    def __init__(self, arguments: Sequence[str], loads: Loads) -> None:
        # map, not a comprehension: it costs no frame, and this runs for every call.
        self._pointers = list(map(compile_pointer, arguments))
        self._loads = loads
        self._chunks: list[bytes] = []
        self._size = 0

    @staticmethod
    def mistake_in(argument: str) -> str | None:
        """What is wrong with a JSON pointer."""
        return mistake_in_pointer(argument)

    @staticmethod
    def applies(media_type: str) -> bool:
        """JSON by name, or by the suffix of RFC 6839 ("application/problem+json")."""
        return media_type == "application/json" or media_type.endswith("+json")

    def feed(self, chunk: bytes) -> None:
        """Keeps the bytes; none of them once there are more than `JSON_BODY_MAX_BYTES`."""
        self._size += len(chunk)
        if self._size <= JSON_BODY_MAX_BYTES:
            self._chunks.append(chunk)
        else:
            self._chunks.clear()

    def finish(self) -> tuple[int | None, ...]:
        """The units per pointer; all None for an answer that is incomplete, too long or no JSON."""
        body = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        try:
            document = self._loads(body.removeprefix(_BYTE_ORDER_MARK))
        except (ValueError, RecursionError):
            document = None
        if len(self._pointers) == 1:
            return (self._pointers[0].units_in(document),)
        return tuple([pointer.units_in(document) for pointer in self._pointers])
