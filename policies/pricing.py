"""Turns units of work into microcredits: before the call (ceiling) and after it (final).

A cost is `per_request + sum of units x unit price`, kept between the price's minimum and maximum.
Unit prices are picocredits; the sum is rounded once, up to the next microcredit, so that splitting
work over several meters never changes what it costs. Every amount here is an integer in
[0, `AMOUNT_MICROCREDITS_MAX`].
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from policies.units import AMOUNT_MICROCREDITS_MAX, format_credits, round_up_to_microcredits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from policies.catalog import Price


class Final(NamedTuple):
    """What a call cost, and whether a meter read nothing so that its reserve was taken instead."""

    microcredits: int
    missing: bool


def ceiling(price: Price) -> int:
    """Microcredits to reserve before the call: every meter at its `reserve_units`.

    No call costs more as long as it stays within the units that were reserved for it.
    """
    return _bounded(price, _unbounded(price, [meter.reserve_units for meter in price.meters]))


def floor(price: Price) -> int:
    """Microcredits of a call that did no metered work; what an expired hold costs.

    Never above the ceiling.
    """
    return _bounded(price, price.per_request_microcredits)


def final(price: Price, units: Sequence[int | None]) -> Final:
    """Microcredits of the units that were read: one entry per meter, in the price's order.

    None (nothing could be read) counts as that meter's `reserve_units`: an agent that stops
    reporting its usage must not make its calls free.
    """
    missing = False
    picocredits = 0
    for meter, count in zip(price.meters, units, strict=True):
        if count is None:
            missing = True
            picocredits += meter.reserve_units * meter.picocredits_per_unit
        else:
            picocredits += count * meter.picocredits_per_unit
    cost = price.per_request_microcredits + round_up_to_microcredits(picocredits)
    return Final(_bounded(price, cost), missing)


def mistake_in(price: Price) -> str | None:
    """Tries a price on sample usage; what is wrong with it, for the person who wrote it."""
    maximum = price.maximum_microcredits
    if maximum is not None and maximum < price.minimum_microcredits:
        return (
            f'maximum "{format_credits(maximum)}" is below '
            f'minimum "{format_credits(price.minimum_microcredits)}"'
        )
    reserved = [meter.reserve_units for meter in price.meters]
    if _unbounded(price, reserved) > AMOUNT_MICROCREDITS_MAX and maximum is None:
        return "a call at its reserve_units costs 2^53 microcredits or more; reserve fewer units"
    if ceiling(price) == 0:
        return (
            "a call would reserve nothing and could never be refused: give per_request, minimum, "
            "or a meter with credits_per_unit and reserve_units above zero (or say free = true)"
        )
    return None


def _unbounded(price: Price, units: Sequence[int]) -> int:
    picocredits = sum(
        count * meter.picocredits_per_unit for meter, count in zip(price.meters, units, strict=True)
    )
    return price.per_request_microcredits + round_up_to_microcredits(picocredits)


def _bounded(price: Price, microcredits: int) -> int:
    maximum = price.maximum_microcredits
    if maximum is None:
        maximum = AMOUNT_MICROCREDITS_MAX
    return min(max(microcredits, price.minimum_microcredits), maximum)
