"""Work that is done once, however many wait for it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine


class OneFlight:
    """Joins who asks while the work is under way to it. Nobody's leaving ends it for the others."""

    __slots__ = ("_task",)

    def __init__(self) -> None:
        self._task: asyncio.Task[None] | None = None

    @property
    def under_way(self) -> bool:
        """Whether somebody waits for it now."""
        return self._task is not None

    async def join(
        self, work: Callable[[], Coroutine[None, None, None]], wait_s: float | None = None
    ) -> None:
        """Begin the work, unless it is under way; return when it has ended, or after `wait_s`.

        Raises: what the work raises; nothing when it was cancelled, which ends nobody's waiting.
        """
        if self._task is None:
            self._task = asyncio.create_task(work())
            self._task.add_done_callback(self._ended)
        task = self._task
        await asyncio.wait({task}, timeout=wait_s)
        if task.done() and not task.cancelled():
            task.result()

    def cancel(self) -> None:
        """Tell the work to end."""
        if self._task is not None:
            self._task.cancel()

    async def close(self) -> None:
        """End the work."""
        self.cancel()
        if self._task is not None:
            await asyncio.wait({self._task})

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if not task.cancelled():
            task.exception()  # seen, also when all who waited have left
