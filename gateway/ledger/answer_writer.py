"""A worker's answers on their way to Postgres, behind its calls.

Redis has each of them, too, so what is lost with this memory is noticed only if Redis loses its
data at the same time; then a retry of such a call runs again. The queue is bounded by bytes: while
Postgres is away, what does not fit is not kept there.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Protocol

from gateway.ledger.errors import LedgerRejected, LedgerUnavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.ledger.answers import AnswerRow

QUEUE_MAX_BYTES = 32 * 1024 * 1024
BATCH_ROWS_MAX = 32
# What a row takes in memory beside its answer.
ROW_BYTES = 1_000
RETRY_PAUSE_MIN_S, RETRY_PAUSE_MAX_S = 0.1, 5.0

log = logging.getLogger("tollkeeper.ledger")


class AnswerStore(Protocol):
    """Where answers go: the ledger."""

    async def save_answers(self, answers: Sequence[AnswerRow]) -> None:
        """Keep answers. Idempotent."""


class AnswerWriter:
    """Collects answers and writes them. `run` must be running for anything to happen."""

    def __init__(self, store: AnswerStore, *, queue_max_bytes: int = QUEUE_MAX_BYTES) -> None:
        self._store = store
        self._queue_max_bytes = queue_max_bytes
        self._queue: deque[AnswerRow] = deque()
        self._bytes = 0
        self._taken = self._done = 0  # rows, ever
        self._dropping = False
        self._some = asyncio.Event()
        self._moved = asyncio.Event()

    def __len__(self) -> int:
        return len(self._queue)

    def add(self, row: AnswerRow) -> bool:
        """Take an answer; False: the queue is full. Never blocks."""
        size = ROW_BYTES + len(row.answer)
        if self._bytes + size > self._queue_max_bytes:
            if not self._dropping:
                log.warning("Postgres is behind: answers are kept in Redis only, and not for long")
            self._dropping = True
            return False
        self._dropping = False
        self._queue.append(row)
        self._bytes += size
        self._taken += 1
        self._some.set()
        return True

    async def flush(self, deadline_s: float) -> None:
        """Return when all that was taken until now is in Postgres.

        Raises: LedgerUnavailable at the deadline.
        """
        until = self._taken
        try:
            async with asyncio.timeout(deadline_s):
                while self._done < until:
                    self._moved.clear()
                    await self._moved.wait()
        except TimeoutError:
            raise LedgerUnavailable(f"{len(self._queue)} answers wait for Postgres") from None

    async def drain(self, deadline_s: float) -> None:
        """The same at the end of the process: Redis has what is left."""
        try:
            await self.flush(deadline_s)
        except LedgerUnavailable as error:
            log.warning("%s; Redis has them", error)

    async def run(self) -> None:
        """Write until cancelled."""
        pause_s = RETRY_PAUSE_MIN_S
        while True:
            await self._some.wait()
            batch = list(islice(self._queue, BATCH_ROWS_MAX))
            try:
                await self._store.save_answers(batch)
            except LedgerRejected as error:
                log.error("%d answers are refused by Postgres: %s", len(batch), error)  # noqa: TRY400 -- the text says it all
            except LedgerUnavailable as error:
                log.warning("%d answers wait for Postgres: %s", len(self._queue), error)
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, RETRY_PAUSE_MAX_S)
                continue
            except Exception:
                log.exception("%d answers wait for Postgres", len(self._queue))
                await asyncio.sleep(RETRY_PAUSE_MAX_S)
                continue
            pause_s = RETRY_PAUSE_MIN_S
            self._forget(len(batch))

    def _forget(self, count: int) -> None:
        for _ in range(count):
            self._bytes -= ROW_BYTES + len(self._queue.popleft().answer)
        self._done += count
        if not self._queue:
            self._some.clear()
        self._moved.set()
