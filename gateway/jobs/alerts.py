"""Records what accounts should be told of: 70, 90, 100 % used, and credits below the plan's mark.

Found in the books, not on the hot path: a crossing is recorded within an interval and after its
calls are settled in Postgres. Exactly once, because finding and recording are one statement that
names the crossing (`account_events.business_key`), whoever runs it and however often. Delivery is
another matter and reads the events.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NoReturn, Protocol

from gateway.jobs.rounds import repeat

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.ledger.events import EventRow

INTERVAL_S = 15.0

log = logging.getLogger("tollkeeper.jobs")


class Events(Protocol):
    """What finds and records: `Ledger`."""

    async def detect_thresholds(self) -> Sequence[EventRow]:
        """The new events of accounts that have used that much of their period's credits."""

    async def detect_low_credits(self) -> Sequence[EventRow]:
        """The new events of accounts whose credits have fallen below the mark."""


class Alerts:
    """Records crossings."""

    def __init__(self, ledger: Events) -> None:
        self._ledger = ledger

    async def run(self) -> NoReturn:
        """Look until cancelled."""
        await repeat("alerts", self.detect, INTERVAL_S)

    async def detect(self) -> Sequence[EventRow]:
        """One look at everybody; the new events. Raises: LedgerUnavailable."""
        events = [*await self._ledger.detect_thresholds(), *await self._ledger.detect_low_credits()]
        for event in events:
            log.info("account %d: %s %s", event.account_id, event.kind, dict(event.detail))
        return events
