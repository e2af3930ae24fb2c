"""How much more of a stream its hold covers, and raising the hold in steps while it passes.

    covered ──a chunk over the threshold──► asked ──Raised──► covered
                                              └──refused──► exhausted: the stream ends here

What a stream has used is what its meters have read by now or, where they have read nothing, what
has passed suggests. From that a threshold of units is computed, once per step; a chunk costs no
more than comparing with it. Redis decides whether the hold can be raised, against credits and caps,
so nothing passes that nobody could pay. When Redis can't be asked the stream goes on, and is
charged at its end as far as the credits go.
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
from policies.pricing import at_most, dearest
from policies.units import PICOCREDITS_PER_MICROCREDIT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.counters import AccountKeys
    from gateway.proxy.hold import Hold
    from policies.decision import Raising
    from policies.meters import CallMeter
    from policies.meters.reading import Reading
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


class Allowance:
    """Watches over one stream."""

    __slots__ = (
        "_chunks",
        "_counters",
        "_estimated",
        "_limits",
        "_meter",
        "_prices",
        "_step",
        "passed",
    )

    def __init__(self, hold: Hold, meter: CallMeter, counters: Raises) -> None:
        price = hold.terms.price
        meters = price.meters if price is not None else ()
        self._meter = meter
        self._counters = counters
        self._estimated = [spec.on_missing in {None, OnMissing.ESTIMATE} for spec in meters]
        self._prices = [dearest(spec) for spec in meters]
        self._step = max(hold.held // STEPS_PER_CEILING, 1)
        self._chunks = 0
        self.passed = (0,) * len(meters)  # units that what was passed on suggests
        self._limits = self._thresholds(hold.terms, (0,) * len(meters))

    def covered(self) -> bool:
        """Whether the hold pays for what has passed, this chunk included. Hot."""
        estimates = self._meter.estimates()
        for count, limit in zip(estimates, self._limits, strict=True):
            if count > limit:
                return False
        self._chunks += 1
        if not self._chunks % CHUNKS_PER_READING and self._over(self._used()):
            return False
        self.passed = estimates
        return True

    async def cover(self, hold: Hold) -> Hold | Refusal:
        """Raise the hold for what has passed and a step more; or why the stream has to end."""
        terms = hold.terms
        used = self._used()
        cost = at_most(terms, used)
        if cost <= hold.held and not self._over(used):
            self.passed = self._meter.estimates()
            return hold
        bound = terms.bound
        if bound is not None and cost > bound:
            return errors.above_bound(cost, bound)
        least = max(cost, hold.held + 1)
        target = max(hold.held + self._step, least)
        if bound is not None:
            least, target = min(least, bound), min(target, bound)
        decision: Raising | CountersUnavailable
        try:
            decision = await self._counters.raise_hold(
                hold.principal.keys,
                hold.call_id,
                hold.principal.key_id,
                least,
                target,
                hold.session,
                hold.offer.rules,
            )
        except CountersUnavailable as failure:
            decision = failure
        match decision:
            case Raised(held=held, allocation=allocation, counted=counted):
                hold = hold.raised(held, allocation, counted)
                self._limits = self._thresholds(hold.terms, used)
                self.passed = self._meter.estimates()
                return hold._replace(terms=hold.terms._replace(reserves=self._reserves(hold.terms)))
            case HoldGone() | ShardLost() | CountersUnavailable():
                log.warning("call %s: its hold can't be raised: %r", hold.call_id, decision)
                beyond = terms._replace(ceiling=cost + self._step)
                self._limits = self._thresholds(beyond, used)
                self.passed = self._meter.estimates()
                return hold
        return refusal_of(decision, None)

    def reading(self, elapsed_ms: int) -> Reading:
        """What was read of a stream that ends here: its last chunk did not pass."""
        return self._meter.reading(elapsed_ms)._replace(estimates=self.passed)

    def _used(self) -> tuple[int, ...]:
        reading = self._meter.so_far()
        estimates = reading.estimates or (0,) * len(reading.units)
        return tuple(
            [
                units if units is not None else estimate if estimated else 0
                for units, estimate, estimated in zip(
                    reading.units, estimates, self._estimated, strict=True
                )
            ]
        )

    def _reserves(self, terms: Terms) -> tuple[int, ...]:
        """Units that the raised hold stands for: as many as reach the thresholds."""
        return tuple(
            [
                max(reserve, limit) if limit < UNITS_MAX else reserve
                for reserve, limit in zip(terms.reserves, self._limits, strict=True)
            ]
        )

    def _over(self, used: Sequence[int]) -> bool:
        return any(count > limit for count, limit in zip(used, self._limits, strict=True))

    def _thresholds(self, terms: Terms, used: Sequence[int]) -> list[int]:
        """For each meter the units up to which the hold is enough, whatever the others count."""
        price = terms.price
        maximum = price.maximum_microcredits if price is not None else None
        if maximum is not None and terms.ceiling >= maximum:
            return [UNITS_MAX] * len(used)  # nothing costs more than that
        left = (terms.ceiling - at_most(terms, used)) * PICOCREDITS_PER_MICROCREDIT
        priced = sum(1 for pico in self._prices if pico)
        return [
            count + max(left, 0) // (pico * priced) if pico else UNITS_MAX
            for count, pico in zip(used, self._prices, strict=True)
        ]
