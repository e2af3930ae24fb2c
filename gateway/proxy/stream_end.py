"""Where a stream can be ended so that something can follow: behind the event that is under way.

Half an event can't be taken back, and whatever came behind it would be read as part of it.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from gateway.proxy.answers import BLANK_LINES, SSE_END_BYTES
from gateway.upstream import UpstreamError

if TYPE_CHECKING:
    from gateway.errors import Refusal
    from gateway.upstream import Answer
    from policies.meters.reading import Reading

# How long, and for how much more, an event is waited for.
EVENT_REST_S = 1.0
EVENT_REST_MAX_BYTES = 65_536
_LINE_ENDS = (b"\n",)


class ExhaustedError(Exception):
    """A stream's hold can't be raised for its next part, `chunk`; `reading` is without it.

    `lent` are microcredits that may have passed beyond the hold, 0: none.
    """

    def __init__(self, refusal: Refusal, chunk: bytes, reading: Reading, lent: int = 0) -> None:
        super().__init__(refusal.detail)
        self.refusal = refusal
        self.chunk = chunk
        self.reading = reading
        self.lent = lent


async def event_rest(
    answer: Answer, sent: bytes, chunk: bytes, *, event_stream: bool
) -> bytes | None:
    """What is still to be passed of the event (else: line) under way; None if it does not end soon.

    `sent` is the end of what was passed, `chunk` what the agent has sent behind it.
    """
    rest = b""
    with contextlib.suppress(UpstreamError, TimeoutError):
        async with asyncio.timeout(EVENT_REST_S):
            while len(rest) <= EVENT_REST_MAX_BYTES:
                end = event_end(sent, chunk, event_stream=event_stream)
                if end is not None:
                    return rest + chunk[:end]
                rest += chunk
                sent = (sent + chunk)[-SSE_END_BYTES:]
                chunk = await answer.read()
                if not chunk:
                    break
    return None


def event_end(sent: bytes, chunk: bytes, *, event_stream: bool) -> int | None:
    """How many bytes of a chunk belong to the event under way; None: all of them, and more."""
    ends = BLANK_LINES if event_stream else _LINE_ENDS
    if not sent or sent.endswith(ends):
        return 0
    joined = sent + chunk
    found = []
    for end in ends:
        # It may have begun in what was sent.
        at = joined.find(end, max(0, len(sent) - len(end) + 1))
        if at >= 0:
            found.append(at + len(end) - len(sent))
    return min(found) if found else None
