"""`response.sse:/pointer`: units in a stream of server-sent events whose data is JSON.

Agents report usage in one of the last events, or a running total in many: the last value counts.
Of those that report what each event adds, `response.sse.sum` takes the sum; `response.sse.count`
counts the events, or those that have a value.

Theory of operation: line ends (CR LF, LF, CR) become LF, so an event is what stands between two
blank lines, and only the bytes after the last blank line have to be kept. What the stream's end
leaves without a blank line still counts if it is whole JSON: the agent did that work, whatever the
client's parser makes of it.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
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

# A longer event passes untouched but unread. Values before it are forgotten: it may have raised
# them, so until a later event reports again, the units are missing.
SSE_EVENT_MAX_BYTES = 1024 * 1024
# What ends a stream of OpenAI's shape is no piece of work, nor is an event without data.
_DONE = (b"data: [DONE]", b"data:[DONE]")
_NO_WORK: tuple[list[bytes], ...] = ([b"[DONE]"], [])
_BLANK_LINE = b"\n\n"
_BLANK_LINES = re.compile(rb"\n{3,}")
_DATA = b"data: "
_JSON = b"data: {"
# As a number, and `find` instead of `in`: a search for bytes with `in` takes twice as long.
_CR = 13


class ResponseSse:
    """Follows a stream and remembers what its events add up to."""

    __slots__ = (
        "_after_cr",
        "_counts",
        "_needle",
        "_oversize",
        "_pending",
        "_tally",
        "documents",
        "size",
    )

    def __init__(self, plan: TallyPlan, loads: Loads) -> None:
        self._tally = Tally(plan, loads)
        # Whole events without it need not be read; None: there are several to look for.
        self._needle = plan.needles[0] if len(plan.needles) == 1 else None
        self._counts = bool(plan.counts)  # whether anybody asks for `documents`
        self._pending = bytearray()  # of the event that has not ended yet; LF line ends only
        self._oversize = False  # the event that has not ended yet is already too long
        self._after_cr = False  # an LF that comes next belongs to the CR before it
        self.documents = 0
        self.size = 0

    @staticmethod
    def mistake_in(source: Source) -> str | None:
        """What is wrong with a JSON pointer."""
        return mistake_in_tally(source)

    @staticmethod
    def applies(media_type: str) -> bool:
        """Event streams by name."""
        return media_type == "text/event-stream"

    @staticmethod
    def prepare(sources: Sequence[Source]) -> Callable[[Loads], ResponseSse]:
        """What opens a reader of these sources."""
        return partial(ResponseSse, plan_tally(sources))

    def feed(self, chunk: bytes) -> None:
        """Reads the events that end in these bytes and keeps the start of the next one."""
        length = len(chunk)
        self.size += length
        if self._after_cr or _CR in chunk:
            chunk, self._after_cr = with_lf_only(chunk, after_cr=self._after_cr)
            length = len(chunk)
        if self._pending or not chunk.endswith(_BLANK_LINE):
            self._feed_part(chunk)
            return
        # One or more whole events, as most servers write them.
        needle = self._needle
        if needle is None or chunk.find(needle) >= 0 or length > SSE_EVENT_MAX_BYTES:
            self._read_whole(chunk)
        # As nearly all are, and cheaper to ask here: one event, its JSON on one line.
        elif chunk.find(b"\n") == length - 2 and chunk.startswith(_JSON):
            self.documents += 1
        elif self._counts:
            self.documents += _work_in(chunk)

    def finish(self) -> list[int | None]:
        """The units per source, counting an event that the bytes so far have not ended."""
        tally = self._tally
        if self._oversize or not self._pending:
            return self.so_far()
        values = tally.values.copy()
        rest = bytes(self._pending)
        if tally.may_hold(rest):
            tally.read(data_of(rest), values)
        return tally.units(values, self.documents + _work_in(rest))

    def so_far(self) -> list[int | None]:
        """The units per source in the events that have ended."""
        return self._tally.units(self._tally.values, self.documents)

    def _feed_part(self, chunk: bytes) -> None:
        pending = self._pending
        # The blank line may have begun in the chunk before.
        search_from = max(0, len(pending) - 1)
        pending += chunk
        end = pending.rfind(_BLANK_LINE, search_from)
        if end >= 0:
            self._end_pending(bytes(pending[: end + 2]))
            del pending[: end + 2]
        if len(pending) > SSE_EVENT_MAX_BYTES and _is_oversize(pending):
            if not self._oversize:
                self._oversize = True
                self._skip()
            # The last byte stays: it may be the first half of the blank line, and it keeps the rest
            # of this event from being taken for the start of one.
            del pending[:-1]

    def _end_pending(self, events: bytes) -> None:
        if self._oversize:
            self._oversize = False
            # `_pending` began inside the event that is too long: skip to that event's end.
            events = events[events.index(_BLANK_LINE) + 2 :]
        self._read_whole(events)

    def _read_whole(self, events: bytes) -> None:
        tally = self._tally
        if len(events) <= SSE_EVENT_MAX_BYTES:
            if self._counts:
                self.documents += _work_in(events)
            if not tally.may_hold(events):
                return
        for event in _split(events):
            if len(event) > SSE_EVENT_MAX_BYTES and _is_oversize(event):
                self._skip()
                continue
            if len(events) > SSE_EVENT_MAX_BYTES:
                self.documents += _is_work(event)
            if tally.may_hold(event):
                tally.read(data_of(event), tally.values)

    def _skip(self) -> None:
        """An event that is too long to be read is one all the same."""
        self.documents += 1
        self._tally.skip()


def with_lf_only(chunk: bytes, *, after_cr: bool) -> tuple[bytes, bool]:
    """A chunk with LF for every line end, and whether its last byte is a CR.

    `after_cr` says that of the chunk before: an LF that begins this one belongs to it.
    """
    if after_cr and chunk:
        chunk, after_cr = chunk.removeprefix(b"\n"), False
    after_cr = after_cr or chunk.endswith(b"\r")
    return chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n"), after_cr


def data_of(event: bytes) -> bytes:
    """The values of an event's `data` fields, joined by line ends; empty where it has none."""
    if event.startswith(_DATA) and event.find(b"\n") < 0:  # as nearly all are
        return event[len(_DATA) :]
    return b"\n".join(_values_of(event))


def _values_of(event: bytes) -> list[bytes]:
    values = []
    # The byte order mark belongs at the stream's start; joined streams have it at an event's.
    for line in event.lstrip(b"\n").removeprefix(BYTE_ORDER_MARK).split(b"\n"):
        field, _, value = line.partition(b":")
        if field == b"data":
            values.append(value.removeprefix(b" "))
    return values


def _work_in(events: bytes) -> int:
    """How many events have data: comments keep a connection alive, and `[DONE]` ends it."""
    # As nearly all come: one event, its JSON on one line, with or without a line for its name.
    last = len(events) - len(_BLANK_LINE)
    begin = 0
    end = events.find(b"\n")
    if 0 <= end < last:
        begin = end + 1
        end = events.find(b"\n", begin)
    if end == last and events.startswith(_JSON, begin) and events.endswith(_BLANK_LINE):
        return 1
    return sum([_is_work(event) for event in _split(events)])


def _is_work(event: bytes) -> bool:
    if event.startswith(_JSON):
        return True
    if event.startswith(b"data:") and event.find(b"\n") < 0:
        return event not in _DONE
    return len(event) >= len(b"data") and _values_of(event) not in _NO_WORK


def _split(events: bytes) -> list[bytes]:
    """Events without the line ends around them, so that many of these cost no more than others."""
    if events.find(b"\n\n\n") >= 0:
        events = _BLANK_LINES.sub(_BLANK_LINE, events)
    return events.split(_BLANK_LINE)


def _is_oversize(event: bytes | bytearray) -> bool:
    """Blank lines around an event are not part of it, wherever the chunks were cut."""
    return len(event.strip(b"\n")) > SSE_EVENT_MAX_BYTES
