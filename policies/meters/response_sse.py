"""`response.sse:/pointer`: units in a stream of server-sent events whose data is JSON.

Agents report usage in one of the last events, or a running total in many: the last value counts.

Theory of operation: line ends (CR LF, LF, CR) become LF, so an event is what stands between two
blank lines, and only the bytes after the last blank line have to be kept. An event is decoded only
if it contains a pointer's needle, which nearly none does. What the stream's end leaves without a
blank line still counts if it is whole JSON: the agent did that work, whatever the client's parser
makes of it.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from policies.meters.pointer import BYTE_ORDER_MARK, compile_pointer, mistake_in_pointer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from policies.catalog import Source
    from policies.meters.pointer import Pointer
    from policies.meters.reader import Loads

# A longer event passes untouched but unread. Values before it are forgotten: it may have raised
# them, so until a later event reports again, the units are missing.
SSE_EVENT_MAX_BYTES = 1024 * 1024
_BLANK_LINE = b"\n\n"


class ResponseSse:
    """Follows a stream and remembers the last units that each pointer found."""

    __slots__ = (
        "_after_cr",
        "_loads",
        "_needles",
        "_oversize",
        "_pending",
        "_pointers",
        "_units",
        "size",
    )

    def __init__(self, pointers: Sequence[Pointer], loads: Loads) -> None:
        self._pointers = pointers
        self._needles = [needle for pointer in pointers for needle in pointer.needles]
        self._loads = loads
        self.size = 0
        self._pending = bytearray()  # of the event that has not ended yet; LF line ends only
        self._oversize = False  # the event that has not ended yet is already too long
        self._after_cr = False  # an LF that comes next belongs to the CR before it
        self._units: list[int | None] = [None] * len(self._pointers)

    @staticmethod
    def mistake_in(source: Source) -> str | None:
        """What is wrong with a JSON pointer."""
        return mistake_in_pointer(source.argument)

    @staticmethod
    def applies(media_type: str) -> bool:
        """Event streams by name."""
        return media_type == "text/event-stream"

    @staticmethod
    def prepare(sources: Sequence[Source]) -> Callable[[Loads], ResponseSse]:
        """What opens a reader of these sources."""
        return partial(ResponseSse, [compile_pointer(source.argument) for source in sources])

    def feed(self, chunk: bytes) -> None:
        """Reads the events that end in these bytes and keeps the start of the next one."""
        self.size += len(chunk)
        if self._after_cr or b"\r" in chunk:
            chunk = self._with_lf_only(chunk)
        if not self._pending and chunk.endswith(_BLANK_LINE):
            # One or more whole events, as most servers write them.
            self._read_whole(chunk)
            return
        pending = self._pending
        # The blank line may have begun in the chunk before.
        search_from = max(0, len(pending) - 1)
        pending += chunk
        end = pending.rfind(_BLANK_LINE, search_from)
        if end >= 0:
            self._end_pending(bytes(pending[: end + 2]))
            del pending[: end + 2]
        if len(pending) > SSE_EVENT_MAX_BYTES and _is_oversize(pending):
            self._oversize = True
            self._units = [None] * len(self._pointers)
            # The last byte stays: it may be the first half of the blank line, and it keeps the rest
            # of this event from being taken for the start of one.
            del pending[:-1]

    def finish(self) -> list[int | None]:
        """The last units per pointer, counting an event that the bytes so far have not ended."""
        if self._oversize:
            return self._units
        units = list(self._units)
        self._read_event(bytes(self._pending), units)
        return units

    def so_far(self) -> list[int | None]:
        """The last units of the events that have ended."""
        return self._units

    def _with_lf_only(self, chunk: bytes) -> bytes:
        if self._after_cr and chunk:
            self._after_cr = False
            chunk = chunk.removeprefix(b"\n")
        if chunk.endswith(b"\r"):
            self._after_cr = True
        return chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _end_pending(self, events: bytes) -> None:
        if self._oversize:
            self._oversize = False
            # `_pending` began inside the event that is too long: skip to that event's end.
            events = events[events.index(_BLANK_LINE) + 2 :]
        self._read_whole(events)

    def _read_whole(self, events: bytes) -> None:
        if len(events) <= SSE_EVENT_MAX_BYTES and not self._may_hold_units(events):
            return
        for event in events.split(_BLANK_LINE):
            if len(event) > SSE_EVENT_MAX_BYTES and _is_oversize(event):
                self._units = [None] * len(self._pointers)
            else:
                self._read_event(event, self._units)

    def _may_hold_units(self, text: bytes) -> bool:
        for needle in self._needles:  # noqa: SIM110 - any() takes twice as long, for each chunk
            if needle in text:
                return True
        return False

    def _read_event(self, event: bytes, units: list[int | None]) -> None:
        if not self._may_hold_units(event):
            return
        try:
            document = self._loads(_data_of(event))
        except (ValueError, RecursionError):
            return
        for index, pointer in enumerate(self._pointers):
            found = pointer.units_in(document)
            if found is not None:
                units[index] = found


def _data_of(event: bytes) -> bytes:
    """The values of an event's `data` fields, joined by line ends."""
    values = []
    # The byte order mark belongs at the stream's start; joined streams have it at an event's.
    for line in event.lstrip(b"\n").removeprefix(BYTE_ORDER_MARK).split(b"\n"):
        field, _, value = line.partition(b":")
        if field == b"data":
            values.append(value.removeprefix(b" "))
    return b"\n".join(values)


def _is_oversize(event: bytes | bytearray) -> bool:
    """Blank lines around an event are not part of it, wherever the chunks were cut."""
    return len(event.strip(b"\n")) > SSE_EVENT_MAX_BYTES
