"""The end of a hold: what the call owes is told to Redis, which charges it, and kept for Postgres.

The states of a call's money, and the write that leaves each:

    held ──settle.lua──► settled ──commit──► recorded ──delete──► forgotten
      │                  (outbox and this     (Postgres and        (Postgres)
      │                   worker's writer)     the outbox)
      ├──insert──► late (Postgres) ──a job: late.lua──► settled, or an adjustment
      └──void.lua──► voided

What a death of this worker leaves after each (I2, I4, I5):

  held       the lease ends it: undone if it was never sent on, else at what was last known of it
  settled    the sweeper carries the outbox entry to Postgres
  recorded   the sweeper inserts again, in vain (the call id is the primary key), and deletes
  late       the job applies it: it needs no worker

Redis decides every charge, so a settlement is born in a script only. A call that ends while Redis
can't be asked, or that Redis has no hold of any more, becomes late; what is kept only in this
memory, because Postgres is away too, is told in late.py. A shard that is lost or being rebuilt is
waited for a while: its rebuilding restores the hold. Whatever is repeated has the same call id.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Protocol

from gateway.clock import now_ms
from gateway.counters import CountersUnavailable
from gateway.proxy.hold import NO_BILL, End, Receipt, bill, settlement_of, steps_text
from policies.decision import Moved, Settled, ShardLost
from policies.settlement import result_blob

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from gateway.counters import Counters
    from gateway.proxy.hold import Bill, Hold
    from gateway.proxy.late import LateSettler, Writer
    from gateway.proxy.live import LiveCall
    from policies.catalog import Ending
    from policies.decision import Settling
    from policies.meters.reading import Reading

# A rebuild takes seconds when a worker does not report; each attempt waits for some.
VOID_ATTEMPTS_MAX = 5
# How often a price with graduated tiers is computed again because other calls of the account were
# settled in between. Each time at least one of them was, so it takes as many that cross a tier's
# bound at this moment; then the last figure counts.
MOVES_MAX = 32

log = logging.getLogger("tollkeeper.proxy")


class Shards(Protocol):
    """Sees to shards that were lost."""

    async def ready(self, lost: ShardLost, shard: int) -> bool:
        """Whether the shard can be asked again, after waiting a while for it at most."""


class Settler:
    """Settles and voids holds."""

    def __init__(
        self,
        counters: Counters,
        writer: Writer,
        late: LateSettler,
        shards: Shards,
        calls: MutableMapping[str, LiveCall],
    ) -> None:
        """`calls` is the registry of live calls, which a call leaves when it is safe."""
        self._counters = counters
        self._writer = writer
        self._late = late
        self._shards = shards
        self._calls = calls

    async def settle(self, hold: Hold, ending: Ending, status: int, reading: Reading) -> Receipt:
        """Charge what the ending costs.

        Exactly one settlement comes of it, however often parts of this are retried.
        """
        call_id = hold.call_id
        reason: Settling | Moved | CountersUnavailable
        billed = NO_BILL
        try:
            billed = bill(hold, ending, reading)
            owed, flags, metered, steps = billed
            result = result_blob(ending, status, metered, flags).encode("ascii")
            if steps:
                billed, result, outcome = await self._settle_tiered(
                    hold, ending, status, reading, billed
                )
                _, flags, metered, _ = billed
            else:
                outcome = await self._counters.settle(
                    hold.principal.keys, call_id, owed, result, hold.session
                )
            if type(outcome) is ShardLost:
                outcome = await self._settle_again(hold, billed, result, outcome)
            if type(outcome) is Settled:
                self._writer.add(settlement_of(hold, ending, status, metered, flags, outcome))
                self._calls.pop(call_id, None)
                hold.offer.traffic.count(outcome.charged)
                return Receipt(outcome.charged, outcome.remaining)
            reason = outcome
        except CountersUnavailable as failure:
            reason = failure
            billed = bill(hold, ending, reading) if billed.steps else billed  # it may have moved
        except Exception:
            # A mistake of ours: without it here the hold would be renewed for ever.
            self._calls.pop(call_id, None)
            raise
        log.warning("call %s: settles late: %r", call_id, reason)
        end = End(ending, status, billed.units, billed.flags, billed.owed, now_ms(), billed.steps)
        redis = isinstance(reason, CountersUnavailable | ShardLost)
        return await self._late.settle(hold, end, redis=redis)

    async def _settle_tiered(
        self, hold: Hold, ending: Ending, status: int, reading: Reading, billed: Bill
    ) -> tuple[Bill, bytes, Settling | Moved]:
        """Charge a price with graduated tiers: billed again while the account's use moves on."""
        used = hold.principal.used
        route_id = hold.offer.route.id
        for attempt in range(MOVES_MAX + 1):
            result = result_blob(ending, status, billed.units, billed.flags).encode("ascii")
            steps = steps_text(route_id, billed.steps, exact=attempt < MOVES_MAX)
            outcome = await self._counters.settle(
                hold.principal.keys, hold.call_id, billed.owed, result, hold.session, steps
            )
            if not isinstance(outcome, Moved):
                break
            for step, position in zip(billed.steps, outcome.positions, strict=True):
                used[route_id, step.unit] = position
            billed = bill(hold, ending, reading)
        return billed, result, outcome

    async def void(self, hold: Hold) -> None:
        """Give everything back: the call was never sent on.

        It stays among the live calls meanwhile, so that a lost shard is told of it before.
        """
        keys = hold.principal.keys
        try:
            for _ in range(VOID_ATTEMPTS_MAX):
                outcome = await self._counters.void(keys, hold.call_id, hold.session)
                if not isinstance(outcome, ShardLost):
                    break
                await self._shards.ready(outcome, keys.shard)
        except CountersUnavailable:
            self._counters.void_later(keys, hold.call_id, hold.session)
        finally:
            self._calls.pop(hold.call_id, None)

    async def _settle_again(
        self, hold: Hold, billed: Bill, result: bytes, lost: ShardLost
    ) -> Settling | Moved:
        """Settle once a lost shard is there again: a live call's hold is restored in it.

        A price with tiers then stays as it was computed before.
        """
        keys = hold.principal.keys
        if not await self._shards.ready(lost, keys.shard):
            return lost
        steps = steps_text(hold.offer.route.id, billed.steps, exact=False)
        return await self._counters.settle(
            keys, hold.call_id, billed.owed, result, hold.session, steps
        )
