"""Tells Redis of new lots that whoever made them did not live to tell.

A lot is made in Postgres and published afterwards, by a job or an operator's command. Dying between
the two would leave the account without its credits until it is loaded anew. So each node goes
through the lots as they are made, a while later, and publishes the account where Redis has the
account but not the lot. At its start it begins a day back.

Telling is idempotent, so it does no harm that every node does this.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NoReturn, Protocol

from gateway.counters import CountersUnavailable
from gateway.jobs.rounds import repeat

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from gateway.counters import Counters
    from gateway.ledger.reconciling import MadeLot

INTERVAL_S = 15.0
PAGE_LOTS_MAX = 500
LOOK_BACK_MS = 24 * 3_600_000
# Ids are given out before transactions commit: younger lots may still have older ones come.
# Also longer than it takes to load an account that was read before the lot was made.
SETTLED_MS = 60_000
# Of so many lots one after the other Redis could not be told: it is away.
UNTOLD_MAX = 5

log = logging.getLogger("tollkeeper.jobs")


class NewLots(Protocol):
    """Lots in the order in which they were made: `Ledger`."""

    async def made_lots(
        self, after: int, limit: int, *, look_back_ms: int, settled_ms: int
    ) -> Sequence[MadeLot]:
        """Those behind an id, made in the last `look_back_ms`."""


class Telling:
    """Goes through new lots. `publish` tells Redis of an account."""

    def __init__(
        self, counters: Counters, ledger: NewLots, publish: Callable[[int], Awaitable[None]]
    ) -> None:
        self._counters = counters
        self._ledger = ledger
        self._publish = publish
        self._after = 0

    async def run(self) -> NoReturn:
        """Look until cancelled."""
        await repeat("telling", self.tell, INTERVAL_S)

    async def tell(self) -> int:
        """One round; answers how many accounts were told.

        An account that can't be told keeps no other from it. Raises: LedgerUnavailable,
        CountersUnavailable; the next round begins where this one failed first.
        """
        told = untold = 0
        failure: CountersUnavailable | None = None
        after = self._after
        while page := await self._ledger.made_lots(
            after, PAGE_LOTS_MAX, look_back_ms=LOOK_BACK_MS, settled_ms=SETTLED_MS
        ):
            for lot in page:
                try:
                    if await self._lacks(lot):
                        await self._publish(lot.account_id)
                        told += 1
                    untold = 0
                except CountersUnavailable as error:
                    failure = error
                    untold += 1
                    if untold >= UNTOLD_MAX:
                        raise
                after = lot.grant_id
                if lot.is_settled and failure is None:
                    self._after = after
        if told:
            log.warning("Redis was told of %d lots that nobody had told it of", told)
        if failure is not None:
            raise failure
        return told

    async def _lacks(self, lot: MadeLot) -> bool:
        """Whether Redis has the account's balance without this lot."""
        keys = self._counters.keys(lot.account_id)
        available = f"a:{lot.grant_id}"
        epoch, known = await self._counters.command("HMGET", keys.name, "epoch", available)
        return epoch is not None and known is None
