"""Limits and caps as people change them: only what they name, checked as the config's are."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from gateway.config.bounds import (
    BURST_MAX,
    LIMIT_MAX,
    REQUESTS_PER_MINUTE_MAX,
    REQUESTS_PER_SECOND_MAX,
    contradictions,
)
from gateway.operations.errors import UsageError
from policies.units import AMOUNT_MICROCREDITS_MAX

if TYPE_CHECKING:
    from collections.abc import Mapping

    from policies.catalog import Caps, Limits

_MOST = {
    "requests_per_second": REQUESTS_PER_SECOND_MAX,
    "requests_per_minute": REQUESTS_PER_MINUTE_MAX,
    "burst": BURST_MAX,
    "requests_per_month": LIMIT_MAX,
    "concurrency": LIMIT_MAX,
}


def change_bounds(
    limits: Limits, caps: Caps, changes: Mapping[str, int | None]
) -> tuple[Limits, Caps]:
    """Limits and caps after changes to their fields, by name; None leaves one as it is, 0 ends it.

    Caps are in microcredits.

    Raises: UsageError for a number out of range, or what can't be meant together.
    """
    told = {name: value for name, value in changes.items() if value is not None}
    for name, value in told.items():
        most = _MOST.get(name, AMOUNT_MICROCREDITS_MAX)
        if not 0 <= value <= most:
            raise UsageError(f"{name} is from 0 (none) to {most}, not {value}")
    limits = replace(limits, **{name: told[name] for name in asdict(limits) if name in told})
    caps = replace(caps, **{name: told[name] for name in asdict(caps) if name in told})
    for name, message in contradictions(limits, caps):
        raise UsageError(f"{name} {message}")
    return limits, caps
