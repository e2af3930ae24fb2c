"""Usage reports: what was called and charged, over a time, told apart as people ask."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.operations.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.ledger import Ledger
    from gateway.ledger.desk import UsageReportRow

UNITS = ("hour", "day", "month")
DIMENSIONS = ("account", "route", "key", *UNITS)


async def report_usage(
    ledger: Ledger,
    platform_id: int,
    *,
    since_ms: int,
    until_ms: int,
    by: Sequence[str],
    account_id: int | None = None,
) -> list[UsageReportRow]:
    """Usage of the hours in [since, until), one row per combination of what is in `by`.

    Calls count in the hour in which they were settled.

    Raises: UsageError for an unknown dimension, two units of time, or a time that is none.
    """
    for word in by:
        if word not in DIMENSIONS:
            raise UsageError(f'usage is not told apart by "{word}": use {", ".join(DIMENSIONS)}')
    units = [word for word in by if word in UNITS]
    if len(units) > 1:
        raise UsageError(f"choose one of {', '.join(UNITS)}, not {' and '.join(units)}")
    if since_ms >= until_ms:
        raise UsageError("the time ends before it begins: --since must lie before --until")
    return await ledger.usage_report(
        platform_id,
        since_ms,
        until_ms,
        account_id=account_id,
        by_account="account" in by,
        by_route="route" in by,
        by_key="key" in by,
        unit=units[0] if units else "",
    )
