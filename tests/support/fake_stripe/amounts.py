"""Amounts as people write them on the fake's pages; everywhere else they are minor units."""

from __future__ import annotations

import re

from .errors import invalid

# https://docs.stripe.com/currencies: the API counts all others in hundredths.
WHOLE = {
    *("bif", "clp", "djf", "gnf", "jpy", "kmf", "krw", "mga", "pyg", "rwf", "vnd", "vuv", "xaf"),
    *("xof", "xpf"),
}
THOUSANDTHS = {"bhd", "jod", "kwd", "omr", "tnd"}
SHOWN = re.compile(r"(\d{1,12})(?:\.(\d{1,3}))?", re.ASCII)


def money(amount: int, currency: str) -> str:
    """An amount for people: $10.00, 10.00 EUR, 1000 JPY."""
    digits = bare(abs(amount), currency)
    sign = "-" if amount < 0 else ""
    return f"{sign}${digits}" if currency == "usd" else f"{sign}{digits} {currency.upper()}"


def bare(amount: int, currency: str) -> str:
    """An amount as it is typed: 10.00."""
    places = _places(currency)
    whole, rest = divmod(amount, 10**places)
    return f"{whole}.{rest:0{places}}" if places else str(whole)


def typed(text: str, currency: str) -> int:
    """What somebody typed, in minor units.

    Raises: StripeError, 400, when it is no amount of this currency.
    """
    found, places = SHOWN.fullmatch(text.strip()), _places(currency)
    rest = found[2] or "" if found else ""
    if found is None or len(rest) > places:
        raise invalid(f"Invalid amount: write it as in {bare(1000, currency)}", "amount")
    return int(found[1] + rest.ljust(places, "0"))


def _places(currency: str) -> int:
    if currency in WHOLE:
        return 0
    return 3 if currency in THOUSANDTHS else 2
