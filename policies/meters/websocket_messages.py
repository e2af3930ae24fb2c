"""`websocket.messages`: how many messages a WebSocket carried.

`:in` counts those of the client, `:out` those of the agent, without either both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from policies.catalog import Source
    from policies.meters.reader import Observed


class WebSocketMessages:
    """What `CallMeter.note_messages` was told; None on an answer that is no WebSocket."""

    @staticmethod
    def mistake_in(source: Source) -> str | None:
        """It takes a direction, or none."""
        if source.argument in {"", "in", "out"}:
            return None
        return 'takes "in" (from the client), "out" (from the agent), or nothing for both'

    @staticmethod
    def prepare(source: Source) -> Callable[[Observed], int | None]:
        """What tells the messages in this direction."""
        return {"in": _inbound, "out": _outbound}.get(source.argument, _both)


def _inbound(observed: Observed) -> int | None:
    return observed.inbound


def _outbound(observed: Observed) -> int | None:
    return observed.outbound


def _both(observed: Observed) -> int | None:
    if observed.inbound is None or observed.outbound is None:
        return None
    return observed.inbound + observed.outbound
