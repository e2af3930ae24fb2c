"""The calls that run in this worker: whose leases are renewed, and who is told to a new shard.

A call is here from its admission until it has left its hold behind for good: Redis has settled it
and the writer has the row; or its late settlement is in Postgres; or it is voided. So whatever a
shard loses, each of its calls is in one of these places or in here (gateway/recovery asks for it).

Leases are short, so that nobody waits long for the credits of a worker that died, and renewed every
third of their time: two renewals may fail before one runs out. With the renewal of a metered stream
goes what it would cost if nothing more were heard of it. Nothing is timed per call: a round renews
what the round before has seen already.

Rounds of a call:  0 not seen yet   1 seen, the lease is the admission's   2… renewed
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Protocol

from gateway.counters import CountersUnavailable
from policies.catalog import Ending
from policies.decision import ShardLost
from policies.pricing import due_if_lost
from policies.rebuild import HoldText
from policies.settlement import units_text

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from gateway.counters import AccountKeys
    from gateway.proxy.hold import Hold
    from policies.meters import CallMeter

HELD, DISPATCHED = 0, 1
RENEWED = 2  # rounds from which on a call's lease is not its admission's
RENEWALS_PER_LEASE = 3
# After a round that failed the next one does not wait for its time.
RETRY_S = 1.0
# Checkpoints computed in one go: bounds how long other calls wait for them.
RENEW_BATCH = 100

log = logging.getLogger("tollkeeper.proxy")

# Call id, stage, microcredits due if the call is lost (None: as at its admission), units seen.
Checkpoint = tuple[str, int, int | None, str]


class Leases(Protocol):
    """Where leases are renewed and calls marked: `Counters`."""

    def dispatched(self, keys: AccountKeys, call_id: str, deadline_ms: int) -> Awaitable[None]:
        """Note that a call is sent on."""

    async def extend(
        self, shard: int, lease_ms: int, calls: Sequence[Checkpoint]
    ) -> list[str] | ShardLost:
        """Renew leases; answers the ids of calls that have no hold."""


class LiveCall(Protocol):
    """A call under way: `Exchange`."""

    hold: Hold
    stage: int  # HELD or DISPATCHED
    rounds: int  # of renewal that have seen it
    meter: CallMeter | None  # of an answer that is streaming

    def elapsed_ms(self) -> int:
        """How long it has run."""


class LiveCalls:
    """The registry. Hot: `calls` is a plain dict, entered and left by whoever runs the call."""

    def __init__(
        self,
        leases: Leases,
        lease_ms: int,
        lost: Callable[[ShardLost, int], object],
    ) -> None:
        """`lost` sees to a shard that has lost its data, without waiting for it."""
        self.calls: dict[str, LiveCall] = {}
        self._leases = leases
        self._lease_ms = lease_ms
        self._lost = lost

    def mark(self, call: LiveCall) -> Awaitable[None]:
        """Note that a call is sent on: to be awaited before the first byte goes out.

        Raises: CountersUnavailable when Redis can't be told, or the hold has run out meanwhile.
        """
        call.stage = DISPATCHED
        hold = call.hold
        if call.rounds >= RENEWED:
            # Its lease ends later than this worker knows, and a mark never shortens one.
            return self._mark_renewed(hold)
        return self._leases.dispatched(
            hold.principal.keys, hold.call_id, hold.admitted.admitted_ms + self._lease_ms
        )

    def of_shard(self, shard: int) -> list[tuple[str, str, int]]:
        """Call id, text of the hold and stage of every call of a shard, as of now.

        A rebuilt shard gives them new leases, so they count as renewed from now on.
        """
        told = []
        for call_id, call in self.calls.items():
            if call.hold.principal.keys.shard == shard:
                told.append((call_id, hold_text(call), call.stage))
                call.rounds = max(call.rounds, RENEWED)
        return told

    async def run(self) -> None:
        """Renew leases until cancelled."""
        interval_s = self._lease_ms / 1000 / RENEWALS_PER_LEASE
        wait_s = interval_s
        while True:
            await asyncio.sleep(wait_s)
            try:
                await self.renew()
                wait_s = interval_s
            except CountersUnavailable as error:
                log.warning("leases could not be renewed: %s", error)
                wait_s = min(RETRY_S, interval_s)
            except Exception:
                log.exception("leases could not be renewed")
                wait_s = min(RETRY_S, interval_s)

    async def renew(self) -> None:
        """One round: renew what the round before has seen.

        Raises: CountersUnavailable.
        """
        due: dict[int, list[tuple[str, LiveCall]]] = {}
        for call_id, call in self.calls.items():
            if call.rounds:
                due.setdefault(call.hold.principal.keys.shard, []).append((call_id, call))
            call.rounds += 1
        for shard, calls in due.items():
            for start in range(0, len(calls), RENEW_BATCH):
                await self._renew(shard, calls[start : start + RENEW_BATCH])

    async def _renew(self, shard: int, calls: list[tuple[str, LiveCall]]) -> None:
        told = [
            (call_id, call.stage, *_checkpoint(call))
            for call_id, call in calls
            if call_id in self.calls
        ]
        if not told:
            return
        missing = await self._leases.extend(shard, self._lease_ms, told)
        if isinstance(missing, ShardLost):
            # Whoever rebuilds it is told of these calls, and gives them a new lease.
            self._lost(missing, shard)
            return
        gone = [call_id for call_id in missing if call_id in self.calls]
        if gone:
            log.warning("%d calls outlived their holds; they settle late: %s", len(gone), gone)

    async def _mark_renewed(self, hold: Hold) -> None:
        shard = hold.principal.keys.shard
        missing = await self._leases.extend(
            shard, self._lease_ms, [(hold.call_id, DISPATCHED, None, "")]
        )
        if missing:
            raise CountersUnavailable(f"the hold is not there to be sent on: {missing}")


def hold_text(call: LiveCall) -> str:
    """The text of a call's hold, with what it would cost if it were lost now."""
    _, principal, offer, admitted, session, terms = call.hold
    due, units = _checkpoint(call)
    context = (principal.contexts + offer.context_suffix).decode() + session
    return str(
        HoldText(
            account_id=principal.account_id,
            admitted_ms=admitted.admitted_ms,
            held=terms.ceiling,
            due=terms.due if due is None else due,
            units=units,
            counted=admitted.counted,
            allocation=admitted.allocation,
            context=context,
        )
    )


def _checkpoint(call: LiveCall) -> tuple[int | None, str]:
    """What is due if the call is lost now, and the units seen; None where nothing is metered."""
    meter = call.meter
    hold = call.hold
    terms = hold.terms
    if meter is None or terms.price is None:
        return None, ""
    reading = meter.reading(call.elapsed_ms())
    due = due_if_lost(terms, hold.offer.route.rules[Ending.UNKNOWN], reading)
    return due, units_text(terms.price, reading)
