"""Revenue and what is made of it: what came in, who pays, who stopped, what fails.

docs/revenue.md defines each figure, with an example worked by hand; a test computes the same. Sums
are exact until the end, where each figure is rounded once, to the nearest minor unit or basis
point, halves up. No figure has two currencies in it.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import TYPE_CHECKING, NamedTuple

from gateway.ledger.revenue import MONTHS_ALL, Attempts, RevenueQuery, Subscribers
from gateway.operations.errors import UsageError
from gateway.operations.usage import unit_end_ms, unit_start_ms
from policies.periods import months_after_ms
from policies.spans import DAY_MS
from policies.units import BASIS_POINTS

if TYPE_CHECKING:
    from gateway.ledger import Ledger

UNITS = ("day", "month")
# How far back is looked where nobody says.
DAYS_DEFAULT, MONTHS_DEFAULT = 30, 12
# Metrics are of a month, or of as many days until now.
METRICS_DAYS = 30
_MONTH = re.compile(r"(19[7-9]\d|[2-9]\d{3})-(0[1-9]|1[0-2])", re.ASCII)
_MOMENT_MS_MAX = 253_402_300_799_000  # the end of the year 9999


class Metrics(NamedTuple):
    """The state of a platform's subscriptions in one currency, at the end of a time.

    Amounts are minor units, rates are basis points; None: there is nothing to divide by.
    """

    currency: str
    from_ms: int
    until_ms: int
    mrr_minor: int
    customers: int
    arpu_minor: int | None
    customers_at_start: int
    customers_lost: int
    customer_churn: int | None
    mrr_at_start_minor: int
    mrr_lost_minor: int
    revenue_churn: int | None
    ltv_minor: int | None
    payments_tried: int
    payments_failed: int
    failed_payments: int | None


def revenue_query(
    unit: str,
    from_ms: int | None,
    until_ms: int | None,
    *,
    now_ms: int,
    livemode: bool,
    currency: str | None = None,
) -> RevenueQuery:
    """What is asked for, in whole days or months (UTC): the time is widened to such.

    Without an end it is up to now; without a begin, the last DAYS_DEFAULT days, or the last
    MONTHS_DEFAULT months, of which the one that runs is one.

    Raises: UsageError for an unknown unit, or a time that ends before it begins.
    """
    if unit not in UNITS:
        raise UsageError(f'revenue is told by {" or ".join(UNITS)}, not by "{unit}"')
    end_ms = unit_end_ms(unit, now_ms if until_ms is None else until_ms)
    if from_ms is not None:
        begin_ms = unit_start_ms(unit, from_ms)
    elif unit == "day":
        begin_ms = max(end_ms - DAYS_DEFAULT * DAY_MS, 0)
    else:
        begin_ms = max(months_after_ms(end_ms, -MONTHS_DEFAULT), 0)
    if not 0 <= begin_ms < end_ms or (until_ms or 0) > _MOMENT_MS_MAX:
        raise UsageError("the time ends before it begins, or lies outside of 1970 to 9999")
    return RevenueQuery(livemode, begin_ms, end_ms, currency)


def metrics_query(
    month: str | None, *, now_ms: int, livemode: bool, currency: str | None = None
) -> RevenueQuery:
    """The month that is asked for, as far as it has come, or the last METRICS_DAYS days.

    Raises: UsageError for what is no month such as "2026-11", or one that has not begun.
    """
    if month is None:
        return RevenueQuery(livemode, now_ms - METRICS_DAYS * DAY_MS, now_ms, currency)
    from_ms, end_ms = month_span(month)
    if from_ms >= now_ms:
        raise UsageError(f'the month "{month}" has not begun')
    return RevenueQuery(livemode, from_ms, min(end_ms, now_ms), currency)


def month_span(month: str) -> tuple[int, int]:
    """Where a month such as "2026-11" begins, and where the next one does (UTC).

    Raises: UsageError for anything else.
    """
    plain = _MONTH.fullmatch(month)
    if plain is None:
        raise UsageError(f'"{month}" is no month: write it as "2026-11"')
    months = (int(plain[1]) - 1970) * 12 + int(plain[2]) - 1
    return months_after_ms(0, months), months_after_ms(0, months + 1)


async def metrics_of(ledger: Ledger, platform_id: int, query: RevenueQuery) -> list[Metrics]:
    """The metrics of a time, currency by currency; of one that is still running, so far."""
    subscribers = {one.currency: one for one in await ledger.subscribers(platform_id, query)}
    attempts = {one.currency: one for one in await ledger.payment_attempts(platform_id, query)}
    return [
        _metrics(
            query,
            subscribers.get(currency, Subscribers(currency, 0, 0, 0, 0, 0, 0)),
            attempts.get(currency, Attempts(currency, 0, 0)),
        )
        for currency in sorted(subscribers.keys() | attempts.keys())
    ]


def _metrics(query: RevenueQuery, who: Subscribers, tried: Attempts) -> Metrics:
    mrr = _monthly(who.amount)
    customer_churn = _ratio(who.customers_lost, who.customers_at_start)
    arpu = _ratio(mrr, who.customers)
    ltv = None if arpu is None or not customer_churn else arpu / customer_churn
    return Metrics(
        currency=who.currency,
        from_ms=query.from_ms,
        until_ms=query.until_ms,
        mrr_minor=_rounded(mrr),
        customers=who.customers,
        arpu_minor=None if arpu is None else _rounded(arpu),
        customers_at_start=who.customers_at_start,
        customers_lost=who.customers_lost,
        customer_churn=_basis_points(customer_churn),
        mrr_at_start_minor=_rounded(_monthly(who.amount_at_start)),
        mrr_lost_minor=_rounded(_monthly(who.amount_lost)),
        revenue_churn=_basis_points(_ratio(who.amount_lost, who.amount_at_start)),
        ltv_minor=None if ltv is None else _rounded(ltv),
        payments_tried=tried.tried,
        payments_failed=tried.failed,
        failed_payments=_basis_points(_ratio(tried.failed, tried.tried)),
    )


def _monthly(amount: int) -> Fraction:
    """Minor units a month, of the query's smaller ones."""
    return Fraction(amount, MONTHS_ALL)


def _ratio(part: int | Fraction, whole: int) -> Fraction | None:
    return Fraction(part) / whole if whole else None


def _basis_points(ratio: Fraction | None) -> int | None:
    return None if ratio is None else _rounded(ratio * BASIS_POINTS)


def _rounded(exact: Fraction) -> int:
    """The nearest integer, halves up."""
    return (2 * exact.numerator + exact.denominator) // (2 * exact.denominator)
