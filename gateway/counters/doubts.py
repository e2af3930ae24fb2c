"""Calls that were told their admission failed, though it may not have: they are voided.

Order makes this safe: the void goes out behind the admit on the same connection, or on a new one
after the old one is closed. Should it overtake the admit all the same, or this process die, the
lease ends the hold.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from gateway.counters.errors import CountersUnavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gateway.counters.keys import AccountKeys

log = logging.getLogger(__name__)

DOUBTS_MAX = 16_384
PAUSE_S = 0.1


class Doubts:
    """At most DOUBTS_MAX call ids to void, and the task that does it while there are any."""

    def __init__(self, void: Callable[[AccountKeys, str, str], Awaitable[object]]) -> None:
        self._void = void
        self._calls: dict[str, tuple[AccountKeys, str]] = {}
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def add(self, keys: AccountKeys, call_id: str, session: str = "") -> None:
        """Void this call as soon as Redis answers. Beyond DOUBTS_MAX its lease has to end it."""
        if self._closed or len(self._calls) >= DOUBTS_MAX:
            return
        self._calls[call_id] = (keys, session)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._clear())

    async def close(self) -> None:
        """Stop; leases end what is left."""
        self._closed = True
        task = self._task
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def _clear(self) -> None:
        try:
            while self._calls:
                call_id, (keys, session) = next(iter(self._calls.items()))
                try:
                    await self._void(keys, call_id, session)
                except CountersUnavailable:
                    await asyncio.sleep(PAUSE_S)
                else:
                    del self._calls[call_id]
        finally:
            self._task = None
