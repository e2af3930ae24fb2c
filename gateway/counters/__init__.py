"""Redis: the decision in the moment. See README.md."""

from gateway.counters.counters import Counters
from gateway.counters.errors import (
    CommandRefused,
    CountersMisconfigured,
    CountersUnavailable,
)
from gateway.counters.keys import AccountKeys

__all__ = [
    "AccountKeys",
    "CommandRefused",
    "Counters",
    "CountersMisconfigured",
    "CountersUnavailable",
]
