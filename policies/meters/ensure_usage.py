"""Has a stream of OpenAI's shape report its usage, whether or not the client asked for it.

Without `stream_options.include_usage` such a stream never says what it used. `ask` adds that to
the request, and `UsageRemover` takes the one event that comes of it out of the answer again, so
that the client gets what it would have got.

Source: https://platform.openai.com/docs/api-reference/chat/create (stream_options)
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from policies.meters.pointer import BYTE_ORDER_MARK
from policies.meters.response_sse import data_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from policies.meters.reader import Loads

    Dumps = Callable[[object], bytes]

OPENAI = "openai"
# A longer event is not the one with the usage: it passes on before its end has come.
HELD_EVENT_MAX_BYTES = 64 * 1024
_ASKED = b'"stream_options":{"include_usage":true},'
# Two line ends, of any kind: what ends an event. A CR at the end may be the first half of a CR LF.
_EVENT_END = re.compile(rb"(?:\r\n|\n|\r(?!\n))(?:\r\n|\n|\r)")
# As many bytes as may be the beginning of such an end.
_END_BYTES_MAX = 3
_WHOLE = (b"\n\n", b"\r\n\r\n")
_NO_CHOICES = re.compile(rb'"choices"\s*:\s*\[\s*\]')


def ask(body: bytes, loads: Loads, dumps: Dumps) -> bytes | None:
    """The request's body, changed so that its stream reports its usage.

    None when nothing has to change: it is no stream of chat completions (or completions), or the
    client has asked for its usage itself.
    """
    try:
        document = loads(body.removeprefix(BYTE_ORDER_MARK))
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict) or document.get("stream") is not True:
        return None
    # Not the Responses API, which refuses the option and reports anyway.
    prompt = document.get("prompt")
    if not isinstance(document.get("messages"), list) and not isinstance(prompt, str | list):
        return None
    if "stream_options" not in document:
        # Every other byte stays as the client wrote it.
        head, brace, rest = body.partition(b"{")
        return head + brace + _ASKED + rest
    options = document["stream_options"]
    if options is None:
        options = {}
    if not isinstance(options, dict) or options.get("include_usage") is True:
        return None
    return dumps({**document, "stream_options": {**options, "include_usage": True}})


class UsageRemover:
    """Passes a stream of events on, without those that only report the usage.

    Everything else passes byte for byte. Held back is no more than the event that is not complete
    yet, and of that no more than `HELD_EVENT_MAX_BYTES`.
    """

    __slots__ = ("_held", "_line_feed", "_loads", "_passing")

    def __init__(self, loads: Loads) -> None:
        self._loads = loads
        self._held = b""  # of an incomplete event
        # The last bytes of an event that is too long to be held; None where there is none.
        self._passing: bytes | None = None
        # Of an event that CR has ended: what becomes of an LF if that comes next. None: ended else.
        self._line_feed: bytes | None = None

    def feed(self, chunk: bytes) -> bytes:
        """What passes on of these bytes and of those held back before."""
        passed = []
        if self._line_feed is not None and chunk:
            if chunk.startswith(b"\n"):
                passed.append(self._line_feed)
                chunk = chunk[1:]
            self._line_feed = None
        if self._passing is not None:
            end = self._end_of_passing(self._passing, chunk)
            passed.append(chunk[:end])
            chunk = chunk[end:]
        if not self._held and chunk.endswith(_WHOLE) and not _NO_CHOICES.search(chunk):
            passed.append(chunk)
        else:
            self._sift(self._held + chunk, passed)
        return b"".join(passed)

    def end(self) -> bytes:
        """What is left when the stream has ended."""
        rest, self._held = self._held, b""
        return b"" if self._is_usage(rest) else rest

    def _sift(self, text: bytes, passed: list[bytes]) -> None:
        """Adds to `passed` the events that may pass, and holds back what is incomplete."""
        end = 0
        for found in _EVENT_END.finditer(text, max(0, len(self._held) - _END_BYTES_MAX)):
            event = text[end : found.end()]
            end = found.end()
            is_usage = self._is_usage(event)
            if not is_usage:
                passed.append(event)
            if end == len(text) and event.endswith(b"\r"):
                self._line_feed = b"" if is_usage else b"\n"
        self._held = text[end:]
        if len(self._held) > HELD_EVENT_MAX_BYTES:
            passed.append(self._held)
            self._passing = self._held[-_END_BYTES_MAX:]
            self._held = b""

    def _end_of_passing(self, before: bytes, chunk: bytes) -> int:
        """Where in a chunk the event ends that is too long."""
        text = before + chunk
        found = _EVENT_END.search(text)
        if found is None:
            self._passing = text[-_END_BYTES_MAX:]
            return len(chunk)
        self._passing = None
        if found.end() == len(text) and text.endswith(b"\r"):
            self._line_feed = b"\n"
        return found.end() - len(before)

    def _is_usage(self, event: bytes) -> bool:
        """Whether an event is what asking for the usage has added: no choices, but a usage."""
        if not _NO_CHOICES.search(event) or b'"usage"' not in event:
            return False
        text = event.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        try:
            document = self._loads(data_of(text))
        except (ValueError, RecursionError):
            return False
        return (
            isinstance(document, dict)
            and document.get("choices") == []
            and isinstance(document.get("usage"), dict)
        )
