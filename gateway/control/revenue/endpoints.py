"""Reading revenue."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.clock import now_ms
from gateway.control.api.cursors import read_cursor, read_text_cursor, write_cursor
from gateway.control.api.endpoint import Endpoint
from gateway.control.api.money import is_live
from gateway.control.api.roles import VIEWERS
from gateway.control.revenue.models import (
    Metrics,
    MetricsPage,
    MetricsQuery,
    ProductRevenue,
    ProductRevenues,
    RevenuePoint,
    RevenuePoints,
    RevenueQuery,
)
from gateway.operations import revenue
from policies.money import format_minor
from policies.units import format_percent

if TYPE_CHECKING:
    from gateway.control.api.ask import Ask
    from gateway.control.api.money import Mode
    from gateway.ledger.revenue import ProductRevenue as ProductSum
    from gateway.ledger.revenue import RevenuePoint as Point
    from gateway.ledger.revenue import RevenueQuery as Asked

PATH = "/v1/revenue"


async def read(ask: Ask, query: RevenueQuery) -> RevenuePoints:
    """By day or month."""
    place = read_cursor(query.cursor, int, str)
    page = await ask.ledger.revenue_series(
        ask.platform_id,
        await _asked(ask, query),
        unit=query.by,
        after=None if place is None else (int(place[0]), str(place[1])),
        limit=query.limit,
    )
    return RevenuePoints(
        data=[_point(point) for point in page.rows],
        next_cursor=None if page.after is None else write_cursor(*page.after),
    )


async def read_products(ask: Ask, query: RevenueQuery) -> ProductRevenues:
    """By what was sold."""
    place = read_cursor(query.cursor, str, str, str)
    page = await ask.ledger.revenue_products(
        ask.platform_id,
        await _asked(ask, query),
        after=None if place is None else (str(place[0]), str(place[1]), str(place[2])),
        limit=query.limit,
    )
    return ProductRevenues(
        data=[_product(one) for one in page.rows],
        next_cursor=None if page.after is None else write_cursor(*page.after),
    )


async def read_metrics(ask: Ask, query: MetricsQuery) -> MetricsPage:
    """What it says."""
    after = read_text_cursor(query.cursor) or ""
    asked = revenue.metrics_query(
        query.month,
        now_ms=now_ms(),
        livemode=await _livemode(ask, query.mode),
        currency=query.currency,
    )
    found = await revenue.metrics_of(ask.ledger, ask.platform_id, asked)
    rest = [one for one in found if one.currency > after]  # there are as many as currencies
    page = rest[: query.limit]
    return MetricsPage(
        data=[_metrics(one) for one in page],
        next_cursor=write_cursor(page[-1].currency) if len(page) < len(rest) else None,
    )


async def _asked(ask: Ask, query: RevenueQuery) -> Asked:
    return revenue.revenue_query(
        query.by,
        query.from_,
        query.until,
        now_ms=now_ms(),
        livemode=await _livemode(ask, query.mode),
        currency=query.currency,
    )


async def _livemode(ask: Ask, mode: Mode | None) -> bool:
    if mode is not None:
        return is_live(mode)
    return await ask.ledger.billing_livemode(ask.platform_id)


def _point(point: Point) -> RevenuePoint:
    return RevenuePoint(
        at=point.since_ms,
        currency=point.currency,
        payments=point.payments,
        gross=format_minor(point.gross_minor, point.currency),
        refunds=format_minor(point.refunds_minor, point.currency),
        tax=format_minor(point.tax_minor, point.currency),
        net=format_minor(point.net_minor, point.currency),
    )


def _product(one: ProductSum) -> ProductRevenue:
    return ProductRevenue(
        currency=one.currency,
        kind=one.kind,  # type: ignore[arg-type] # the table's own check
        slug=one.slug,
        payments=one.payments,
        sold=format_minor(one.sold_minor, one.currency),
        refunds=format_minor(one.refunds_minor, one.currency),
        net=format_minor(one.net_minor, one.currency),
    )


def _metrics(one: revenue.Metrics) -> Metrics:
    def money(amount_minor: int) -> str:
        return format_minor(amount_minor, one.currency)

    def percent(basis_points: int | None) -> str | None:
        return None if basis_points is None else format_percent(basis_points)

    return Metrics(
        currency=one.currency,
        from_=one.from_ms,
        until=one.until_ms,
        mrr=money(one.mrr_minor),
        customers=one.customers,
        arpu=None if one.arpu_minor is None else money(one.arpu_minor),
        customers_at_start=one.customers_at_start,
        customers_lost=one.customers_lost,
        customer_churn_percent=percent(one.customer_churn),
        mrr_at_start=money(one.mrr_at_start_minor),
        mrr_lost=money(one.mrr_lost_minor),
        revenue_churn_percent=percent(one.revenue_churn),
        ltv=None if one.ltv_minor is None else money(one.ltv_minor),
        payments_tried=one.payments_tried,
        payments_failed=one.payments_failed,
        failed_payments_percent=percent(one.failed_payments),
    )


ENDPOINTS = (
    Endpoint(
        "GET", PATH, "Read revenue by day or month", VIEWERS, read,
        query=RevenueQuery, answers=RevenuePoints, exports=True,
        description="Payments count when they were made, and what went back of them when it went. "
        "Currencies are never added to each other. The time is widened to whole days or months "
        "(UTC).",
    ),
    Endpoint(
        "GET", f"{PATH}/products", "Read revenue by plan and pack", VIEWERS, read_products,
        query=RevenueQuery, answers=ProductRevenues, exports=True,
        description="Of a time that is widened to whole days or months (`by`), without tax.",
    ),
    Endpoint(
        "GET", f"{PATH}/metrics", "Read MRR, churn, ARPU and LTV", VIEWERS, read_metrics,
        query=MetricsQuery, answers=MetricsPage, exports=True,
        description="Of a month, as far as it has come, or of the last 30 days.",
    ),
)  # fmt: skip
