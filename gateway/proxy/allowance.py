"""How much more of a stream its hold covers, and raising the hold in steps while it passes.

    covered ──a chunk over the threshold──► asked ──Raised──► covered
                                              └──refused──► exhausted: the stream ends here

What a stream has used is what its meters have read by now or, where they have read nothing, what
has passed suggests. Four bytes, the guess for answers that do not come in events, end none. From
that a threshold of units is computed, once per step; a chunk costs no more than comparing with it.
An answer that is paid by time is looked at with every chunk.

Redis decides whether the hold can be raised, against credits and caps, so nothing passes that
nobody could pay. When Redis can't be asked the stream goes on, and is charged at its end as far as
the credits go.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Protocol

from gateway import errors
from gateway.counters import CountersUnavailable
from gateway.errors import Refusal, refusal_of
from policies.catalog import OnMissing
from policies.decision import HoldGone, Raised, ShardLost
from policies.meters import UNITS_MAX
from policies.meters.reading import Reading
from policies.pricing import at_most, dearest
from policies.units import BASIS_POINTS, PICOCREDITS_PER_MICROCREDIT

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from gateway.counters import AccountKeys
    from gateway.proxy.hold import Hold
    from policies.decision import Raising
    from policies.meters import CallMeter, MeterPlan
    from policies.terms import Terms

# What meters have read is looked at once per so many chunks; what they estimate, with every one.
CHUNKS_PER_READING = 16
# The first hold raised by this part of it makes a step.
STEPS_PER_CEILING = 2

log = logging.getLogger("tollkeeper.proxy")


class Raises(Protocol):
    """Where holds are raised: `Counters`."""

    async def raise_hold(  # noqa: PLR0917 - as it is
        self,
        keys: AccountKeys,
        call_id: str,
        key_id: bytes,
        least: int,
        target: int,
        session: str = "",
        rules: bytes = b"",
    ) -> Raising:
        """Reserve more for a running call."""


def ask_for(raises: Raises, hold: Hold, least: int, target: int) -> Awaitable[Raising]:
    """Have a running call's hold raised to `target` microcredits, or to `least` at the least.

    Raises: CountersUnavailable, when awaited.
    """
    principal, offer = hold.principal, hold.offer
    return raises.raise_hold(
        principal.keys, hold.call_id, principal.key_id, least, target, hold.session, offer.rules
    )


class Allowance:
    """Watches over one stream."""

    __slots__ = (
        "_chunks",
        "_counters",
        "_elapsed_ms",
        "_estimated",
        "_guards",
        "_limits",
        "_meter",
        "_prices",
        "_step",
        "_timed",
        "lent",
        "passed",
    )

    def __init__(
        self,
        hold: Hold,
        meter: CallMeter,
        counters: Raises,
        plan: MeterPlan,
        elapsed_ms: Callable[[], int],
    ) -> None:
        """`plan` is the meter's, `elapsed_ms` how long the call has taken."""
        terms = hold.terms
        meters = terms.price.meters if terms.price is not None else ()
        self._meter = meter
        self._counters = counters
        self._timed = plan.timed
        self._elapsed_ms = elapsed_ms
        # A caller's bound has to be seen while the answer passes, whatever missing units cost.
        self._estimated = [
            (plan.streamed or spec.estimate_from is not None)
            and (terms.bound is not None or spec.on_missing in {None, OnMissing.ESTIMATE})
            for spec in meters
        ]
        self._prices = [dearest(spec) for spec in meters]
        self._step = max(hold.held // STEPS_PER_CEILING, 1)
        self._chunks = 0
        self.lent = 0  # microcredits that may have passed while Redis could not be asked for them
        self.passed = (0,) * len(meters)  # units that what was passed on suggests
        self._limits: list[int] = []  # units up to which nothing has to be asked
        self._guards: list[int] = []  # the same for the estimates of units that nobody has read
        self._rest_on(terms, Reading((None,) * len(meters), self.passed))

    def covered(self) -> bool:
        """Whether the hold pays for what has passed, this chunk included. Hot."""
        estimates = self._meter.estimates()
        for count, limit in zip(estimates, self._guards, strict=True):
            if count > limit:
                return False
        self._chunks += 1
        if (self._timed or not self._chunks % CHUNKS_PER_READING) and self._over():
            return False
        self.passed = estimates
        return True

    async def cover(self, hold: Hold) -> Hold | Refusal:
        """Raise the hold for what has passed and a step more; or why the stream has to end."""
        terms = hold.terms
        seen = self._seen()
        cost = at_most(terms, self._used(seen))
        if cost <= hold.held:
            self._rest_on(terms, seen)
            return self._reserving(hold)
        bound = terms.bound
        if bound is not None and cost > bound:
            return errors.above_bound(cost, bound)
        target = max(hold.held + self._step, cost)
        if bound is not None:
            target = min(target, bound)
        decision: Raising | CountersUnavailable
        try:
            decision = await ask_for(self._counters, hold, cost, target)
        except CountersUnavailable as failure:
            decision = failure
        match decision:
            case Raised(held=held, allocation=allocation, counted=counted):
                hold = hold.raised(held, allocation, counted)
                self._rest_on(hold.terms, seen)
            case HoldGone() | ShardLost() | CountersUnavailable():
                log.warning("call %s: its hold can't be raised: %r", hold.call_id, decision)
                self.lent = cost + self._step if bound is None else min(cost + self._step, bound)
                self._rest_on(terms._replace(ceiling=self.lent), seen)
            case _:
                return refusal_of(decision, hold.offer.upgrade_url)
        return self._reserving(hold)

    def reading(self) -> Reading:
        """What was read of a stream that ends here: its last chunk did not pass."""
        return self._meter.reading(self._elapsed_ms())._replace(estimates=self.passed)

    def _seen(self) -> Reading:
        return self._meter.so_far(self._elapsed_ms() if self._timed else 0)

    def _used(self, seen: Reading) -> list[int]:
        return [
            units if units is not None else estimate if estimated else 0
            for units, estimate, estimated in zip(
                seen.units, seen.estimates, self._estimated, strict=True
            )
        ]

    def _over(self) -> bool:
        used = self._used(self._seen())
        return any(count > limit for count, limit in zip(used, self._limits, strict=True))

    def _rest_on(self, terms: Terms, seen: Reading) -> None:
        """Let pass what these terms hold for, beyond what was seen."""
        self.passed = seen.estimates
        self._limits = self._thresholds(terms, self._used(seen))
        self._guards = [
            limit if estimated and units is None else UNITS_MAX
            for limit, estimated, units in zip(
                self._limits, self._estimated, seen.units, strict=True
            )
        ]

    def _reserving(self, hold: Hold) -> Hold:
        """The hold with the units that it stands for by now: as many as reach the thresholds."""
        reserves = [
            limit if estimated and limit < UNITS_MAX else reserve
            for reserve, limit, estimated in zip(
                hold.terms.reserves, self._limits, self._estimated, strict=True
            )
        ]
        return hold._replace(terms=hold.terms._replace(reserves=tuple(reserves)))

    def _thresholds(self, terms: Terms, used: Sequence[int]) -> list[int]:
        """For each meter the units up to which the hold is enough, whatever the others count."""
        price = terms.price
        maximum = price.maximum_microcredits if price is not None else None
        if terms.discount == BASIS_POINTS or (maximum is not None and terms.ceiling >= maximum):
            return [UNITS_MAX] * len(used)  # nothing costs more than that
        meters = price.meters if price is not None else ()
        left = (terms.ceiling - at_most(terms, used)) * PICOCREDITS_PER_MICROCREDIT
        left = left * BASIS_POINTS // (BASIS_POINTS - terms.discount)
        priced = sum(1 for pico in self._prices if pico)
        return [
            max(count, spec.included_units) + max(left, 0) // (pico * priced) if pico else UNITS_MAX
            for count, pico, spec in zip(used, self._prices, meters, strict=True)
        ]
