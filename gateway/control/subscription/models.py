"""Subscriptions, and ways to pay, as the API writes them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from gateway.control.accounts.models import DEBT
from gateway.control.api.fields import Credits, Model, Moment, Pattern, Slug
from gateway.control.api.money import Amount, Currency, Mode

Interval = Literal["month", "year"]
Renewer = Literal["subscription", "clock"]
Url = Annotated[
    str,
    StringConstraints(min_length=1, max_length=2_000),
    Field(json_schema_extra={"format": "uri"}),
]
Email = Annotated[
    str,
    StringConstraints(max_length=254),
    Pattern(r"^[^@\s]+@[^@\s]+$", 'Write an address of e-mail, as in "ada@example.com".'),
]
Quantity = Annotated[int, Field(ge=1, le=100_000)]


class Purchase(Model):
    """What is said of anything that somebody pays for on a page of Stripe's."""

    quantity: Quantity = 1
    currency: Currency | None = Field(
        default=None, description="Only where there are prices in several."
    )
    success_url: Url | None = Field(
        default=None,
        description="Where the payer goes afterwards; by default as the platform's settings say. "
        "`{CHECKOUT_SESSION_ID}` in it stands for the session.",
    )
    cancel_url: Url | None = Field(default=None, description="Where the payer goes without paying.")
    email: Email | None = Field(default=None, description="Of the payer, for Stripe.")


class NewSubscription(Purchase):
    """A plan to be subscribed to."""

    plan: Slug
    interval: Interval = "month"


class NewPack(Purchase):
    """A pack to be bought."""

    pack: Slug


class Checkout(Model):
    """A page of Stripe's that waits for a payer."""

    url: str
    session_id: str
    expires_at: Moment


class PortalRequest(Model):
    """Where the portal leads back to."""

    return_url: Url | None = Field(default=None, description="By default as settings say.")


class Portal(Model):
    """Stripe's customer portal: cards and invoices. The link is good for a short time."""

    url: str


class SubscriptionChange(Model):
    """What a subscription is to become; null leaves as it is."""

    plan: Slug | None = None
    interval: Interval | None = None
    quantity: Quantity | None = None


class ScheduledChange(Model):
    """What it changes to, and when."""

    plan: str | None
    interval: Interval | None
    months: int | None = Field(description="How long a price is for.")
    quantity: int | None
    price: Amount | None = Field(description="Of one, for `months`.")
    at: Moment


class PaymentProblem(Model):
    """It is not paid for."""

    stage: Literal["failed", "notified", "downgraded", "suspended"]
    unpaid_since: Moment
    failures: int = Field(description="How many payments failed.")
    invoice_id: str | None
    downgrades_at: Moment | None = Field(description="Then the plan is lost; null: not by time.")
    suspends_at: Moment | None = Field(description="Then calls are refused; null: not by time.")
    what_to_do: str


class Subscription(Model):
    """What an account is subscribed to. Without Stripe it is the plan that the clock renews."""

    plan: str | None = Field(description="The plan that calls go by now; null: none.")
    status: str = Field(
        description="Stripe's: `trialing`, `active`, `past_due`, …; of a plan without a "
        "subscription `active`; `none` without a plan."
    )
    renewed_by: Renewer | None
    mode: Mode | None = Field(description="Whose subscription it is; null: there is none.")
    subscription_id: str | None
    subscribed_plan: str | None = Field(description="The plan that the subscription is for.")
    interval: Interval | None
    months: int | None = Field(description="How long a price is for.")
    quantity: int | None
    price: Amount | None = Field(description="Of one, for `months`.")
    currency: Currency | None
    credits_total: Credits = Field(description="What the plan gave for this period.")
    credits_left: Credits = Field(description="What is left of that.")
    other_credits_left: Credits = Field(description="What packs and other grants have left.")
    debt_credits: Credits = Field(description=DEBT)
    credits_renew_at: Moment | None
    renews_at: Moment | None = Field(description="null: it does not go on.")
    cancel_at: Moment | None
    trial_end: Moment | None
    scheduled_change: ScheduledChange | None
    payment_problem: PaymentProblem | None


class Cancelled(Model):
    """A subscription that ends."""

    effective_until: Moment = Field(description="Until then everything stays as it is.")
    subscription: Subscription


class Changed(Model):
    """What came of a change."""

    result: Literal["done", "needs_payment", "scheduled", "unchanged"] = Field(
        description="`needs_payment`: it takes effect when somebody has paid at `payment_url`."
    )
    effective_at: Moment | None
    payment_url: str | None
    subscription: Subscription
