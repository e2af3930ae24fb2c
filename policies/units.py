"""Credits as integers: parsing, formatting, and the one rounding rule.

One credit is 1 000 000 microcredits; every amount in Python, Lua, SQL and JSON is an integer
number of microcredits (as a decimal string of credits where people or JSON read it). Prices per
unit may be finer than a microcredit, so they are kept in picocredits and rounded once, at the end,
by `round_up_to_microcredits`.
"""

from __future__ import annotations

import re

MICROCREDITS_PER_CREDIT = 1_000_000
PICOCREDITS_PER_MICROCREDIT = 1_000_000
# A discount in basis points: ten-thousandths of a price.
BASIS_POINTS = 10_000
# Lua numbers and JSON readers are exact only below 2^53.
AMOUNT_MICROCREDITS_MAX = 2**53 - 1

_PLACES_MICROCREDITS = 6
_PLACES_PICOCREDITS = 12
_PLACES_PERCENT = 2
# No exponent, sign, space, underscore or foreign digit: one way to write an amount. The bounds keep
# an absurd text from becoming an absurd integer before it is compared with a limit.
_PLAIN_DECIMAL = re.compile(r"([0-9]{1,24})(?:\.([0-9]{1,24}))?")


def parse_credits(text: str) -> int:
    """Microcredits of a decimal string of credits such as "0.1".

    Raises: ValueError when the text is no plain decimal, is negative, is finer than a microcredit,
    or reaches 2^53 microcredits.
    """
    return _scaled(text, places=_PLACES_MICROCREDITS, limit=AMOUNT_MICROCREDITS_MAX)


def parse_unit_price(text: str) -> int:
    """Picocredits per unit of a decimal string of credits per unit such as "0.000015".

    Raises: ValueError as `parse_credits`, but down to twelve decimal places.
    """
    limit = AMOUNT_MICROCREDITS_MAX * PICOCREDITS_PER_MICROCREDIT
    return _scaled(text, places=_PLACES_PICOCREDITS, limit=limit)


def parse_percent(text: str) -> int:
    """Basis points of a decimal string of percent such as "12.5", from "0" to "100".

    Raises: ValueError when the text is no plain decimal, is finer than a basis point, or above 100.
    """
    plain = _PLAIN_DECIMAL.fullmatch(text)
    fraction = (plain[2] or "").rstrip("0") if plain else ""
    if plain is None or len(fraction) > _PLACES_PERCENT:
        raise ValueError(
            f'"{text}" is not a percentage such as "15" or "12.5", "0.01" at the least'
        )
    basis_points = int(plain[1] + fraction.ljust(_PLACES_PERCENT, "0"))
    if basis_points > BASIS_POINTS:
        raise ValueError(f'"{text}" is more than all of it, "100"')
    return basis_points


def format_percent(basis_points: int) -> str:
    """Basis points as the shortest decimal string of percent: 1250 is "12.5"."""
    whole, rest = divmod(basis_points, 10**_PLACES_PERCENT)
    return f"{whole}.{rest:02d}".rstrip("0") if rest else str(whole)


def format_credits(microcredits: int) -> str:
    """Microcredits as the shortest exact decimal string of credits: 1250000 is "1.25"."""
    if microcredits < 0:
        return "-" + format_credits(-microcredits)
    whole, rest = divmod(microcredits, MICROCREDITS_PER_CREDIT)
    return f"{whole}.{rest:06d}".rstrip("0") if rest else str(whole)


def format_unit_price(picocredits: int) -> str:
    """Picocredits as the shortest exact decimal string of credits: 15000000 is "0.000015"."""
    whole, rest = divmod(picocredits, 10**_PLACES_PICOCREDITS)
    return f"{whole}.{rest:012d}".rstrip("0") if rest else str(whole)


def round_up_to_microcredits(picocredits: int, discount: int = 0) -> int:
    """The one rounding of the product: up to the next whole microcredit, after the discount.

    `discount` is in basis points, 0 to 10 000. It is taken off before rounding, so a cost is
    rounded once whatever it is made of.
    """
    if not discount:
        return -(-picocredits // PICOCREDITS_PER_MICROCREDIT)
    left = picocredits * (BASIS_POINTS - discount)
    return -(-left // (PICOCREDITS_PER_MICROCREDIT * BASIS_POINTS))


def _scaled(text: str, *, places: int, limit: int) -> int:
    plain = _PLAIN_DECIMAL.fullmatch(text)
    if plain is None:
        raise ValueError(f'"{text}" is not a plain decimal number of credits, such as "0.1"')
    whole, fraction = plain[1], (plain[2] or "").rstrip("0")
    if len(fraction) > places:
        raise ValueError(f'"{text}" has more than {places} decimal places')
    scaled = int(whole + fraction.ljust(places, "0"))
    if scaled > limit:
        raise ValueError(f'"{text}" is too large: amounts stay below 2^53 microcredits')
    return scaled
