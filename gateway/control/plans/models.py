"""Plans as the API writes and reads them: with the keys of the config's [[plans]]."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from gateway.config.money import FEATURE_CHARACTERS_MAX, FEATURES_MAX
from gateway.config.selling import ROLLOVER_PERIODS_MAX, TRIAL_DAYS_MAX
from gateway.control.api.fields import Id, Page, Slug
from gateway.control.api.written import (
    AmountText,
    CallLimits,
    MoneyText,
    PercentText,
    PlanCaps,
    WrittenModel,
)

RolloverText = Annotated[
    str, StringConstraints(pattern=r"^(none|all|\d{1,10}(\.\d{1,6})?)$"), Field(examples=["250"])
]
OveragePriceText = Annotated[
    str, StringConstraints(pattern=r"^\d{1,9}(\.\d{1,9})?$"), Field(examples=["0.002"])
]
Feature = Annotated[
    str,
    StringConstraints(
        min_length=1, max_length=FEATURE_CHARACTERS_MAX, pattern=r"^[^;\s]([^;]*[^;\s])?$"
    ),
]


class PlanTable(CallLimits):
    """What a plan says. Null says nothing: the default holds, and limits there are none."""

    credits: AmountText | None = Field(default=None, description="Given for each period.")
    period: Literal["month", "year"] | None = None
    quota_window: Literal["calendar", "billing"] | None = Field(
        default=None,
        description="The month that `requests_per_month` counts: UTC's, the default, or that of "
        "the account's billing period.",
    )
    caps: PlanCaps | None = None
    overage: Literal["block", "bill"] | None = Field(
        default=None,
        description="What becomes of calls without credits; by default they are blocked.",
    )
    overage_cap: AmountText | None = Field(
        default=None, description='What a period may owe, with overage = "bill".'
    )
    rollover: RolloverText | None = Field(
        default=None, description='What a period may leave to the next: "none", "all", or so much.'
    )
    rollover_periods: Annotated[int, Field(ge=1, le=ROLLOVER_PERIODS_MAX)] | None = Field(
        default=None, description="How many periods what was left lasts; by default 1."
    )
    low_credits: AmountText | None = Field(
        default=None, description="The account is told when it has fewer."
    )
    refund_expired: Literal["grant", "nothing"] | None = Field(
        default=None, description="What a refund of credits that have expired since becomes."
    )
    discount: PercentText | None = Field(default=None, description="Percent off every price.")
    price_per_month: MoneyText | list[MoneyText] | None = Field(
        default=None, description="What a subscription costs by the month, in each currency."
    )
    price_per_year: MoneyText | list[MoneyText] | None = Field(
        default=None, description="What it costs by the year."
    )
    trial_days: Annotated[int, Field(ge=0, le=TRIAL_DAYS_MAX)] | None = Field(
        default=None, description="How many days a subscription begins with unpaid."
    )
    trial_credits: AmountText | None = Field(
        default=None, description="Given for these days; null: as for a period."
    )
    overage_price: OveragePriceText | None = Field(
        default=None,
        description="What a credit of overage costs, in the currency of the subscription.",
    )
    features: Annotated[list[Feature], Field(max_length=FEATURES_MAX)] | None = Field(
        default=None, description="What else it has, in words of people."
    )


class Plan(PlanTable):
    """A plan."""

    id: Id
    slug: Slug
    managed_by: Literal["config", "api", "stripe"] = Field(
        description="Who describes it: the config file, people by this API, or a product of Stripe."
    )


class Plans(Page[Plan]):
    """A part of the platform's plans."""


class NewPlan(PlanTable, WrittenModel):
    """A plan to be made."""

    slug: Slug


class PlanPatch(PlanTable, WrittenModel):
    """A merge patch (RFC 7396): what is left out stays, null takes back to the default."""

    slug: Slug | None = Field(default=None, description="It stays as it is.")
