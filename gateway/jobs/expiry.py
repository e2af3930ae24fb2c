"""Takes what is left of lots that are over, expired or revoked, and rolls it over where plans do.

An ended lot pays nothing new, because every script looks at its times; what is left of it is taken
here: in Redis first, which alone knows what is available, and carried to Postgres at once. What
calls still hold of it stays theirs: the lot is visited again until they have settled or given it
back. What an expiry took of a plan's lot becomes a lot of the next period, as the plan says.

A round for one lot, step by step, and what a death after each step leaves:

    step                               after a death there
    ---------------------------------  -------------------------------------------------------------
    1 load the account, if Redis       the lot is still ended with something left in Postgres: the
      lacks it                         next round finds it again
    2 withdraw the rest, in Redis      the change is in the outbox: the sweeper carries it, and the
                                       next round finds nothing more to take
    3 carry the change to Postgres     the change is recorded; carrying it again is in vain, and it
                                       is acknowledged then
    4 give the rest again (rollover)   before: a recorded change without its lot is due; after: the
                                       change's id is the lot's business key, so there is one
    5 publish the account              the telling job tells Redis of every new lot (telling.py)

Several nodes may do this at a time: whoever comes second in 2 finds nothing available, and in 4
the lot that there is.
"""

from __future__ import annotations

import asyncio
import logging
import math
import uuid
from typing import TYPE_CHECKING, NoReturn, Protocol

from gateway.counters import CountersUnavailable
from gateway.jobs.rounds import repeat
from gateway.ledger import LedgerRejected
from gateway.ledger.periods import ROLLOVER_LOOK_BACK_MS
from policies.decision import NotLoaded, ShardLost, Withdrawn

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from gateway.counters import Counters
    from gateway.jobs.reaper import LostShards
    from gateway.ledger.lots import EndedLot
    from policies.settlement import LedgerChange, Settlement

INTERVAL_S = 5.0
PAGE_LOTS_MAX = 200
# Between looks at all expiries that may be due; and how long one may take to come to Postgres for
# the others to see it.
WHOLE_LOOK_S = 3_600.0
LOOK_OVERLAP_S = 600.0
# An account that is asked for again and again is being changed by others; the next round goes on.
LOADS_MAX = 5
# Lots whose accounts were told again because nothing was to be had of them; see `_tell_once`.
TOLD_MAX = 10_000

log = logging.getLogger("tollkeeper.jobs")


class EndedLots(Protocol):
    """What has ended, and what becomes of it: `Ledger`."""

    async def lots_to_withdraw(self, limit: int, *, after: int = 0) -> Sequence[EndedLot]:
        """Ended lots with something left, held or not, behind an id."""

    async def account_state(self, account_id: int) -> Mapping[str, str | int] | None:
        """The fields of an account that Redis does not have."""

    async def rollovers_due(self, *, look_back_ms: int) -> Sequence[LedgerChange]:
        """Expiries recorded in the last `look_back_ms` that nobody has rolled over yet."""

    async def rollover_lot(self, change: LedgerChange) -> int | None:
        """Give a rest again; the new lot, None for none. Once per change."""


class Carrier(Protocol):
    """What brings outbox entries to Postgres: `recovery.carry.Carrier`."""

    async def carry_entry(self, shard: int, outbox_id: str) -> Settlement | LedgerChange | None:
        """Carry one entry now."""


class Expiry:
    """Takes the rests of ended lots, and rolls them over. `publish` tells Redis of an account."""

    def __init__(
        self,
        counters: Counters,
        ledger: EndedLots,
        carrier: Carrier,
        lost_shards: LostShards,
        publish: Callable[[int], Awaitable[None]],
    ) -> None:
        self._counters = counters
        self._ledger = ledger
        self._carrier = carrier
        self._lost_shards = lost_shards
        self._publish = publish
        self._told: set[int] = set()
        self._look_s = self._whole_look_s = -math.inf  # what was due then was rolled over

    async def run(self) -> NoReturn:
        """Do it until cancelled."""
        await repeat("expiry", self.expire, INTERVAL_S)

    async def expire(self) -> tuple[int, int]:
        """One round; how many lots something was taken from, how many rests were given again.

        Raises: LedgerUnavailable, CountersUnavailable; a shard that does not answer does not keep
        the others' lots from being seen to.
        """
        taken = 0
        failure: CountersUnavailable | None = None
        after = 0
        while page := await self._ledger.lots_to_withdraw(PAGE_LOTS_MAX, after=after):
            for lot in page:
                try:
                    taken += await self._take(lot)
                except CountersUnavailable as error:
                    failure = error
            after = page[-1].grant_id
        rolled = await self._roll_over()
        if taken or rolled:
            log.info("%d ended lots were emptied, %d rests rolled over", taken, rolled)
        if failure is not None:
            raise failure
        return taken, rolled

    async def _take(self, lot: EndedLot) -> bool:
        keys = self._counters.keys(lot.account_id)
        change_id = uuid.uuid4().hex
        for _ in range(LOADS_MAX):
            answer = await self._counters.withdraw(
                keys, change_id, lot.kind, lot.grant_id, None, platform_id=lot.platform_id
            )
            match answer:
                case Withdrawn(outbox_id=""):
                    await self._tell_once(lot)
                    return False
                case Withdrawn():
                    await self._carrier.carry_entry(keys.shard, answer.outbox_id)
                    return True
                case NotLoaded():
                    state = await self._ledger.account_state(lot.account_id)
                    if state is None:
                        return False
                    await self._counters.load(keys, state, answer)
                case ShardLost():
                    self._lost_shards.begin(answer, keys.shard)
                    return False
        return False

    async def _tell_once(self, lot: EndedLot) -> None:
        """Calls hold what the lot has left, or Redis does not know of it.

        The latter when credits went back into a lot that had ended, and whoever gave them died
        before saying so. Telling Redis once is enough, for the next round takes what it learnt.
        """
        if lot.grant_id in self._told:
            return
        if len(self._told) >= TOLD_MAX:
            self._told.clear()
        self._told.add(lot.grant_id)
        await self._publish(lot.account_id)

    async def _roll_over(self) -> int:
        """What is due, whoever took it: a node that died may have left it.

        To go through a month of expiries takes the server 0.3 s with 100 000 accounts: that is done
        now and then, in between those are looked for that came since the last look.
        """
        now_s = asyncio.get_running_loop().time()
        whole = now_s - self._whole_look_s >= WHOLE_LOOK_S
        since_s = now_s - self._look_s + LOOK_OVERLAP_S
        look_back_ms = ROLLOVER_LOOK_BACK_MS if whole else int(since_s * 1000)
        rolled = 0
        while due := await self._ledger.rollovers_due(look_back_ms=look_back_ms):
            progress = sum([await self._roll_over_one(change) for change in due])
            rolled += progress
            if not progress:
                break
        self._look_s = now_s
        if whole:
            self._whole_look_s = now_s
        return rolled

    async def _roll_over_one(self, change: LedgerChange) -> bool:
        try:
            given = await self._ledger.rollover_lot(change) is not None
        except LedgerRejected as error:  # one that can't be must not keep the others from it
            log.error("change %s can't be rolled over: %s", change.change_id, error)  # noqa: TRY400 -- the text says it all
            return False
        if given:
            await self._publish(change.account_id)
        return given
