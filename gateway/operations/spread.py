"""Waits until every worker serves by a change of the catalogue.

A change of routes, prices, secrets or issuers commits with a version and a notification. Every
worker that hears it reads the catalogue anew and tells which version it has; who made the change
waits here for all that live (`Ledger.attending`), so that the first call after the API's answer is
served by it. The notification is repeated: a worker may have lost the first one, or its answer.

What it can't promise: a worker that Postgres does not reach does not attend. It serves on by what
it had, and reads anew as soon as it is back.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Self

from gateway.ledger import CATALOG_CHANNEL, CATALOG_SEEN_CHANNEL
from gateway.operations.errors import OperationError

if TYPE_CHECKING:
    from types import TracebackType

    from gateway.ledger import Ledger

SPREAD_WAIT_S = 5.0
# How long to wait for news before the workers are counted again; and called again, which makes each
# of them read the whole catalogue.
SPREAD_POLL_S = 0.25
SPREAD_CALL_S = 1.0


class NotEffectiveError(OperationError):
    """The change is saved, but not every worker is known to serve by it."""

    def __init__(self, workers: int, refused: int) -> None:
        why = f"{refused} of them can't: see their log" if refused else "they have not answered yet"
        super().__init__(
            f"the change is saved, but {workers} workers may still serve by what was before; {why}"
        )


class Spread:
    """Hears what the workers have; an async context manager."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._seen: dict[int, int] = {}
        self._refused: dict[int, int] = {}
        self._news = asyncio.Event()

    async def __aenter__(self) -> Self:
        await self._ledger.listen(CATALOG_SEEN_CHANNEL, self._hear)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Listening ends with the ledger."""

    async def wait(self, version: int) -> None:
        """Return when every live worker serves by this version or a later one.

        Raises: NotEffectiveError when some do not in time; LedgerUnavailable.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + SPREAD_WAIT_S
        call_again = loop.time() + SPREAD_CALL_S
        while True:
            self._news.clear()
            living = await self._ledger.attending()
            self._forget_all_but(living)
            behind = {worker for worker in living if self._seen.get(worker, 0) < version}
            if not behind:
                return
            refused = sum(1 for worker in behind if self._refused.get(worker, 0) >= version)
            if refused or loop.time() > deadline:
                raise NotEffectiveError(len(behind), refused)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), SPREAD_POLL_S)
            if loop.time() >= call_again:
                call_again = loop.time() + SPREAD_CALL_S
                await self._ledger.notify(CATALOG_CHANNEL, "")

    def _hear(self, payload: str) -> None:
        worker, _, version = payload.partition(":")
        if not version:
            return  # listening has begun
        told = self._refused if version.endswith("!") else self._seen
        told[int(worker)] = max(int(version.rstrip("!")), told.get(int(worker), 0))
        self._news.set()

    def _forget_all_but(self, living: set[int]) -> None:
        for told in (self._seen, self._refused):
            for worker in told.keys() - living:
                del told[worker]
