"""The meters of one call: every source that its price names, read together.

A `MeterPlan` is made per price and kind of answer. An answer that is there as a whole is read by
it at once; for one that streams it opens a `CallMeter`: `feed` once per chunk that passes,
`estimates` and `so_far` while it runs, `reading` when it has ended.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple, cast

from policies.meters.inflate import INFLATABLE_ENCODINGS, Inflater
from policies.meters.jsonrpc import JsonRpcAnswers
from policies.meters.pointer import compile_pointer
from policies.meters.reader import UNITS_MAX, Observed
from policies.meters.reading import Reading
from policies.meters.registry import BODY_KINDS, LOOK_UPS
from policies.meters.response_json import ResponseJson, decoded

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from policies.catalog import Price, Source
    from policies.meters.facts import RequestFacts
    from policies.meters.reader import BodyKind, Headers, Loads, LookUp, Reader
    from policies.terms import RpcCall

    # Where a source's units are: the indexes of a reader and of the source in it, or a look-up.
    _Place = tuple[int, int] | tuple[type[LookUp], Source]

# The proxy narrows Accept-Encoding to these on metered routes; other encodings pass, but unread.
READABLE_ENCODINGS = ("identity", *INFLATABLE_ENCODINGS)


class Tools(NamedTuple):
    """What meters take from the world: a JSON decoder, and decoders by content encoding."""

    loads: Loads
    decoders: Mapping[str, Callable[[], object]] = MappingProxyType({})


class MeterPlan:
    """How an answer of one kind is read: of a price, a media type and an encoding.

    Agents answer in a handful of kinds, so the proxy makes a plan once. Sources that do not read
    this media type, and all that read bodies under an encoding nobody can decode, have no value:
    their units will be missing.
    """

    __slots__ = (
        "_encoding",
        "_estimated",
        "_media_type",
        "_places",
        "_readers",
        "_single",
        "timed",
    )

    def __init__(self, price: Price, content_type: str, content_encoding: str = "") -> None:
        self._media_type = content_type.partition(";")[0].strip().lower()
        encoding = content_encoding.strip().lower()
        self._encoding = "" if encoding == "identity" else encoding
        families: dict[type[BodyKind], list[Source]] = {}
        self._places = [
            [place for source in meter.sources if (place := self._place(source, families))]
            for meter in price.meters
        ]
        # Per meter: where its estimate is counted (None: nowhere), and how much makes a unit.
        self._estimated = [
            (self._place(meter.estimate_from, families), max(1, meter.estimate_per_unit))
            for meter in price.meters
        ]
        self._readers = [family.prepare(sources) for family, sources in families.items()]
        # The common case is read without a reader: one pointer into a plain JSON answer.
        only = families.get(ResponseJson, []) if len(families) == 1 else []
        self._single = (
            compile_pointer(only[0].argument)
            if len(only) == 1 and self._places == [[(0, 0)]] and not self._encoding
            else None
        )
        named = [
            source for meter in price.meters for source in (*meter.sources, meter.estimate_from)
        ]
        self.timed = any(source.kind == "duration" for source in named)

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

        `facts` may be None where the price asks for nothing of the request.
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
        """The meter of one call."""
        readers = [reader(tools.loads) for reader in self._readers]
        answers = JsonRpcAnswers(calls, tools.loads, self._media_type) if calls else None
        inflater = None
        if self._encoding and (readers or answers is not None):
            inflater = Inflater()
            inflater.failed = self._encoding not in INFLATABLE_ENCODINGS
        return CallMeter(self._places, self._estimated, readers, answers, inflater, headers, facts)

    def _place(self, source: Source, families: dict[type[BodyKind], list[Source]]) -> _Place | None:
        """Where a source is read, entered in `families` if that is in the body."""
        look_up = LOOK_UPS.get(source.kind)
        if look_up is not None:
            return look_up, source
        family = BODY_KINDS.get(source.kind)
        if family is None or not family.applies(self._media_type):
            return None
        sources = families.setdefault(family, [])
        if source not in sources:
            sources.append(source)
        return list(families).index(family), sources.index(source)


class CallMeter:
    """Reads all units of one call; see `MeterPlan`."""

    __slots__ = (
        "_answers",
        "_counted",
        "_estimated",
        "_facts",
        "_fed",
        "_headers",
        "_inbound",
        "_inflater",
        "_outbound",
        "_places",
        "_readers",
        "feed",
    )

    feed: Callable[[bytes], None]
    """Takes the next bytes of the answer, as they came from the upstream."""

    def __init__(  # noqa: PLR0917 - made by a plan only
        self,
        places: Sequence[Sequence[_Place]],
        estimated: Sequence[tuple[_Place | None, int]],
        readers: Sequence[Reader],
        answers: JsonRpcAnswers | None,
        inflater: Inflater | None,
        headers: Headers,
        facts: RequestFacts | None,
    ) -> None:
        self._places = places
        self._estimated = estimated
        self._readers = readers
        self._answers = answers
        self._inflater = inflater
        self._headers = headers
        self._facts = facts
        self._counted = 0  # bytes fed, unless the only reader counts them
        self._inbound: int | None = None
        self._outbound: int | None = None
        self._fed = [reader.feed for reader in readers]
        if answers is not None:
            self._fed.append(answers.feed)
        if inflater is not None:
            self.feed = self._feed_inflated
        elif len(readers) == 1 and answers is None:
            # The common case pays for no layer in between.
            self.feed = readers[0].feed
        else:
            self.feed = self._feed_all

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
        failed: tuple[int, ...] = ()
        unanswered: tuple[int, ...] = ()
        if self._answers is not None:
            failed, unanswered = self._answers.finish()
        broken = self._inflater is not None and self._inflater.failed
        found = [] if broken else [reader.finish() for reader in self._readers]
        observed = self._observed(elapsed_ms)
        units = tuple([_first(places, found, observed) for places in self._places])
        if None not in units:
            return Reading(units, (), failed, unanswered)
        return Reading(units, self.estimates(elapsed_ms), failed, unanswered)

    def so_far(self, elapsed_ms: int = 0) -> Reading:
        """The units in what is finished, cheap enough for every chunk; estimates for all meters."""
        found = [reader.so_far() for reader in self._readers]
        observed = self._observed(elapsed_ms)
        units = tuple([_first(places, found, observed) for places in self._places])
        return Reading(units, self.estimates(elapsed_ms))

    def estimates(self, elapsed_ms: int = 0) -> tuple[int, ...]:
        """For each meter the units that what passed suggests: 0 where its source counts nothing."""
        observed = self._observed(elapsed_ms)
        found: list[Sequence[int | None]] = []
        estimates = []
        for place, per_unit in self._estimated:
            count = 0
            if place is not None:
                if type(place[0]) is int and not found:
                    found = [reader.so_far() for reader in self._readers]
                count = _first((place,), found, observed) or 0
            estimates.append(min(-(-count // per_unit), UNITS_MAX))
        return tuple(estimates)

    def _observed(self, elapsed_ms: int) -> Observed:
        passed = self._counted
        if self._inflater is None and len(self._fed) == 1 and self._readers:
            passed = self._readers[0].size
        return Observed(
            self._headers, self._facts, elapsed_ms, passed, self._inbound, self._outbound
        )

    def _feed_all(self, chunk: bytes) -> None:
        self._counted += len(chunk)
        for feed in self._fed:
            feed(chunk)

    def _feed_inflated(self, chunk: bytes) -> None:
        self._counted += len(chunk)
        if self._inflater is not None:
            for piece in self._inflater.feed(chunk):
                for feed in self._fed:
                    feed(piece)


def _first(
    places: Sequence[_Place], found: Sequence[Sequence[int | None]], observed: Observed
) -> int | None:
    """The value of the first source that has one; `found` by the readers, empty if in vain."""
    for where, which in places:
        if isinstance(where, int):
            units = found[where][cast("int", which)] if found else None
        else:
            units = where.units(cast("Source", which), observed)
        if units is not None:
            return units
    return None
