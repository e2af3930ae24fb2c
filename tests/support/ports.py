"""Ports for servers that a test starts as processes of their own.

Taken from below the range that the system gives out, to connections too: so between the choice and
the server's start nothing of the many tests that run side by side can get it.
"""

from __future__ import annotations

import itertools
import os

from gateway.ports import held_port, hold

FIRST_PORT, LAST_PORT = 12_000, 31_999
PORTS_PER_PROCESS = 1_000

_number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_first = FIRST_PORT + _number * PORTS_PER_PROCESS % (LAST_PORT + 1 - FIRST_PORT)
# Another run on this machine begins somewhere else.
_steps = (os.getpid() + step for step in itertools.count())
_numbers = (_first + step % PORTS_PER_PROCESS for step in _steps)


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nothing listens on, and that no other test will choose soon."""
    for port in itertools.islice(_numbers, PORTS_PER_PROCESS):
        try:
            with hold(host, port) as held:
                return held_port(held)
        except OSError:
            continue
    raise AssertionError(f"all ports from {_first} on are taken")
