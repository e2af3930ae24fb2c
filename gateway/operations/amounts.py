"""Amounts as people type them."""

from __future__ import annotations

from gateway.operations.errors import UsageError
from policies.units import parse_credits, parse_percent


def parse_amount_or_zero(text: str) -> int:
    """Microcredits of a number of credits such as "12.5".

    Raises: UsageError.
    """
    try:
        return parse_credits(text)
    except ValueError as error:
        raise UsageError(str(error)) from None


def parse_amount(text: str) -> int:
    """The same, of more than no credits.

    Raises: UsageError.
    """
    amount = parse_amount_or_zero(text)
    if amount == 0:
        raise UsageError("a grant of 0 credits gives nothing: say how many")
    return amount


def parse_discount(text: str) -> int:
    """Basis points of a number of percent such as "12.5".

    Raises: UsageError.
    """
    try:
        return parse_percent(text)
    except ValueError as error:
        raise UsageError(str(error)) from None
