"""What people type, as the API takes it: times, amounts, notes about a key, documents in files.

Only what the API could not say better is looked at here; everything else is its to judge.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.operations.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

NEVER = "never"
STDIN = "-"
# Documents are small: a longer file is another one.
FILE_BYTES_MAX = 1 << 20
# What documents of the API say that nobody can write.
READ_ONLY = frozenset({"active", "id", "managed_by", "price_version"})


def moment(text: str, *, past: bool = False) -> str:
    """A time of a date or of a duration from now: forward, or back where `past` is set.

    Raises: UsageError for anything else.
    """
    from gateway.clock import now_ms
    from gateway.operations.moments import format_moment, parse_moment_ms

    return format_moment(parse_moment_ms(text, now_ms(), past=past)) or "1970-01-01T00:00:00Z"


def expiry(text: str) -> str | None:
    """The same of an expiry, which may be "never"."""
    return None if text.strip().lower() == NEVER else moment(text)


def seconds(text: str) -> int:
    """Seconds of a duration such as "24h", or until a time. Raises: UsageError."""
    from gateway.clock import now_ms
    from gateway.operations.moments import parse_moment_ms

    now = now_ms()
    return max(parse_moment_ms(text, now) - now, 0) // 1_000


def amount(text: str, *, zero: bool = False) -> str:
    """Credits. Raises: UsageError for what are none, and for 0 unless that is meant too."""
    from gateway.operations.amounts import parse_amount, parse_amount_or_zero

    (parse_amount_or_zero if zero else parse_amount)(text)
    return text


def metadata(pairs: Iterable[str], before: Mapping[str, str]) -> dict[str, str]:
    """Notes after `name=value`, or `name=` to take one away. Raises: UsageError."""
    after = dict(before)
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not name or not separator:
            raise UsageError(f'"{pair}" is no note: write name=value, or name= to take it away')
        if value:
            after[name] = value
        else:
            after.pop(name, None)
    return after


def read_document(file: str, kind: str) -> dict[str, Any]:
    """The document in a file of JSON or TOML, or on stdin ("-"), as it can be written.

    `kind` is such as "route": also taken are `{"route": {...}}`, as commands print one, and a
    `[[routes]]` as the config has it. What only the API says of one is left out.

    Raises: UsageError when it can't be read, or is none.
    """
    document = _parse(file, _read(file))
    if isinstance(document, dict):
        document = document.get(kind, document)
        several = document.get(f"{kind}s") if isinstance(document, dict) else None
        if isinstance(several, list) and len(several) == 1:
            (document,) = several
    if not isinstance(document, dict):
        raise UsageError(f"{file} is no {kind}: see one with {kind}s show --json")
    return {name: value for name, value in document.items() if name not in READ_ONLY}


def _read(file: str) -> str:
    try:
        if file == STDIN:
            content = sys.stdin.buffer.read(FILE_BYTES_MAX + 1)
        else:
            with Path(file).open("rb") as opened:
                content = opened.read(FILE_BYTES_MAX + 1)
        text = content.decode()
    except OSError as error:
        raise UsageError(f"{file} can't be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{file} is not UTF-8") from None
    if len(content) > FILE_BYTES_MAX:
        raise UsageError(f"{file} is over {FILE_BYTES_MAX} bytes")
    return text


def units(pairs: Iterable[str]) -> dict[str, int]:
    """Counts after `unit=number`. Raises: UsageError."""
    counts = {}
    for pair in pairs:
        unit, _, count = pair.partition("=")
        if not unit or not (count.isascii() and count.isdecimal()):
            raise UsageError(f'"{pair}" is no count: write unit=number, as in token=1200')
        counts[unit] = int(count)
    return counts


def body(text: str) -> Any:
    """A body of a call: JSON if it is that, else the text itself."""
    import json

    try:
        return json.loads(text)
    except ValueError:
        return text


def _parse(file: str, text: str) -> Any:
    """JSON if it begins as such; no TOML does."""
    import json
    import tomllib

    try:
        if text.lstrip().startswith("{"):
            return json.loads(text)
        return tomllib.loads(text)
    except ValueError as error:  # both kinds of mistakes are
        raise UsageError(f"{file}: {error}") from None
