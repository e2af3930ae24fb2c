"""How the API writes money, and which of Stripe's modes it is of."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from gateway.control.api.fields import Pattern

Mode = Literal["test", "live"]
# What a line of a payment was for.
LineKind = Literal["plan", "pack", "overage", "other"]
Currency = Annotated[
    str,
    Pattern(r"^[a-z]{3}$", 'Write a currency in three small letters, as in "usd".'),
    Field(examples=["usd"]),
]
# In the currency's major unit, with all of its decimal places.
Amount = Annotated[
    str, StringConstraints(pattern=r"^-?\d+(\.\d{2,3})?$"), Field(examples=["19.00"])
]


def mode_word(livemode: bool) -> Mode:
    """A mode in a word."""
    return "live" if livemode else "test"


def is_live(mode: Mode) -> bool:
    """What a word means."""
    return mode == "live"
