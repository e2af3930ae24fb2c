"""Finishes steps of taking back that somebody began and did not live to finish.

Who begins a step finishes it at once, unless Redis does not answer. Any number of nodes do this at
a time: a step is locked by whoever is at it (gateway/operations/clawbacks.py).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NoReturn

from gateway.jobs.rounds import repeat
from gateway.operations.clawbacks import finish_clawback
from gateway.operations.errors import NotToldError
from gateway.operations.withdraw import NotTakenError

if TYPE_CHECKING:
    from gateway.counters import Counters
    from gateway.ledger import Ledger
    from gateway.operations.withdraw import Ready

INTERVAL_S = 30.0
# Whoever began it is at it for longer than this only if Redis does not answer.
OPEN_MS = 30_000
PAGE_ROWS_MAX = 100

log = logging.getLogger("tollkeeper.jobs")


class Clawbacks:
    """Takes what was begun to be taken. `ready` waits for a lost shard."""

    def __init__(
        self, ledger: Ledger, counters: Counters, ready: Ready, *, open_ms: int = OPEN_MS
    ) -> None:
        self._ledger = ledger
        self._counters = counters
        self._ready = ready
        self._open_ms = open_ms

    async def run(self) -> NoReturn:
        """Look until cancelled."""
        await repeat("clawbacks", self.finish, INTERVAL_S)

    async def finish(self) -> int:
        """One round; answers how many steps were finished. One's failure is its own.

        Raises: LedgerUnavailable, CountersUnavailable.
        """
        finished = 0
        for clawback_id in await self._ledger.open_clawbacks(
            older_than_ms=self._open_ms, limit=PAGE_ROWS_MAX
        ):
            try:
                finished += await finish_clawback(
                    self._ledger, self._counters, clawback_id, ready=self._ready
                )
            except (NotTakenError, NotToldError) as error:
                log.warning("clawback %s can't be finished now: %s", clawback_id, error)
        if finished:
            log.warning("%d steps of taking back that were left undone were finished", finished)
        return finished
