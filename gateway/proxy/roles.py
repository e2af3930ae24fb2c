"""What an exchange asks of its surroundings: who ends its money, who watches, who rewrites."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gateway.proxy.allowance import Raises
    from gateway.proxy.hold import Hold, Receipt
    from gateway.proxy.live import LiveCall
    from gateway.proxy.offers import AnswerKind
    from gateway.upstream import UpstreamClient
    from policies.catalog import Ending
    from policies.meters.reading import Reading


class Settling(Protocol):
    """How a call's money ends: `Settler`, or `Trust` for one without a hold."""

    async def settle(self, hold: Hold, ending: Ending, status: int, reading: Reading) -> Receipt:
        """Charge what the ending costs."""

    async def void(self, hold: Hold) -> None:
        """Give everything back."""


class Watcher(Protocol):
    """Sees the agent's answer as it goes to the client, and the call's end."""

    def begin(
        self, status: int, reason: bytes, lines: bytes, framing: bytes, kind: AnswerKind
    ) -> None:
        """Take the head: the header lines that pass, and the one that says where the body ends."""

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes of the body."""

    async def end(self, ending: Ending, receipt: Receipt, *, whole: bool) -> None:
        """Take the settled end, before the client gets the last byte; `whole`: it gets all.

        Awaited on every path out of a call that was sent on.
        """


class StreamRewriter(Protocol):
    """Changes what passes of an answer's body."""

    def feed(self, chunk: bytes) -> bytes:
        """What of it may pass by now."""

    def end(self) -> bytes:
        """What was held back."""


class Tools(NamedTuple):
    """What every exchange of a worker uses."""

    client: UpstreamClient
    settler: Settling
    mark: Callable[[LiveCall], Awaitable[None]]  # awaited before a call is sent on
    body_timeout_s: float
    raises: Raises | None  # where holds are raised; None for calls without one
