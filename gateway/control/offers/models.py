"""What an account can buy, as the API writes it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from gateway.control.api.fields import Credits, Model, Slug
from gateway.control.api.money import Mode


class Price(Model):
    """What something costs."""

    amount: str = Field(description='In the major unit, as in "19.00".')
    currency: str
    months: int | None = Field(description="How long it pays for; null: it is paid once.")


class PlanOffer(Model):
    """A plan that can be subscribed to. `/v1/plans/{plan}` has its limits."""

    plan: Slug
    credits: Credits = Field(description="Given for each period.")
    period: Literal["month", "year"]
    trial_days: int = Field(description="How many days it begins with unpaid.")
    trial_credits: Credits | None = Field(
        description="Given for these days; null: as for a period."
    )
    overage_price: str | None = Field(
        description="What a credit beyond these costs, in the currency of the subscription; "
        "null: there are none, or they cost nothing."
    )
    features: list[str]
    prices: list[Price]


class PackOffer(Model):
    """A pack of credits that can be bought."""

    pack: Slug
    name: str
    credits: Credits
    validity_days: int | None = Field(description="Null: they last for ever.")
    prices: list[Price]


class Offers(Model):
    """All that the platform sells."""

    mode: Mode | None = Field(
        description="Of its Stripe; null: it has none, and nothing can be paid here."
    )
    plans: list[PlanOffer]
    packs: list[PackOffer]
