"""The meters of one call: every reader that its price asks for, fed together.

A `MeterPlan` is made per kind of answer and opened per call; `feed` once per chunk that
passes; `units` when the call ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from policies.meters.inflate import INFLATABLE_ENCODINGS, Inflater
from policies.meters.registry import KINDS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from policies.catalog import Price
    from policies.meters.reader import Loads, Reader

# The proxy narrows Accept-Encoding to these on metered routes; other encodings pass, but unread.
READABLE_ENCODINGS = ("identity", *INFLATABLE_ENCODINGS)


class CallMeter:
    """Reads all units of one call's answer; see `MeterPlan`."""

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
        return _place([reader.finish() for reader in self._readers], self._places)

    def _feed_all(self, chunk: bytes) -> None:
        for reader in self._readers:
            reader.feed(chunk)

    def _feed_inflated(self, chunk: bytes) -> None:
        if self._inflater is not None:
            for piece in self._inflater.feed(chunk):
                self._feed_all(piece)


class MeterPlan:
    """Which readers an answer of one kind needs: of a price, a media type and an encoding.

    Agents answer in a handful of kinds, so the proxy makes a plan once and opens a meter per call.
    Sources that do not read this media type, and all sources under an encoding that is not in
    `READABLE_ENCODINGS`, have no value: their units will be missing.
    """

    __slots__ = ("_inflated", "_places", "_readers")

    def __init__(self, price: Price, content_type: str, content_encoding: str = "") -> None:
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
        self._readers = [(KINDS[kind], of_kind) for kind, of_kind in arguments.items()]
        self._places = places
        self._inflated = bool(self._readers) and encoding in INFLATABLE_ENCODINGS

    def units_of(self, body: bytes, loads: Loads) -> tuple[int | None, ...]:
        """The units of an answer that is there as a whole; the same as feeding it."""
        if self._inflated or len(self._readers) != 1:
            meter = self.open(loads)
            meter.feed(body)
            return meter.units()
        kind, arguments = self._readers[0]
        reader = kind(arguments, loads)
        reader.feed(body)
        return _place((reader.finish(),), self._places)

    def open(self, loads: Loads) -> CallMeter:
        """The meter of one call; `loads` decodes JSON."""
        readers = [kind(arguments, loads) for kind, arguments in self._readers]
        return CallMeter(readers, self._places, Inflater() if self._inflated else None)


def _media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def _place(
    found: Sequence[tuple[int | None, ...]], places_of_meters: Sequence[Sequence[tuple[int, int]]]
) -> tuple[int | None, ...]:
    """For each meter its units, from what the readers found."""
    if len(places_of_meters) == 1:
        return (_first(found, places_of_meters[0]),)
    return tuple([_first(found, places) for places in places_of_meters])


def _first(
    found: Sequence[tuple[int | None, ...]], places: Sequence[tuple[int, int]]
) -> int | None:
    for reader, argument in places:
        units = found[reader][argument]
        if units is not None:
            return units
    return None
