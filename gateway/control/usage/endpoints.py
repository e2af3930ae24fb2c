"""Reading usage, from the roll-ups alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from gateway.clock import now_ms
from gateway.control.api.endpoint import Endpoint
from gateway.control.api.problems import invalid_field, not_found
from gateway.control.api.roles import MEMBERS, VIEWERS
from gateway.control.usage.models import (
    MyUsageQuery,
    Projection,
    UsagePoint,
    UsageQuery,
    UsageSeries,
)
from gateway.operations import usage

if TYPE_CHECKING:
    from gateway.control.api.ask import Ask
    from gateway.control.usage.models import Interval
    from gateway.ledger.usage import UsagePoint as Point

INTERVALS_DEFAULT = 30
_INTERVAL_MS = {"hour": 3_600_000, "day": 86_400_000, "month": 31 * 86_400_000}


async def read(ask: Ask, query: UsageQuery) -> UsageSeries:
    """Of the platform, or of one account."""
    if query.account_id is not None:
        account = await ask.ledger.account(ask.platform_id, query.account_id)
        if account is None:
            raise not_found("account")
    return await _read(ask, query, query.account_id)


async def read_own(ask: Ask, query: MyUsageQuery) -> UsageSeries:
    """Of the caller's own account."""
    account = await ask.account()
    return await _read(ask, query, account.account_id)


async def _read(ask: Ask, query: MyUsageQuery, account_id: int | None) -> UsageSeries:
    now = now_ms()
    until_ms = now if query.until is None else query.until
    since_ms = query.from_
    if since_ms is None:
        since_ms = max(until_ms - INTERVALS_DEFAULT * _INTERVAL_MS[query.interval], 0)
    if since_ms >= until_ms:
        raise invalid_field("from", "This must lie before `until`.")
    route_id = None
    if query.route is not None:
        route_id = await ask.ledger.route_id(ask.platform_id, query.route)
        if route_id is None:
            raise invalid_field("route", "There is no such route.")
    series = await usage.usage_series(
        ask.ledger,
        ask.platform_id,
        unit=query.interval,
        from_ms=since_ms,
        until_ms=until_ms,
        by=tuple(dict.fromkeys(query.by.split(","))) if query.by else (),
        account_id=account_id,
        route_id=route_id,
        key_id=query.key_id,
    )
    projection = None
    if route_id is None and query.key_id is None:
        projection = await usage.project_usage(
            ask.ledger, ask.platform_id, now_ms=now, account_id=account_id
        )
    return UsageSeries(
        interval=cast("Interval", series.unit),
        from_=series.from_ms,
        until=series.until_ms,
        points=[_point(point, series) for point in series.points],
        projection=None if projection is None else _projection(projection),
    )


def _point(point: Point, series: usage.UsageSeries) -> UsagePoint:
    return UsagePoint(
        at=point.since_ms,
        account_id=point.account_id,
        account=series.account_names.get(point.account_id or 0),
        route_id=point.route_id,
        route=series.route_names.get(point.route_id or 0),
        key_id=point.key_id,
        calls=point.calls,
        calls_completed=point.calls_completed,
        held_credits=point.held_microcredits,
        charged_credits=point.charged_microcredits,
        uncollected_credits=point.uncollected_microcredits,
    )


def _projection(of: usage.Projection) -> Projection:
    return Projection(
        basis=of.basis,
        from_=of.from_ms,
        until=of.until_ms,
        calls=of.calls,
        charged_credits=of.charged_microcredits,
        projected_calls=of.projected_calls,
        projected_credits=of.projected_microcredits,
    )


_DESCRIPTION = (
    "Calls count in the hour in which they were settled; the time is widened to whole intervals, "
    "UTC. Keys, and hours and routes of accounts, are told apart within one account. The "
    "projection is linear over what has passed of the period."
)
ENDPOINTS = (
    Endpoint(
        "GET", "/v1/usage", "Read usage over a time", VIEWERS, read,
        query=UsageQuery, answers=UsageSeries, description=_DESCRIPTION,
    ),
    Endpoint(
        "GET", "/v1/me/usage", "Read my usage over a time", MEMBERS, read_own,
        query=MyUsageQuery, answers=UsageSeries, description=_DESCRIPTION,
    ),
)  # fmt: skip
