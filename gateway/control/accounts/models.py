"""Accounts as the API writes and reads them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints

from gateway.control.api.fields import (
    Credits,
    Id,
    Model,
    Moment,
    Page,
    PageQuery,
    Query,
    SignedCredits,
    Slug,
)
from gateway.operations.accounts import ACCOUNT_NAME_CHARACTERS_MAX, check_account_name
from gateway.operations.errors import UsageError


def _read_name(name: str) -> str:
    try:
        check_account_name(name)
    except UsageError as error:
        raise ValueError(str(error)) from None
    return name


AccountName = Annotated[
    str,
    StringConstraints(min_length=1, max_length=ACCOUNT_NAME_CHARACTERS_MAX),
    AfterValidator(_read_name),
]
# Basis points as percent: "12.5".
Percent = Annotated[str, StringConstraints(pattern=r"^(100|\d{1,2}(\.\d{1,2})?)$")]
Status = Literal["active", "suspended"]
RenewedBy = Literal["clock", "subscription"]
Source = Literal["plan", "pack", "trial", "coupon", "manual", "rollover", "overage", "refund"]
LimitKind = Literal[
    "requests_per_second", "requests_per_minute", "requests_per_month", "concurrency"
]
CapWindow = Literal["day", "month", "total", "session"]
DEBT = "Spent, although their payment went back: the next grant pays them first."
LIVE = "Whether Redis says so, which decides calls; else Postgres, a moment behind."


class Account(Model):
    """A customer of a platform."""

    id: Id
    name: str
    status: Status
    payment_suspended: bool = Field(
        description="Whether its calls are refused for want of payment, whatever its status."
    )
    plan: str | None = Field(description="The slug of its plan; null: it has none.")
    renewed_by: RenewedBy = Field(
        description="What its plan and period follow: the clock, or a subscription."
    )
    discount_percent: str | None = Field(description="Off every price; null: what its plan says.")
    debt_credits: Credits = Field(description=DEBT)
    created_at: Moment


class Accounts(Page[Account]):
    """A part of the platform's accounts."""


class NewAccount(Model):
    """An account to be made."""

    name: AccountName
    plan: Slug | None = Field(
        default=None, description="Null: the plan that the platform puts new accounts on."
    )
    credits: Credits | None = Field(
        default=None,
        description="To begin with; null: what its plan gives for a period, and the trial that "
        "comes with the platform's plan for new accounts.",
    )


class AccountPatch(Model):
    """What is to be different; what is left out, or null, stays."""

    name: AccountName | None = None
    status: Status | None = None
    plan: Slug | None = None
    discount_percent: Percent | None = Field(
        default=None, description='null: what its plan says. "0": none.'
    )


class AccountsQuery(PageQuery):
    """Which accounts."""

    status: Status | None = None
    plan: Slug | None = None
    name: Annotated[str, StringConstraints(max_length=ACCOUNT_NAME_CHARACTERS_MAX)] | None = Field(
        default=None, description="How names begin."
    )


class Lot(Model):
    """A grant as it stands now."""

    grant_id: Id
    source: Source
    granted_credits: Credits = Field(
        description="As of the grant; of overage, how much may be used."
    )
    credited_credits: Credits = Field(description="Added since, or given back by calls.")
    left_credits: Credits = Field(description="What calls can still take; of overage, room.")
    held_credits: Credits = Field(description="By calls that run.")
    effective_at: Moment
    expires_at: Moment | None


class Balance(Model):
    """What an account has now."""

    live: bool = Field(description=LIVE)
    available_credits: SignedCredits = Field(
        description="Below 0 while more was used in overage than the other lots have. The debt is "
        "no part of it."
    )
    held_credits: Credits
    overage_credits: SignedCredits = Field(description="Used of this period's overage.")
    debt_credits: Credits = Field(description=DEBT)
    lots: list[Lot] = Field(description="In the order in which they pay.")


class LimitsQuery(Query):
    """Whose limits."""

    key_id: Annotated[int, Field(ge=1, le=2**53 - 1)] | None = Field(
        default=None, description="Those of this key; else the account's own."
    )


class CallLimit(Model):
    """How many calls there may be, and how many were."""

    limit_kind: LimitKind
    limit: int
    used: int
    left: int = Field(description="Of a rate with a burst: of that.")
    resets_at: Moment | None = Field(
        description="When nothing of it is used any more; null: now, or when running calls end."
    )


class SpendCap(Model):
    """How much may be spent, and how much was, what running calls hold included."""

    window: CapWindow
    limit_credits: Credits
    used_credits: Credits | None = Field(description="null: each session counts its own.")
    left_credits: Credits | None
    resets_at: Moment | None = Field(description="null: never.")


class Limits(Model):
    """The limits and caps of an account or a key, with what they have left."""

    live: bool = Field(description=LIVE)
    key_id: Id | None = Field(description="Whose they are; null: the account's.")
    limits: list[CallLimit]
    caps: list[SpendCap]
