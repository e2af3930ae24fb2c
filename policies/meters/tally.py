"""Adds up what JSON documents that follow one another say: the last value, a sum, a count.

The events of a stream and the lines of NDJSON are read alike. A document is decoded only if it
contains one of the pointers' needles, which nearly none does.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from policies.meters.pointer import compile_pointer, mistake_in_pointer
from policies.meters.reader import UNITS_MAX

if TYPE_CHECKING:
    from collections.abc import Sequence

    from policies.catalog import Source
    from policies.meters.pointer import Pointer
    from policies.meters.reader import Loads


class Fold(Enum):
    """How the values of several documents become one; a kind's name ends with it."""

    LAST = ""
    SUM = ".sum"
    COUNT = ".count"


class TallyPlan(NamedTuple):
    """What several sources of one family ask for, by their index."""

    pointed: tuple[tuple[int, Fold, Pointer], ...]
    counts: tuple[int, ...]  # those that count every document
    needles: tuple[bytes, ...]
    size: int


class Tally:
    """What pointers have found so far, one value per source."""

    __slots__ = ("_loads", "_needles", "_plan", "_unread", "values")

    def __init__(self, plan: TallyPlan, loads: Loads) -> None:
        self._plan = plan
        self._loads = loads
        self._needles = plan.needles
        self._unread = False
        self.values: list[int | None] = [None] * plan.size
        for index, fold, _ in plan.pointed:
            if fold is Fold.COUNT:
                self.values[index] = 0

    def may_hold(self, text: bytes) -> bool:
        """Whether a text can hold a value that a pointer finds."""
        # Neither any() nor `in`: each takes twice as long, and this runs for each chunk.
        for needle in self._needles:  # noqa: SIM110
            if text.find(needle) >= 0:
                return True
        return False

    def read(self, text: bytes, values: list[int | None]) -> None:
        """Looks every pointer up in a document, and adds what it finds to `values`."""
        try:
            document = self._loads(text)
        except (ValueError, RecursionError):
            return
        for index, fold, pointer in self._plan.pointed:
            if fold is Fold.COUNT:
                found = 1 if pointer.is_in(document) else None
            else:
                found = pointer.units_in(document)
            if found is not None:
                before = values[index]
                values[index] = found if fold is Fold.LAST or before is None else before + found

    def skip(self) -> None:
        """Notes that a document passed which was too long to be read.

        Last values are unknown until there are later ones; what is summed or counted, for good.
        """
        for index, fold, _ in self._plan.pointed:
            if fold is Fold.LAST:
                self.values[index] = None
        self._unread = True

    def units(self, values: Sequence[int | None], documents: int) -> list[int | None]:
        """What each source says, of so many documents and of `values`."""
        found = [value if value is None or value <= UNITS_MAX else None for value in values]
        for index in self._plan.counts:
            found[index] = documents
        if self._unread:
            for index, fold, _ in self._plan.pointed:
                if fold is not Fold.LAST:
                    found[index] = None
        return found


def plan_tally(sources: Sequence[Source]) -> TallyPlan:
    """What is asked of a family of kinds by sources without mistakes."""
    pointed = []
    counts = []
    for index, source in enumerate(sources):
        fold = fold_of(source)
        if fold is Fold.COUNT and not source.argument:
            counts.append(index)
        else:
            pointed.append((index, fold, compile_pointer(source.argument)))
    needles = dict.fromkeys(needle for _, _, pointer in pointed for needle in pointer.needles)
    # The needle that is everywhere makes the others needless.
    kept = (b"",) if b"" in needles else tuple(needles)
    return TallyPlan(tuple(pointed), tuple(counts), kept, len(sources))


def fold_of(source: Source) -> Fold:
    """How a kind such as "response.sse.sum" adds up."""
    for fold in (Fold.SUM, Fold.COUNT):
        if source.kind.endswith(fold.value):
            return fold
    return Fold.LAST


def mistake_in_tally(source: Source) -> str | None:
    """What is wrong with the pointer of a source; a count may do without one."""
    if fold_of(source) is Fold.COUNT and not source.argument:
        return None
    return mistake_in_pointer(source.argument)
