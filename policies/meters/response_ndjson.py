"""`response.ndjson:/pointer`: units in an answer of JSON documents, one a line.

As in a stream of events, the last value counts; `response.ndjson.sum` adds the values up,
`response.ndjson.count` counts the lines, or those that have a value.

Theory of operation: only the bytes after the last line end have to be kept. What stands there when
the answer ends is a line like any other.

Source: https://github.com/ndjson/ndjson-spec, https://jsonlines.org
"""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING

from policies.meters.pointer import BYTE_ORDER_MARK
from policies.meters.tally import Tally, mistake_in_tally, plan_tally

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from policies.catalog import Source
    from policies.meters.reader import Loads
    from policies.meters.tally import TallyPlan

# A longer line passes untouched but unread; values before it are then stale, sums unknown.
NDJSON_LINE_MAX_BYTES = 1024 * 1024
_LINE_ENDS = re.compile(rb"\n{2,}")
# No type is registered; these are what agents write.
_MEDIA_TYPES = frozenset(
    {
        "application/x-ndjson",
        "application/ndjson",
        "application/jsonl",
        "application/x-jsonl",
        "application/jsonlines",
        "application/x-jsonlines",
        "application/json-lines",
    }
)


class ResponseNdjson:
    """Follows the lines and remembers what they add up to."""

    __slots__ = ("_counts", "_oversize", "_pending", "_tally", "documents", "size")

    def __init__(self, plan: TallyPlan, loads: Loads) -> None:
        self._tally = Tally(plan, loads)
        self._pending = bytearray()  # of the line that has not ended yet
        self._oversize = False  # that line is already too long; nothing of it is kept
        self._counts = bool(plan.counts)  # whether anybody asks for `documents`
        self.documents = 0
        self.size = 0

    @staticmethod
    def mistake_in(source: Source) -> str | None:
        """What is wrong with a JSON pointer."""
        return mistake_in_tally(source)

    @staticmethod
    def applies(media_type: str) -> bool:
        """Newline-delimited JSON, by any of its names."""
        return media_type in _MEDIA_TYPES

    @staticmethod
    def prepare(sources: Sequence[Source]) -> Callable[[Loads], ResponseNdjson]:
        """What opens a reader of these sources."""
        return partial(ResponseNdjson, plan_tally(sources))

    def feed(self, chunk: bytes) -> None:
        """Reads the lines that end in these bytes and keeps the start of the next one."""
        self.size += len(chunk)
        if self._oversize:
            _, end, chunk = chunk.partition(b"\n")
            if not end:
                return
            self._oversize = False
        pending = self._pending
        if not pending and chunk.endswith(b"\n"):
            # One or more whole lines, as most servers write them.
            self._read_lines(chunk)
            return
        search_from = len(pending)
        pending += chunk
        end_at = pending.rfind(b"\n", search_from) + 1
        if end_at:
            self._read_lines(bytes(pending[:end_at]))
            del pending[:end_at]
        if len(pending) > NDJSON_LINE_MAX_BYTES:
            self._oversize = True
            self._skip()
            pending.clear()

    def finish(self) -> list[int | None]:
        """The units per source, counting a line that the bytes so far have not ended."""
        tally = self._tally
        rest = _document(bytes(self._pending))
        if not rest:
            return self.so_far()
        values = tally.values.copy()
        if tally.may_hold(rest):
            tally.read(rest, values)
        return tally.units(values, self.documents + 1)

    def so_far(self) -> list[int | None]:
        """The units per source in the lines that have ended."""
        return self._tally.units(self._tally.values, self.documents)

    def _read_lines(self, lines: bytes) -> None:
        tally = self._tally
        if len(lines) <= NDJSON_LINE_MAX_BYTES and not self._counts and not tally.may_hold(lines):
            return
        # Line ends that follow each other cost no more than others.
        for line in _LINE_ENDS.sub(b"\n", lines).split(b"\n"):
            if len(line) > NDJSON_LINE_MAX_BYTES:
                self._skip()
                continue
            document = _document(line)
            if document:
                self.documents += 1
                if tally.may_hold(document):
                    tally.read(document, tally.values)

    def _skip(self) -> None:
        """A line that is too long to be read is one all the same."""
        self.documents += 1
        self._tally.skip()


def _document(line: bytes) -> bytes:
    return line.removeprefix(BYTE_ORDER_MARK).strip()
