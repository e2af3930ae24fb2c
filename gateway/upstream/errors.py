"""What can go wrong between the gateway and an agent, as four exceptions.

Each says in `sent` whether a byte of the request was handed to the socket: only a call with
`sent = False` is known not to have run.
"""

from __future__ import annotations

import asyncio
from typing import Literal

Phase = Literal["pool", "connect", "first_byte", "idle", "total"]


class UpstreamError(Exception):
    """A call that got no complete answer. The text is internal: it names hosts and addresses."""

    def __init__(self, why: str, *, sent: bool) -> None:
        super().__init__(why)
        self.sent = sent


class CancelledUnsentError(asyncio.CancelledError):
    """The caller was cancelled while it waited for a connection: the agent has seen nothing."""


class UpstreamUnreachable(UpstreamError):  # noqa: N818  # the name says what happened
    """No connection: the name did not resolve, the port refused, or TLS failed."""

    def __init__(self, why: str) -> None:
        super().__init__(why, sent=False)


class UpstreamForbidden(UpstreamUnreachable):
    """It leads to an address that an owner's upstream may not have. An owner may see the text."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(f"{host}:{port} leads to an address that is not public, nor allowed")


class UpstreamTimeout(UpstreamError):  # noqa: N818  # the name says what happened
    """A phase of the call took longer than it may."""

    def __init__(self, phase: Phase, *, sent: bool) -> None:
        super().__init__(f"the {phase} timeout ran out", sent=sent)
        self.phase: Phase = phase


class UpstreamBroken(UpstreamError):  # noqa: N818  # the name says what happened
    """No usable answer: garbage, a head over its bounds, or closed before the head was complete."""


class UpstreamTruncated(UpstreamError):  # noqa: N818  # the name says what happened
    """The answer began, but its body ended early or could not be understood to its end."""

    def __init__(self, why: str) -> None:
        super().__init__(why, sent=True)
