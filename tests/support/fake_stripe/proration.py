"""The arithmetic of part periods, discounts and tax: whole minor units, halves away from zero."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

# Percentages are kept in hundredths of a percent, so that 33.33 % is a whole number.
WHOLE = 10_000
TAX_HUNDREDTHS = 1_000


def rounded(numerator: int, denominator: int) -> int:
    """`numerator / denominator` to the nearest whole, halves away from zero. Denominator > 0."""
    whole = (2 * abs(numerator) + denominator) // (2 * denominator)
    return whole if numerator >= 0 else -whole


def part(amount: int, start_s: int, end_s: int, from_s: int) -> int:
    """What of the amount for a period is for the time from `from_s` to its end."""
    left_s = max(0, end_s - max(from_s, start_s))
    return rounded(amount * left_s, end_s - start_s)


def percent(amount: int, hundredths: int) -> int:
    """That share of an amount."""
    return rounded(amount * hundredths, WHOLE)


def shares(total: int, weights: Sequence[int]) -> list[int]:
    """Divides a total by weights, none negative, so that the parts add up to it exactly."""
    whole = sum(weights)
    if whole == 0:
        return [0] * len(weights)
    parts = [total * weight // whole for weight in weights]
    # What rounding down left over goes to those who lost most by it, the first of equals first.
    lost = [(-(total * weight % whole), place) for place, weight in enumerate(weights)]
    for _, place in sorted(lost)[: total - sum(parts)]:
        parts[place] += 1
    return parts
