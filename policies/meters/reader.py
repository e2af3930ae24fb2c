"""What every meter is: a sans-io reader of one body, bytes in and units out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Loads = Callable[[bytes | bytearray], object]

# More work than this in one call is a broken report, and Lua could not count it exactly.
UNITS_MAX = 2**53 - 1


class Reader(Protocol):
    """One kind of meter at work on one call.

    A reader is fed the body's bytes as they pass, in pieces of any size, and never changes or
    delays them. It serves all sources of its kind that a price names, so that a body is read once
    however many units are taken from it.
    """

    def __init__(self, arguments: Sequence[str], loads: Loads) -> None:
        """Starts on a new body; `arguments` are the sources' texts after the colon.

        `loads` decodes JSON and raises ValueError where there is none (`json.loads`, or faster).
        """

    @staticmethod
    def mistake_in(argument: str) -> str | None:
        """What is wrong with a source's argument, for the person who wrote it."""

    @staticmethod
    def applies(media_type: str) -> bool:
        """Whether this kind reads bodies of a media type such as "application/json"."""

    def feed(self, chunk: bytes) -> None:
        """Takes the next bytes of the body; in time proportional to their number."""

    def finish(self) -> tuple[int | None, ...]:
        """The units in the bytes so far, one entry per argument; None where nothing was read.

        May be asked between chunks and more than once.
        """


def as_units(value: object) -> int | None:
    """A JSON value as units: an integer from 0 to `UNITS_MAX`, anything else is None.

    A number with a fraction is nobody's count of anything, and a bool is an int only in Python.
    """
    if type(value) is int and 0 <= value <= UNITS_MAX:
        return value
    return None
