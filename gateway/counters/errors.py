"""What can fail between gateway and Redis. Denials are values, in `policies.decision`."""

from __future__ import annotations


class CountersUnavailable(Exception):  # noqa: N818 -- named for what is the case
    """Redis gave no usable answer in time. The script may or may not have run."""


class CommandRefused(CountersUnavailable):
    """Redis answered with an error, such as `OOM` or `LOADING`, with which the text begins."""


class CountersMisconfigured(Exception):  # noqa: N818 -- the same
    """Redis can be reached, but not used as configured: credentials, database, version, mode.

    The text is for the operator and holds no secret.
    """


class NotReady(CountersUnavailable):
    """Nothing was sent: there is no usable connection at this moment."""


class Overloaded(CountersUnavailable):
    """Nothing was sent: too many calls are in flight already."""


class Unanswered(CountersUnavailable):
    """The command was sent and its answer will not come: its outcome is unknown.

    `sent_s` is the loop's time at which it was written, from which its deadline counts.
    """

    def __init__(self, message: str, sent_s: float) -> None:
        super().__init__(message)
        self.sent_s = sent_s


class ConnectionCut(Unanswered):
    """The connection ended before the answer."""


class DeadlinePassed(Unanswered):
    """The answer did not come within the deadline; if it comes later, nobody is told."""
