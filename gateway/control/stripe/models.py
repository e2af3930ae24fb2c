"""Stripe's settings and catalogue as the API writes and reads them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from gateway.config.stripe import (
    BRIDGE_MINUTES_MAX,
    DUNNING_DAYS_MAX,
    FAILURES_MAX,
    METER_NAME_CHARACTERS_MAX,
    WEBHOOK_SECRETS_MAX,
)
from gateway.control.api.fields import Model, Moment, Page
from gateway.control.api.money import Mode
from gateway.control.api.written import WrittenModel

Reference = Annotated[
    str,
    StringConstraints(pattern=r"^secret:[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?$"),
    Field(examples=["secret:stripe"]),
]
Url = Annotated[str, StringConstraints(pattern=r"^https?://[!-~]+$", max_length=2_048)]
Failures = Annotated[int, Field(ge=1, le=FAILURES_MAX)] | Literal["never"]
Days = Annotated[int, Field(ge=1, le=DUNNING_DAYS_MAX)] | Literal["never"]
Kind = Literal["plan", "pack", "unknown"]


class Dunning(Model):
    """When a subscription that is not paid for loses what. Null: the default."""

    notify_after_failures: Failures | None = None
    downgrade_after_failures: Failures | None = None
    grace_days: Days | None = Field(default=None, description="Then it is downgraded, whatever.")
    suspend_after_days: Days | None = None


class StripeOptions(Model):
    """How billing is done. Null says nothing: the default holds."""

    account: Annotated[str, StringConstraints(pattern=r"^acct_[!-~]+$")] | None = Field(
        default=None, description="Events that name an account must name this one."
    )
    automatic_tax: bool | None = None
    promotion_codes: bool | None = None
    success_url: Url | None = None
    cancel_url: Url | None = None
    portal_return_url: Url | None = None
    upgrade_credits: Literal["difference", "prorated"] | None = Field(
        default=None, description="What an upgrade in the middle of a period gives at once."
    )
    older_subscription: Literal["flag", "cancel"] | None = Field(
        default=None, description="What becomes of one whose account has a newer."
    )
    bridge_minutes: Annotated[int, Field(ge=0, le=BRIDGE_MINUTES_MAX)] | None = Field(
        default=None, description="How long a period's credits outlast it, for its next invoice."
    )
    overage_by: Literal["invoice_items", "meter_events"] | None = None
    meter_event_name: (
        Annotated[str, StringConstraints(min_length=1, max_length=METER_NAME_CHARACTERS_MAX)] | None
    ) = None
    dunning: Dunning | None = None


class StripeDocument(StripeOptions, WrittenModel):
    """A platform's Stripe: keys as references to secrets that were given to this API."""

    secret_key: Reference
    webhook_secrets: Annotated[list[Reference], Field(max_length=WEBHOOK_SECRETS_MAX)] | None = (
        Field(default=None, description="Several while one is rotated; none: no event is believed.")
    )


class StripeSettings(StripeOptions):
    """A platform's Stripe. Keys are never answered."""

    mode: Mode = Field(description="That of its key: of the other, nothing is believed.")
    secret_key: str | None = Field(description="Null: where the config file says.")
    webhook_secrets: list[str] | None
    webhook_path: str = Field(description="Where Stripe delivers events, on this API's address.")
    problem: str | None = Field(description="Why it can't be used; null: it can.")
    api_base: str | None = Field(description="Where it is asked, by the config; null: at Stripe.")
    managed_by: Literal["config", "api"]
    created_at: Moment
    updated_at: Moment


class ProductPrice(Model):
    """A price at Stripe."""

    id: str
    active: bool
    amount: str | None = Field(description='In the major unit, as in "19.00".')
    currency: str
    months: int | None = Field(description="How long it pays for; null: it is paid once.")
    problem: str | None = Field(description="Why nothing can be bought at it; null: it can.")


class Product(Model):
    """A product at Stripe that is tagged as the platform's."""

    id: str
    kind: Kind
    slug: str = Field(description="The plan or pack that it sells.")
    name: str
    active: bool
    problem: str | None = Field(
        description="Why it is parked: nothing is sold or granted by it; null: it is not."
    )
    differs: str | None = Field(
        description="What it says otherwise than the plan or pack that the config or this API "
        "describes, and by which it goes; a plan-push mends it."
    )
    prices: list[ProductPrice]
    synced_at: Moment


class Products(Page[Product]):
    """A part of the platform's products."""


class Parked(Model):
    """A product that nothing is sold or granted by, and why."""

    product: str
    problem: str


class SyncReport(Model):
    """What a look at Stripe's catalogue found."""

    mode: Mode
    products: int
    plans_changed: list[str]
    packs_changed: list[str]
    parked: list[Parked]


class PushQuestion(Model):
    """How to push."""

    dry_run: bool = Field(default=False, description="Only say what would be done.")


class PushStep(Model):
    """One thing done at Stripe, or to be done."""

    action: Literal["create", "update", "archive"]
    object: Literal["product", "price"]
    kind: Kind
    slug: str
    id: str | None = Field(description="Null: it is not there yet.")
    changes: dict[str, str]


class LeftOut(Model):
    """A plan that can't be pushed, and why."""

    plan: str
    problem: str


class PushReport(Model):
    """All of a push, in order."""

    mode: Mode
    dry_run: bool
    steps: list[PushStep]
    left_out: list[LeftOut]
