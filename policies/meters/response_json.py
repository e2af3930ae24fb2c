"""`response.json:/pointer`: units in a JSON answer."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from policies.meters.pointer import BYTE_ORDER_MARK, compile_pointer, mistake_in_pointer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from policies.catalog import Source
    from policies.meters.pointer import Pointer
    from policies.meters.reader import Loads

# A longer answer passes untouched but unread: its units are missing.
JSON_BODY_MAX_BYTES = 8 * 1024 * 1024


class ResponseJson:
    """Keeps the answer until it is complete, then looks up each pointer."""

    __slots__ = ("_chunks", "_loads", "_pointers", "documents", "size")

    def __init__(self, pointers: Sequence[Pointer], loads: Loads) -> None:
        self._pointers = pointers
        self._loads = loads
        self._chunks: list[bytes] = []
        self.documents = 0
        self.size = 0

    @staticmethod
    def mistake_in(source: Source) -> str | None:
        """What is wrong with a JSON pointer."""
        return mistake_in_pointer(source.argument)

    @staticmethod
    def applies(media_type: str) -> bool:
        """JSON by name, or by the suffix of RFC 6839 ("application/problem+json")."""
        return media_type == "application/json" or media_type.endswith("+json")

    @staticmethod
    def prepare(sources: Sequence[Source]) -> Callable[[Loads], ResponseJson]:
        """What opens a reader of these sources."""
        return partial(ResponseJson, [compile_pointer(source.argument) for source in sources])

    def feed(self, chunk: bytes) -> None:
        """Keeps the bytes; none of them once there are more than `JSON_BODY_MAX_BYTES`."""
        self.size += len(chunk)
        if self.size <= JSON_BODY_MAX_BYTES:
            self._chunks.append(chunk)
        else:
            self._chunks.clear()

    def finish(self) -> list[int | None]:
        """The units per pointer; all None for an answer that is incomplete, too long or no JSON."""
        document = decoded(b"".join(self._chunks), self._loads)
        return [pointer.units_in(document) for pointer in self._pointers]

    def so_far(self) -> list[int | None]:
        """None: JSON is read when it is complete."""
        return [None] * len(self._pointers)


def decoded(body: bytes, loads: Loads) -> object:
    """A body's JSON; None where there is none, or too much of it."""
    if len(body) > JSON_BODY_MAX_BYTES:
        return None
    try:
        return loads(body.removeprefix(BYTE_ORDER_MARK))
    except (ValueError, RecursionError):
        return None
