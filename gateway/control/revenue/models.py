"""Revenue as the API writes it. docs/revenue.md defines each figure."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from gateway.control.api.fields import Model, Moment, Page, PageQuery, Pattern
from gateway.control.api.money import Amount, Currency, LineKind, Mode

Percent = Annotated[str, StringConstraints(pattern=r"^\d+(\.\d{1,2})?$"), Field(examples=["2.5"])]
Month = Annotated[
    str,
    Pattern(r"^(19[7-9]\d|[2-9]\d{3})-(0[1-9]|1[0-2])$", 'Write a month as in "2026-11".'),
    Field(examples=["2026-11"]),
]


class RevenuePoint(Model):
    """What a day or month brought in, in one currency."""

    at: Moment = Field(description="Where it begins (UTC).")
    currency: Currency
    payments: int = Field(description="Made then; 0 where money only went back.")
    gross: Amount = Field(description="What was paid, with tax.")
    refunds: Amount = Field(
        description="What went back then, of any payment, refunded or disputed, less what came "
        "again; below 0 when more came again."
    )
    tax: Amount = Field(description="Of `gross`, less what went back of it with `refunds`.")
    net: Amount = Field(description="`gross` less `refunds` and `tax`; below 0 is possible.")


class RevenuePoints(Page[RevenuePoint]):
    """A part of the points, oldest first; where nothing was paid or went back there is none."""


class ProductRevenue(Model):
    """What one plan, pack or overage brought in, in one currency; without tax."""

    currency: Currency
    kind: LineKind
    slug: str
    payments: int = Field(description="Made then; 0 where money only went back.")
    sold: Amount = Field(description="After discounts.")
    refunds: Amount = Field(description="As of revenue: what went back then, of any payment.")
    net: Amount = Field(description="`sold` less `refunds`.")


class ProductRevenues(Page[ProductRevenue]):
    """A part of the products, by currency, kind and slug."""


class Metrics(Model):
    """How a platform's subscriptions do, in one currency. Null: nothing to divide by."""

    currency: Currency
    from_: Moment = Field(serialization_alias="from")
    until: Moment
    mrr: Amount = Field(description="Monthly recurring revenue, at the end.")
    customers: int = Field(description="Accounts that pay for a subscription, at the end.")
    arpu: Amount | None = Field(description="`mrr` of one customer.")
    customers_at_start: int
    customers_lost: int
    customer_churn_percent: Percent | None
    mrr_at_start: Amount
    mrr_lost: Amount
    revenue_churn_percent: Percent | None
    ltv: Amount | None = Field(description="What a customer brings in until it is lost.")
    payments_tried: int
    payments_failed: int
    failed_payments_percent: Percent | None


class MetricsPage(Page[Metrics]):
    """The metrics of each currency."""


class RevenueQuery(PageQuery):
    """Which time, told by what."""

    by: Literal["day", "month"] = "month"
    from_: Moment | None = Field(
        default=None, alias="from", description="By default 30 days or 12 months before `until`."
    )
    until: Moment | None = Field(default=None, description="By default now.")
    currency: Currency | None = None
    mode: Mode | None = Field(default=None, description="By default that of the platform's key.")


class MetricsQuery(PageQuery):
    """Which month."""

    month: Month | None = Field(default=None, description="By default the last 30 days.")
    currency: Currency | None = None
    mode: Mode | None = Field(default=None, description="By default that of the platform's key.")
