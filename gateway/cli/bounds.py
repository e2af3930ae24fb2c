"""Limits and caps as commands show them: those that there are, by their config's names."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from policies.units import format_credits

if TYPE_CHECKING:
    from policies.catalog import Caps, Limits


def limits_document(limits: Limits) -> dict[str, int]:
    """Limits as JSON has them."""
    return {name: value for name, value in asdict(limits).items() if value}


def caps_document(caps: Caps) -> dict[str, str]:
    """Caps as JSON has them, in credits."""
    return {name: format_credits(value) for name, value in asdict(caps).items() if value}


def bounds_text(limits: Limits, caps: Caps) -> str:
    """Both as one text for people: "5/s, 60/min, 2 at once, 20 credits/day"; empty for none."""
    rates = (
        (limits.requests_per_second, "{}/s"),
        (limits.requests_per_minute, "{}/min"),
        (limits.burst, "burst {}"),
        (limits.requests_per_month, "{}/month"),
        (limits.concurrency, "{} at once"),
    )
    amounts = (
        (caps.day, "{} credits/day"),
        (caps.month, "{} credits/month"),
        (caps.total, "{} credits in all"),
        (caps.session, "{} credits/session"),
    )
    parts = [text.format(value) for value, text in rates if value]
    parts += [text.format(format_credits(value)) for value, text in amounts if value]
    return ", ".join(parts)
