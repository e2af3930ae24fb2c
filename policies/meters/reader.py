"""What every meter is: sans-io, bytes or facts of a call in, units out.

A *reader* is fed the answer's body; a *look-up* knows its units without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from policies.catalog import Source
    from policies.meters.facts import RequestFacts

    Loads = Callable[[bytes | bytearray], object]
    Headers = Sequence[tuple[bytes, bytes]]

# More work than this in one call is a broken report, and Lua could not count it exactly.
UNITS_MAX = 2**53 - 1


class Observed(NamedTuple):
    """What is known of a call beside its answer's body."""

    headers: Headers = ()  # of the answer, as the agent wrote them
    facts: RequestFacts | None = None  # None: the price asks for nothing of the request
    elapsed_ms: int = 0
    passed_bytes: int = 0  # of the answer's body, as they passed
    inbound: int | None = None  # messages of a WebSocket from the client; None: it is none
    outbound: int | None = None


class Kind(Protocol):
    """A kind of source, as a config names it."""

    @staticmethod
    def mistake_in(source: Source) -> str | None:
        """What is wrong with a source of this kind, for the person who wrote it."""


class LookUp(Kind, Protocol):
    """A kind whose units are known without the answer's body."""

    @staticmethod
    def prepare(source: Source) -> Callable[[Observed], int | None]:
        """What tells the units of a call; None where there are none to be known."""


class Reader(Protocol):
    """A body at work: one kind (or family of kinds) of meter on one call.

    A reader is fed the body's bytes as they pass, decompressed, in pieces of any size, and never
    changes or delays them. It serves all sources of its family that a price names, so that a body
    is read once however many units are taken from it.
    """

    size: int  # bytes it was fed
    documents: int  # events or lines that have ended; kept only where a source counts all of them

    def feed(self, chunk: bytes) -> None:
        """Takes the next bytes of the body; in time proportional to their number."""

    def finish(self) -> Sequence[int | None]:
        """The units in the bytes so far, one entry per source; None where nothing was read.

        May be asked between chunks and more than once.
        """

    def so_far(self) -> Sequence[int | None]:
        """The same without what stands in an unfinished part: cheap enough for every chunk."""


class BodyKind(Kind, Protocol):
    """A kind whose units stand in the answer's body."""

    @staticmethod
    def applies(media_type: str) -> bool:
        """Whether this kind reads bodies of a media type such as "application/json"."""

    @staticmethod
    def prepare(sources: Sequence[Source]) -> Callable[[Loads], Reader]:
        """What opens a reader of these sources, whose kinds are all of its family.

        `loads` decodes JSON and raises ValueError where there is none (`json.loads`, or faster).
        """


def as_units(value: object) -> int | None:
    """A JSON value as units: a whole number from 0 to `UNITS_MAX`, anything else is None.

    30.0 is whole: JSON knows one kind of number, and encoders such as protobuf's write all so. A
    number with a fraction is nobody's count of anything, and a bool is an int only in Python.
    """
    if type(value) is int:
        return value if 0 <= value <= UNITS_MAX else None
    whole = getattr(value, "is_integer", None)
    if whole is None or isinstance(value, bool) or not whole():
        return None
    return as_units(int(cast("int", value)))
