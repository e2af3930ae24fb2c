"""Usage: what was called and charged, told apart as people ask, and what it will come to."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from gateway.ledger.usage import UsageQuery, UsageSource, usage_source
from gateway.operations.errors import UsageError
from policies.limits import month_end_ms
from policies.periods import months_after_ms
from policies.spans import DAY_MS, HOUR_MS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gateway.ledger import Ledger
    from gateway.ledger.usage import UsagePoint

UNITS = ("hour", "day", "month")
PARTS = ("account", "route", "key")
SERIES_POINTS_MAX = 5_000
# Of sums by hour, route and key, which are nearly as many as calls where there are many keys: about
# 2 ms a thousand.
FINE_SUMS_MAX = 10_000
# Of a period that has just begun nothing can be said yet; the sums are hourly, too.
PROJECTION_ELAPSED_MS_MIN = HOUR_MS
# The end of the year 9999: nothing is asked for behind it.
_MOMENT_MS_MAX = 253_402_300_799_999


class UsageSeries(NamedTuple):
    """Points in the order of time; a unit in which nothing was settled has none.

    They stand for the whole units from `from_ms` to before `until_ms`. The names are those of the
    accounts and routes in the points; one that is gone has none.
    """

    unit: str
    from_ms: int
    until_ms: int
    points: list[UsagePoint]
    account_names: Mapping[int, str]
    route_names: Mapping[int, str]


class Projection(NamedTuple):
    """What a period comes to if it goes on as it began; None: it is too early to say.

    `basis` is "billing_period" (the account's own) or "calendar_month" (UTC). What was used is
    counted from `counted_from_ms` on, which is where the period's first hour begins, to `now_ms`.
    """

    basis: str
    from_ms: int
    until_ms: int
    counted_from_ms: int
    now_ms: int
    calls: int
    charged_microcredits: int
    projected_calls: int | None
    projected_microcredits: int | None


async def usage_series(
    ledger: Ledger,
    platform_id: int,
    *,
    unit: str,
    from_ms: int,
    until_ms: int,
    by: Sequence[str] = (),
    account_id: int | None = None,
    route_id: int | None = None,
    key_id: int | None = None,
) -> UsageSeries:
    """Usage by the hour, day or month (UTC), told apart by what of PARTS is in `by`.

    The units are whole: the time is widened to where its first begins and its last ends. Calls
    count when they were settled. A key's account need not be named.

    Raises: UsageError for an unknown word, a time that is none, more than SERIES_POINTS_MAX points,
    for what is known of one account at a time only (keys, and hours and routes of accounts), and
    for an account's hours, or its routes and keys together, when more than FINE_SUMS_MAX make them.
    """
    if unit not in UNITS:
        raise UsageError(f'usage is told by {", ".join(UNITS)}, not by "{unit}"')
    for word in by:
        if word not in PARTS:
            raise UsageError(f'usage is not told apart by "{word}": use {", ".join(PARTS)}')
    if not 0 <= from_ms < until_ms <= _MOMENT_MS_MAX:
        raise UsageError("the time ends before it begins, or lies outside of 1970 to 9999")
    account_id = ledger.account_in_scope(account_id)
    if key_id is not None:
        owner = await ledger.account_of_key(platform_id, key_id)
        if owner is None or account_id not in {None, owner}:
            return UsageSeries(unit, from_ms, until_ms, [], {}, {})
        account_id = owner
    query = UsageQuery(
        unit,
        unit_start_ms(unit, from_ms),
        unit_end_ms(unit, until_ms),
        by_account="account" in by,
        by_route="route" in by,
        by_key="key" in by,
        account_id=account_id,
        route_id=route_id,
        key_id=key_id,
    )
    source = _source(query)
    if source is UsageSource.ACCOUNT_HOURS:
        size = await ledger.usage_size(platform_id, query, limit=FINE_SUMS_MAX + 1)
        if size > FINE_SUMS_MAX:
            raise UsageError(
                f"the account has used more than {FINE_SUMS_MAX} routes and keys by the hour then: "
                "ask for a shorter time, or for days or months of either routes or keys"
            )
    points = await ledger.usage_series(platform_id, query, source, limit=SERIES_POINTS_MAX + 1)
    if len(points) > SERIES_POINTS_MAX:
        raise UsageError(
            f"that is more than {SERIES_POINTS_MAX} points: ask for a shorter time, a larger unit "
            "or less told apart"
        )
    accounts = {point.account_id for point in points if point.account_id is not None}
    return UsageSeries(
        unit,
        query.from_ms,
        query.until_ms,
        points,
        await ledger.account_names(platform_id, accounts) if accounts else {},
        await ledger.route_names(platform_id) if "route" in by else {},
    )


async def project_usage(
    ledger: Ledger, platform_id: int, *, now_ms: int, account_id: int | None = None
) -> Projection | None:
    """What an account, or all of the platform, will have used at the end of the period that runs.

    The period is the account's billing period; the calendar month (UTC) for a platform, and for an
    account that has no period now: none at all, one that is over and not renewed yet, one ahead.

    Linear, in integers, rounded down. With what was used since the period's first hour began, and
    the time in milliseconds:

        projected = used + used * (until - now) // (now - counted_from)

    The first hour counts as a whole, also what was before the period in it, and so does its time.
    Before PROJECTION_ELAPSED_MS_MIN have passed there is no projection.

    None without such an account here.
    """
    account_id = ledger.account_in_scope(account_id)
    basis = "calendar_month"
    until_ms = month_end_ms(now_ms)
    from_ms = months_after_ms(until_ms, -1)
    if account_id is None:
        counted_from_ms = from_ms
        used = await ledger.usage_of_platform(platform_id, counted_from_ms)
    else:
        period = await ledger.account_period(platform_id, account_id)
        if period is None:
            return None
        if period[0] <= now_ms < period[1]:
            basis, (from_ms, until_ms) = "billing_period", period
        counted_from_ms = from_ms - from_ms % HOUR_MS
        used = await ledger.usage_of_account(platform_id, account_id, counted_from_ms, now_ms)
    elapsed_ms = now_ms - counted_from_ms
    known = elapsed_ms >= PROJECTION_ELAPSED_MS_MIN
    left_ms = until_ms - now_ms
    return Projection(
        basis,
        from_ms,
        until_ms,
        counted_from_ms,
        now_ms,
        used.calls,
        used.charged_microcredits,
        used.calls + used.calls * left_ms // elapsed_ms if known else None,
        used.charged_microcredits + used.charged_microcredits * left_ms // elapsed_ms
        if known
        else None,
    )


def _source(query: UsageQuery) -> UsageSource:
    """Which sums answer a question. Raises: UsageError when none do at a bounded cost."""
    source = usage_source(query)
    if source is None:
        raise UsageError(
            "keys, and hours and routes of accounts, are known of one account at a time: "
            "name the account or the key"
        )
    return source


def unit_start_ms(unit: str, moment_ms: int) -> int:
    """Where the hour, day or month (UTC) begins that a moment is in."""
    if unit == "month":
        return months_after_ms(month_end_ms(moment_ms), -1)
    return moment_ms - moment_ms % (HOUR_MS if unit == "hour" else DAY_MS)


def unit_end_ms(unit: str, moment_ms: int) -> int:
    """The first end of an hour, day or month that is not before a moment."""
    if unit == "month":
        return month_end_ms(moment_ms - 1)
    size_ms = HOUR_MS if unit == "hour" else DAY_MS
    return -(-moment_ms // size_ms) * size_ms
