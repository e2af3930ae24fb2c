"""Begins billing periods: what the plan gives is there ahead of time, each period exactly once.

A lot says from when it pays, so the next period's lots are given up to RENEW_AHEAD_S before it
begins, and Redis is told in time: there is no moment at which the old credits have ended and the
new ones are not known. The account's period itself moves when it is over, for quotas and
thresholds go by it.

    when                 step                                 after a death there
    -------------------  -----------------------------------  --------------------------------------
    a period ends soon   1 give the next one's lots           once, by their business keys; step 3
                                                              tells Redis of them at the latest
                         2 publish the account                the same
    a period is over     3 give and publish, if nobody did    the account is still due
                         4 move the period                    once, by the period that is over
                         5 publish its new end                an end is told again with the lots of
                                                              the next period, before it matters

Whoever does a step that somebody else has done changes nothing, so any number of nodes may run
this. After a long time without any, periods are made up for one by one: what a past one gave has
ended when it is given, and is withdrawn (or rolled over) by the expiry job.

Only Postgres' clock counts: a node whose clock is ahead renews nothing early.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NoReturn, Protocol

from gateway.counters import CountersUnavailable
from gateway.jobs.rounds import repeat
from gateway.ledger import LedgerRejected

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from gateway.ledger.periods import DueRenewal

INTERVAL_S = 5.0
RENEW_AHEAD_S = 3_600
# Pages of due accounts in one round, and with it the periods that one account can make up for.
PAGES_MAX = 100
# Of so many accounts one after the other Redis could not be told: it is away, and not they at odds.
UNTOLD_MAX = 5

log = logging.getLogger("tollkeeper.jobs")


class Periods(Protocol):
    """Accounts' periods: `Ledger`."""

    async def renewals_ahead(self, ahead_ms: int) -> Sequence[DueRenewal]:
        """Whose period ends within so much time and who lacks the next one's lots."""

    async def due_renewals(self) -> Sequence[DueRenewal]:
        """Whose period is over."""

    async def prepare_period(self, account_id: int, over_ms: int) -> bool:
        """Give what the plan gives for the period after the one that ends then. Once."""

    async def renew(self, account_id: int, over_ms: int) -> bool:
        """Begin the period after the one that ends then. Once; False: it was begun."""


class Renewal:
    """Renews periods. `publish` tells Redis of an account."""

    def __init__(self, ledger: Periods, publish: Callable[[int], Awaitable[None]]) -> None:
        self._ledger = ledger
        self._publish = publish
        self._untold = 0  # one after the other
        self._failure: CountersUnavailable | None = None

    async def run(self) -> NoReturn:
        """Renew until cancelled."""
        await repeat("renewal", self.renew, INTERVAL_S)

    async def renew(self) -> tuple[int, int]:
        """One round; how many periods were prepared ahead, how many were begun.

        An account that Redis can't be told of keeps no other from it. Raises: LedgerUnavailable,
        CountersUnavailable; what was not done is still due, and what was not told is told by the
        telling job.
        """
        begun = prepared = 0
        self._untold, self._failure = 0, None
        for _ in range(PAGES_MAX):
            progress = 0
            for account in await self._ledger.due_renewals():
                progress += await _tried(self._begin, account)
            begun += progress
            if not progress:
                break
        for account in await self._ledger.renewals_ahead(RENEW_AHEAD_S * 1000):
            prepared += await _tried(self._prepare, account)
        if begun or prepared:
            log.info("%d periods were begun, %d prepared ahead", begun, prepared)
        if self._failure is not None:
            raise self._failure
        return prepared, begun

    async def _prepare(self, account: DueRenewal) -> bool:
        given = await self._ledger.prepare_period(account.account_id, account.period_end_ms)
        if given:
            await self._tell(account.account_id)
        return given

    async def _begin(self, account: DueRenewal) -> bool:
        await self._prepare(account)
        begun = await self._ledger.renew(account.account_id, account.period_end_ms)
        if begun:
            await self._tell(account.account_id)
        return begun

    async def _tell(self, account_id: int) -> None:
        try:
            await self._publish(account_id)
        except CountersUnavailable as error:
            self._failure = error
            self._untold += 1
            if self._untold >= UNTOLD_MAX:
                raise
        else:
            self._untold = 0


async def _tried(step: Callable[[DueRenewal], Awaitable[bool]], account: DueRenewal) -> bool:
    """Whether it was done. An account that can't be renewed must not keep others from it."""
    try:
        return await step(account)
    except LedgerRejected as error:
        log.error("account %d can't be renewed: %s", account.account_id, error)  # noqa: TRY400 -- the text says it all
        return False
