"""Stripe's times, which are seconds, as ours, which are milliseconds."""

from __future__ import annotations

from policies.spans import SECOND_MS


def ms_of(seconds: int | None) -> int | None:
    """The same moment; None stays, where there is none."""
    return None if seconds is None else seconds * SECOND_MS
