"""How `make test` deals the tests out to processes that run side by side (pytest-xdist).

A file's tests stay together and in their order, and so do files that share more than a machine. The
slowest go first: whatever comes last leaves the other processes with nothing to do.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from xdist.scheduler import LoadFileScheduling

if TYPE_CHECKING:
    import pytest
    from xdist.remote import Producer

# A test waits for servers about half of its time. Each process has three of its own.
PROCESSES_PER_CORE = 2
PROCESSES_MAX = 8
# One at a time: they need the one port that the README and config.toml name.
PORT_9100 = (
    "tests/house/test_readme.py",
    "tests/journeys/test_dev_life.py",
    "tests/journeys/test_dev_mistakes.py",
)
# One deployment for all of them takes 5 s to start, and they load the machine on purpose.
FAULTS = "tests/faults/test_"
TOGETHER = {**dict.fromkeys(PORT_9100, "port 9100"), FAULTS: "faults"}
# Each test on its own: they share nothing and take long.
APART = (
    "tests/control/test_schemathesis.py",
    "tests/simulation/test_simulation.py",
    "tests/stripe_sync/test_any_order.py",
)
PAYING = "tests/journeys/test_paying"
SLOWEST_FIRST = (*APART, FAULTS, *PORT_9100, PAYING)


class SideBySide(LoadFileScheduling):  # type: ignore[misc]
    """Deals out files, some of them together, some of them test by test."""

    def __init__(self, config: pytest.Config, log: Producer) -> None:
        config.option.loadscopereorder = False  # in the order of `place`, not by their number
        super().__init__(config, log)

    def _split_scope(self, nodeid: str) -> str:
        if nodeid.startswith(APART):
            return nodeid
        for start, group in TOGETHER.items():
            if nodeid.startswith(start):
                return group
        return str(super()._split_scope(nodeid))


def processes() -> int:
    """How many to start for `--numprocesses auto`."""
    return min(PROCESSES_PER_CORE * (os.cpu_count() or 1), PROCESSES_MAX)


def place(item: pytest.Item) -> int:
    """Where a test comes in the order of all: the slowest files first, the rest as they are."""
    for position, start in enumerate(SLOWEST_FIRST):
        if item.nodeid.startswith(start):
            return position
    return len(SLOWEST_FIRST)
