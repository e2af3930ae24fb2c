"""Tells Redis of what was changed or given that whoever did it did not live to tell.

A lot is made in Postgres, or added to by a refund or an adjustment, and published afterwards, by a
job or by people. Dying between the two would leave the account without its credits until it is
loaded anew. So each node goes through the lots as they are made or added to, a while later, and
publishes the account where Redis has the account but not the lot, or not all of it. At its start it
begins a day back.

An account whose status, plan or discount has changed, or one of its keys, is noted in the change's
own transaction until Redis was told (`untold_accounts`). What stays there is told here: a revoked
key must not go on because somebody died, or because Redis was away.

Telling is idempotent, so it does no harm that every node does this.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, NoReturn, Protocol

from gateway.counters import CountersUnavailable
from gateway.jobs.rounds import repeat

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from gateway.counters import Counters
    from gateway.ledger.reconciling import CreditedLot, MadeLot

INTERVAL_S = 15.0
PAGE_LOTS_MAX = 500
PAGE_ACCOUNTS_MAX = 1_000
# Who has changed an account tells Redis in less, if it can.
CHANGED_MS = 10_000
LOOK_BACK_MS = 24 * 3_600_000
# Ids are given out before transactions commit: younger lots may still have older ones come.
# Also longer than it takes to load an account that was read before the lot was made.
SETTLED_MS = 60_000
# Of so many lots one after the other Redis could not be told: it is away.
UNTOLD_MAX = 5

log = logging.getLogger("tollkeeper.jobs")


class GivenLots(Protocol):
    """Lots as they are made and added to: `Ledger`."""

    async def made_lots(
        self, after: int, limit: int, *, look_back_ms: int, settled_ms: int
    ) -> Sequence[MadeLot]:
        """Those behind an id, made in the last `look_back_ms`, in the order of their making."""

    async def credited_lots(
        self, after: int, limit: int, *, look_back_ms: int
    ) -> Sequence[CreditedLot]:
        """Those behind an id that were added to in the last `look_back_ms`, by id."""

    async def untold_accounts(self, *, older_than_ms: int, limit: int) -> Sequence[int]:
        """Accounts whose last change is so old and was not told, the oldest first."""


class Telling:
    """Goes through what was given. `publish` tells Redis of an account."""

    def __init__(
        self, counters: Counters, ledger: GivenLots, publish: Callable[[int], Awaitable[None]]
    ) -> None:
        self._counters = counters
        self._ledger = ledger
        self._publish = publish
        self._after = 0
        self._credited_s: float | None = None  # when all that was added to was last seen to
        self._told = 0
        self._untold = 0  # one after the other
        self._failure: CountersUnavailable | None = None

    async def run(self) -> NoReturn:
        """Look until cancelled."""
        await repeat("telling", self.tell, INTERVAL_S)

    async def tell(self) -> int:
        """One round; answers how many accounts were told.

        An account that can't be told keeps no other from it. Raises: LedgerUnavailable,
        CountersUnavailable; the next round begins where this one failed first.
        """
        self._told = self._untold = 0
        self._failure = None
        await self._tell_changed()
        await self._tell_made()
        await self._tell_credited()
        if self._told:
            log.warning("Redis was told of %d changes that nobody had told it of", self._told)
        if self._failure is not None:
            raise self._failure
        return self._told

    async def _tell_changed(self) -> None:
        for account_id in await self._ledger.untold_accounts(
            older_than_ms=CHANGED_MS, limit=PAGE_ACCOUNTS_MAX
        ):
            try:
                await self._publish(account_id)
                self._told += 1
            except CountersUnavailable as error:
                self._failure = error
                return

    async def _tell_made(self) -> None:
        after = self._after
        while page := await self._ledger.made_lots(
            after, PAGE_LOTS_MAX, look_back_ms=LOOK_BACK_MS, settled_ms=SETTLED_MS
        ):
            for lot in page:
                await self._tell_of(lot, None)
                after = lot.grant_id
                if lot.is_settled and self._failure is None:
                    self._after = after

    async def _tell_credited(self) -> None:
        now_s = asyncio.get_running_loop().time()
        look_back_ms = LOOK_BACK_MS
        if self._credited_s is not None:
            look_back_ms = min(int((now_s - self._credited_s) * 1000) + SETTLED_MS, LOOK_BACK_MS)
        after = 0
        while page := await self._ledger.credited_lots(
            after, PAGE_LOTS_MAX, look_back_ms=look_back_ms
        ):
            for lot in page:
                await self._tell_of(lot, lot.total_microcredits)
            after = page[-1].grant_id
        if self._failure is None:
            self._credited_s = now_s

    async def _tell_of(self, lot: MadeLot | CreditedLot, total: int | None) -> None:
        """Publish the account if Redis lacks the lot, or some of its total."""
        try:
            if await self._lacks(lot, total):
                await self._publish(lot.account_id)
                self._told += 1
            self._untold = 0
        except CountersUnavailable as error:
            self._failure = error
            self._untold += 1
            if self._untold >= UNTOLD_MAX:
                raise

    async def _lacks(self, lot: MadeLot | CreditedLot, total: int | None) -> bool:
        """Whether Redis has the account's balance without this lot, or without so much of it."""
        keys = self._counters.keys(lot.account_id)
        fields = [f"{kind}:{lot.grant_id}" for kind in "ahsw"]
        epoch, *parts = await self._counters.command("HMGET", keys.name, "epoch", *fields)
        if epoch is None:
            return False
        if parts[0] is None:
            return True
        return total is not None and sum(map(int, parts)) < total
