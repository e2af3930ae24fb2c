"""A clock that tests move by months, for Redis, Postgres and a gateway that they start.

libfaketime (Debian's package `libfaketime`) stands between a process and the time: what it adds is
in a file, read anew whenever the time is asked for. Monotonic clocks go on as they are, so that
time-outs and event loops are not moved. Only processes started inside `moved_clock` have it; this
one has not: ask the clock instead.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gateway.embedded import spawn

if TYPE_CHECKING:
    from collections.abc import Iterator

DAY_MS = 86_400_000


class MovedClock:
    """Real time and what was added to it. It only goes forward."""

    def __init__(self, file: Path, library: Path) -> None:
        self._file = file
        self._ahead_ms = 0
        self.environment = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }
        self._write()

    @property
    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000 + self._ahead_ms

    def advance(self, *, days: int = 0, hours: int = 0, ms: int = 0) -> None:
        self._ahead_ms += days * DAY_MS + hours * 3_600_000 + ms
        self._write()

    def advance_to(self, moment_ms: int) -> None:
        """At least this moment."""
        self.advance(ms=max(moment_ms - self.now_ms, 0))

    def _write(self) -> None:
        # Renamed into place: it is never read half written.
        draft = self._file.with_suffix(".new")
        draft.write_text(f"+{self._ahead_ms / 1000:.3f}\n")
        draft.chmod(0o644)
        draft.rename(self._file)


@contextlib.contextmanager
def moved_clock(folder: Path) -> Iterator[MovedClock]:
    """The embedded servers that are started inside have this clock.

    Other processes get it by its `environment`. The folder must be one that every user may read.
    """
    libraries = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    if not libraries:
        pytest.skip("no libfaketime: apt-get install libfaketime")
    clock = MovedClock(folder / "clock", libraries[0])
    bare = spawn._bare_environment
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spawn, "_bare_environment", lambda: bare() | clock.environment)
        yield clock


def whole_environment(clock: MovedClock) -> dict[str, str]:
    """This process' environment with the clock, for a child that needs both."""
    return dict(os.environ) | clock.environment
