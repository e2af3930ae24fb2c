"""The meters of one call: every reader that its price asks for, fed together.

`open_meter` runs once per call when the answer's headers are known; `feed` once per chunk that
passes; `units` when the call ends.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from policies.meters.inflate import INFLATABLE_ENCODINGS, Inflater
from policies.meters.registry import KINDS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from policies.catalog import Price
    from policies.meters.reader import Loads, Reader

# The proxy narrows Accept-Encoding to these on metered routes; other encodings pass, but unread.
READABLE_ENCODINGS = ("identity", *INFLATABLE_ENCODINGS)
# Agents use a handful of content types; the bound is against one that makes them up.
MEDIA_TYPES_CACHED_MAX = 256


class CallMeter:
    """Reads all units of one call's answer; see `open_meter`."""

    __slots__ = ("_inflater", "_places", "_readers", "feed")

    feed: Callable[[bytes], None]
    """Takes the next bytes of the answer, as they came from the upstream."""

    def __init__(
        self,
        readers: Sequence[Reader],
        places: Sequence[Sequence[tuple[int, int]]],
        inflater: Inflater | None,
    ) -> None:
        """`places`: for each meter, where its sources are: (reader, argument of that reader)."""
        self._readers = readers
        self._places = places
        self._inflater = inflater
        if inflater is not None:
            self.feed = self._feed_inflated
        elif len(readers) == 1:
            # The common case pays for no layer in between.
            self.feed = readers[0].feed
        else:
            self.feed = self._feed_all

    def units(self) -> tuple[int | None, ...]:
        """The units so far, one entry per meter of the price.

        Of a meter's sources the first with a value counts; None where none has one.
        """
        if self._inflater is not None and self._inflater.failed:
            return (None,) * len(self._places)
        found = [reader.finish() for reader in self._readers]
        return tuple([_first(found, places) for places in self._places])

    def _feed_all(self, chunk: bytes) -> None:
        for reader in self._readers:
            reader.feed(chunk)

    def _feed_inflated(self, chunk: bytes) -> None:
        if self._inflater is not None:
            for piece in self._inflater.feed(chunk):
                self._feed_all(piece)


def open_meter(
    price: Price, content_type: str, loads: Loads, *, content_encoding: str = ""
) -> CallMeter | None:
    """The meter for an answer with these headers; None when the price has nothing to meter.

    Sources that do not read this media type, and all sources under an encoding that is not in
    `READABLE_ENCODINGS`, have no value: their units will be missing.
    """
    if not price.meters:
        return None
    encoding = content_encoding.strip().lower()
    readable = not encoding or encoding in READABLE_ENCODINGS
    media_type = _media_type(content_type) if readable else ""
    arguments: dict[str, list[str]] = {}
    places: list[list[tuple[int, int]]] = []
    for meter in price.meters:
        of_meter = []
        for source in meter.sources:
            kind = KINDS.get(source.kind)
            if kind is not None and kind.applies(media_type):
                of_kind = arguments.setdefault(source.kind, [])
                of_meter.append((list(arguments).index(source.kind), len(of_kind)))
                of_kind.append(source.argument)
        places.append(of_meter)
    readers = [KINDS[kind](of_kind, loads) for kind, of_kind in arguments.items()]
    inflater = Inflater() if readers and encoding in INFLATABLE_ENCODINGS else None
    return CallMeter(readers, places, inflater)


@lru_cache(maxsize=MEDIA_TYPES_CACHED_MAX)
def _media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def _first(
    found: Sequence[tuple[int | None, ...]], places: Sequence[tuple[int, int]]
) -> int | None:
    for reader, argument in places:
        units = found[reader][argument]
        if units is not None:
            return units
    return None
