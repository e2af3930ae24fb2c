"""Charges calls that ended while Redis could not be asked, and ends holds that nobody renews.

Both in one round, in this order: what is known of a call's end counts before what its hold says.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NoReturn

from gateway.counters import CountersUnavailable
from gateway.jobs.rounds import repeat
from gateway.ledger import LedgerUnavailable

if TYPE_CHECKING:
    from gateway.jobs.reaper import LostShards, Reaper
    from gateway.recovery.late import LateApplier
    from policies.decision import ShardLost

INTERVAL_S = 1.0

log = logging.getLogger("tollkeeper.jobs")


class Endings:
    """Late settlements, then the reaper."""

    def __init__(self, late: LateApplier, reaper: Reaper, lost_shards: LostShards) -> None:
        self._late = late
        self._reaper = reaper
        self._lost_shards = lost_shards

    async def run(self) -> NoReturn:
        """Both, again and again, until cancelled."""
        await repeat("endings", self.end, INTERVAL_S)

    async def end(self) -> tuple[int, int]:
        """One round: late settlements that were applied, holds that were ended.

        Leases are over whether or not Postgres answers. Raises: LedgerUnavailable afterwards;
        CountersUnavailable.
        """
        applied = 0
        failure: LedgerUnavailable | CountersUnavailable | None = None
        try:
            applied = await self._late.apply(self._lost)
        except (LedgerUnavailable, CountersUnavailable) as error:
            failure = error
        ended = await self._reaper.reap()
        if failure is not None:
            raise failure
        if applied:
            log.info("%d calls that ended while Redis was away were charged", applied)
        return applied, ended

    def _lost(self, shard: int, lost: ShardLost) -> None:
        self._lost_shards.begin(lost, shard)
