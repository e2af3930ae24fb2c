"""The meters of one call: every source that its price names, read together.

A `MeterPlan` is made per price and kind of answer. An answer that is there as a whole is read by
it at once; for one that streams it opens a `CallMeter`: `feed` once per chunk that passes,
`estimates` and `so_far` while it runs, `reading` when it has ended.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from policies.catalog import Source, named_sources
from policies.meters.decoding import ZLIB_DECODERS, Decoding
from policies.meters.jsonrpc import JsonRpcAnswers
from policies.meters.pointer import compile_pointer
from policies.meters.reader import UNITS_MAX, Observed
from policies.meters.reading import Reading
from policies.meters.registry import BODY_KINDS, LOOK_UPS
from policies.meters.response_json import ResponseJson, decoded

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from policies.catalog import MeterSpec, Price
    from policies.meters.decoding import Decoder
    from policies.meters.facts import RequestFacts
    from policies.meters.reader import BodyKind, Headers, Loads, Reader
    from policies.terms import RpcCall

    # Where a source's units are: the indexes of a reader and of the source in it, or a look-up.
    _Place = tuple[int, int] | Callable[[Observed], int | None]

# What a meter without `estimate_from` counts in streams, and how many bytes make a unit elsewhere.
_COUNTS = frozenset({Source("response.sse.count", ""), Source("response.ndjson.count", "")})
_BYTES = Source("response.bytes", "")
BYTES_PER_UNIT = 4
_NOTHING: Observed = Observed()


class Tools(NamedTuple):
    """What meters take from the world: a JSON decoder, and decoders by content encoding."""

    loads: Loads
    decoders: Mapping[str, Callable[[], Decoder]] = MappingProxyType({})


class Layout(NamedTuple):
    """Where the units of each meter are found."""

    places: tuple[tuple[_Place, ...], ...]
    looks_up: bool  # whether any meter's units do not stand in the body
    estimators: tuple[Estimator, ...]
    # Where all count the same, the bytes or the documents that passed: how many make a unit.
    per_byte: tuple[int, ...] | None
    per_document: tuple[int, ...] | None


class Estimator(NamedTuple):
    """What suggests how many units of a meter have passed."""

    place: _Place | None  # of a count; None: nothing in this answer can be counted
    per_unit: int  # so much of that makes a unit
    by_default: bool


class MeterPlan:
    """How an answer of one kind is read: of a price, a media type and an encoding.

    Agents answer in a handful of kinds, so the proxy makes a plan once. Sources that do not read
    this media type, and all that read bodies under an encoding nobody can decode, have no value:
    their units will be missing.
    """

    __slots__ = ("_encoding", "_layout", "_media_type", "_readers", "_single", "streamed", "timed")

    def __init__(self, price: Price, content_type: str, content_encoding: str = "") -> None:
        """`timed` says whether it matters how long the call takes.

        `streamed`: the answer comes in events or lines, of which each suggests a unit.
        """
        self._media_type = content_type.partition(";")[0].strip().lower()
        encoding = content_encoding.strip().lower()
        self._encoding = "" if encoding == "identity" else encoding
        families: dict[type[BodyKind], list[Source]] = {}
        self._layout = _layout(price, self._media_type, families)
        self._readers = [family.prepare(sources) for family, sources in families.items()]
        # The common case is read without a reader: one pointer into a plain JSON answer.
        only = families.get(ResponseJson, []) if len(families) == 1 else []
        self._single = (
            compile_pointer(only[0].argument)
            if self._layout.places == (((0, 0),),) and len(only) == 1 and not self._encoding
            else None
        )
        self.timed = any(
            source.kind == "duration" for meter in price.meters for source in named_sources(meter)
        )
        self.streamed = any(BODY_KINDS[each.kind].applies(self._media_type) for each in _COUNTS)

    def read_whole(  # noqa: PLR0917 - for every call: all of it is at hand
        self,
        tools: Tools,
        body: bytes,
        headers: Headers,
        facts: RequestFacts | None,
        elapsed_ms: int,
        calls: Sequence[RpcCall] = (),
    ) -> Reading:
        """What an answer says that is there as a whole; the same as feeding it.

        `headers` are the answer's; `facts` may be None where the price asks for nothing of the
        request.
        """
        if self._single is not None and not calls:
            units = self._single.units_in(decoded(body, tools.loads))
            if units is not None:
                return Reading((units,))
        meter = self.open(tools, headers, facts, calls)
        meter.feed(body)
        return meter.reading(elapsed_ms)

    def open(
        self,
        tools: Tools,
        headers: Headers,
        facts: RequestFacts | None,
        calls: Sequence[RpcCall] = (),
    ) -> CallMeter:
        """The meter of one call; see `read_whole`."""
        readers = [reader(tools.loads) for reader in self._readers]
        answers = JsonRpcAnswers(calls, tools.loads, self._media_type) if calls else None
        decoding = None
        if self._encoding and (readers or answers is not None):
            decoder = ZLIB_DECODERS.get(self._encoding) or tools.decoders.get(self._encoding)
            decoding = Decoding(decoder() if decoder is not None else None)
        return CallMeter(self._layout, readers, answers, decoding, headers, facts)


class CallMeter:
    """Reads all units of one call; see `MeterPlan`."""

    __slots__ = (
        "_answers",
        "_counted",
        "_decoding",
        "_facts",
        "_fed",
        "_headers",
        "_inbound",
        "_layout",
        "_only",
        "_outbound",
        "_readers",
        "feed",
    )

    feed: Callable[[bytes], None]
    """Takes the next bytes of the answer, as they came from the upstream."""

    def __init__(  # noqa: PLR0917 - made by a plan only
        self,
        layout: Layout,
        readers: Sequence[Reader],
        answers: JsonRpcAnswers | None,
        decoding: Decoding | None,
        headers: Headers,
        facts: RequestFacts | None,
    ) -> None:
        self._layout = layout
        self._readers = readers
        self._answers = answers
        self._decoding = decoding
        self._headers = headers
        self._facts = facts
        self._counted = 0  # bytes fed, unless the only reader counts them
        self._inbound: int | None = None
        self._outbound: int | None = None
        self._only: Reader | None = None
        if len(readers) == 1 and answers is None and decoding is None:
            # The common case pays for no layer in between.
            self._only = readers[0]
            self.feed = self._only.feed
            return
        self._fed = [reader.feed for reader in readers]
        if answers is not None:
            self._fed.append(answers.feed)
        self.feed = self._feed_all if decoding is None else self._feed_decoded

    def note_messages(self, inbound: int, outbound: int) -> None:
        """Counts so many more messages of a WebSocket, from and to its client.

        (0, 0), at its start, says that it is one.
        """
        self._inbound = (self._inbound or 0) + inbound
        self._outbound = (self._outbound or 0) + outbound

    def reading(self, elapsed_ms: int = 0) -> Reading:
        """All that was read so far, an unfinished end included; the call has taken `elapsed_ms`.

        Of a meter's sources the first with a value counts. May be asked more than once, but not for
        every chunk: what is unfinished is decoded each time.
        """
        broken = self._decoding is not None and self._decoding.failed
        found = None if broken else [reader.finish() for reader in self._readers]
        units = self._placed(found, elapsed_ms)
        estimates = self.estimates(elapsed_ms) if None in units else ()
        if self._answers is None:
            return Reading(units, estimates)
        return Reading(units, estimates, *self._answers.finish())

    def so_far(self, elapsed_ms: int = 0) -> Reading:
        """The units in what is finished, cheap enough for every chunk; with every estimate."""
        found = [reader.so_far() for reader in self._readers]
        return Reading(self._placed(found, elapsed_ms), self.estimates(elapsed_ms))

    def estimates(self, elapsed_ms: int = 0) -> tuple[int, ...]:
        """For each meter the units that what passed suggests: 0 where its source counts nothing.

        Cheap enough for every chunk.
        """
        layout = self._layout
        if layout.per_byte is not None:
            passed = self._passed()
            return tuple([-(-passed // per_unit) for per_unit in layout.per_byte])
        broken = self._decoding is not None and self._decoding.failed
        if layout.per_document is not None and not broken:
            passed = self._readers[0].documents
            return tuple([-(-passed // per_unit) for per_unit in layout.per_document])
        found = [reader.so_far() for reader in self._readers]
        observed = self._observed(elapsed_ms)
        estimates = []
        for place, per_unit, by_default in layout.estimators:
            if by_default and broken:
                estimates.append(-(-observed.passed_bytes // BYTES_PER_UNIT))
                continue
            count = _value_at(place, found, observed) if place is not None else None
            estimates.append(min(-(-(count or 0) // per_unit), UNITS_MAX))
        return tuple(estimates)

    def _placed(
        self, found: Sequence[Sequence[int | None]] | None, elapsed_ms: int
    ) -> tuple[int | None, ...]:
        """For each meter its units, from what the readers found; None: what they did is void."""
        observed = self._observed(elapsed_ms) if self._layout.looks_up else _NOTHING
        return tuple([_first(places, found, observed) for places in self._layout.places])

    def _observed(self, elapsed_ms: int) -> Observed:
        return Observed(
            self._headers,
            self._facts,
            elapsed_ms,
            self._passed(),
            self._inbound,
            self._outbound,
        )

    def _passed(self) -> int:
        return self._counted if self._only is None else self._only.size

    def _feed_all(self, chunk: bytes) -> None:
        self._counted += len(chunk)
        for feed in self._fed:
            feed(chunk)

    def _feed_decoded(self, chunk: bytes) -> None:
        self._counted += len(chunk)
        if self._decoding is not None:
            for piece in self._decoding.feed(chunk):
                for feed in self._fed:
                    feed(piece)


def _layout(price: Price, media_type: str, families: dict[type[BodyKind], list[Source]]) -> Layout:
    """Where each source is read; those in the body are entered in `families`."""

    def place_of(source: Source) -> _Place | None:
        look_up = LOOK_UPS.get(source.kind)
        if look_up is not None:
            return look_up.prepare(source)
        family = BODY_KINDS.get(source.kind)
        if family is None or not family.applies(media_type):
            return None
        sources = families.setdefault(family, [])
        if source not in sources:
            sources.append(source)
        return list(families).index(family), sources.index(source)

    places = []
    for meter in price.meters:
        found = [place_of(source) for source in meter.sources]
        places.append(tuple(place for place in found if place is not None))
    estimators = []
    counted = set()
    for meter in price.meters:
        source, per_unit = _estimator(meter, media_type)
        counted.add(source)
        by_default = meter.estimate_from is None
        estimators.append(Estimator(place_of(source), max(1, per_unit), by_default))
    per_unit_of_each = tuple(estimator.per_unit for estimator in estimators)
    by_document = (
        len(families) == 1
        and len(counted) == 1
        and counted <= _COUNTS
        and all(estimator.place is not None for estimator in estimators)
    )
    return Layout(
        tuple(places),
        any(source.kind in LOOK_UPS for meter in price.meters for source in meter.sources),
        tuple(estimators),
        per_unit_of_each if counted == {_BYTES} else None,
        per_unit_of_each if by_document else None,
    )


def _estimator(meter: MeterSpec, media_type: str) -> tuple[Source, int]:
    """What suggests how much has passed, and how much of that makes a unit.

    Streams of a language model send about a token with each event; elsewhere one has four bytes.
    """
    if meter.estimate_from is not None:
        return meter.estimate_from, meter.estimate_per_unit
    for source in _COUNTS:
        if BODY_KINDS[source.kind].applies(media_type):
            return source, 1
    return _BYTES, BYTES_PER_UNIT


def _first(
    places: Sequence[_Place], found: Sequence[Sequence[int | None]] | None, observed: Observed
) -> int | None:
    for place in places:
        units = _value_at(place, found, observed)
        if units is not None:
            return units
    return None


def _value_at(
    place: _Place, found: Sequence[Sequence[int | None]] | None, observed: Observed
) -> int | None:
    if isinstance(place, tuple):
        return found[place[0]][place[1]] if found is not None else None
    return place(observed)
