"""Limits and caps of the API's documents in a few words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

_LIMITS = (
    ("requests_per_second", "{}/s"),
    ("requests_per_minute", "{}/min"),
    ("burst", "burst {}"),
    ("requests_per_month", "{}/month"),
    ("concurrency", "{} at once"),
)
_CAPS = (
    ("day", "{} credits/day"),
    ("month", "{} credits/month"),
    ("total", "{} credits in all"),
    ("session", "{} credits/session"),
)


def bounds_text(limits: Mapping[str, Any] | None, caps: Mapping[str, Any] | None) -> str:
    """Such as "5/s, 60/min, 2 at once, 20 credits/day"; empty for none."""
    parts = [
        text.format(document[name])
        for document, texts in ((limits, _LIMITS), (caps, _CAPS))
        if document is not None
        for name, text in texts
        if document.get(name)
    ]
    return ", ".join(parts)
