"""Grants as the API writes and reads them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from gateway.control.api.fields import (
    Credits,
    Id,
    Model,
    Moment,
    Note,
    Page,
    PageQuery,
    SignedCredits,
    SomeCredits,
)
from gateway.operations.errors import UsageError
from gateway.operations.grants import PRIORITY_DEFAULT, PRIORITY_MAX, check_note

GivenSource = Literal["plan", "pack", "trial", "coupon", "manual", "rollover"]
Source = Literal[GivenSource, "overage", "refund"]


def _read_note(note: str) -> str:
    try:
        check_note(note)
    except UsageError as error:
        raise ValueError(str(error)) from None
    return note


LineNote = Annotated[Note, AfterValidator(_read_note)]


class Grant(Model):
    """A lot of credits, by the books: a moment behind. A balance says what is left right now.

    `granted + credited = left + settled + expired + revoked`, each a sum over the ledger.
    """

    id: Id
    account_id: Id
    source: Source
    granted_credits: Credits = Field(description="Of overage: how much may be used.")
    credited_credits: Credits = Field(description="Added since, or given back by calls.")
    settled_credits: Credits = Field(description="Charged to calls.")
    expired_credits: Credits
    revoked_credits: Credits = Field(
        description="Taken away; of a new grant, what paid the account's debt."
    )
    left_credits: SignedCredits
    priority: int = Field(description="Lower ones pay first.")
    effective_at: Moment
    expires_at: Moment | None
    revoked_at: Moment | None
    created_at: Moment
    note: str


class Grants(Page[Grant]):
    """A part of an account's grants."""


class NewGrant(Model):
    """Credits to be given."""

    credits: SomeCredits
    source: GivenSource = "manual"
    effective_at: Moment | None = Field(default=None, description="From when on; null: now.")
    expires_at: Moment | None = Field(default=None, description="null: never.")
    priority: Annotated[int, Field(ge=0, le=PRIORITY_MAX)] = Field(
        default=PRIORITY_DEFAULT, description="Lower ones pay first."
    )
    note: LineNote = ""


class NewAdjustment(Model):
    """What is to be added to a grant, or taken from it."""

    credits: SignedCredits = Field(
        description="Above 0 is added; below 0 is taken, as far as it is there and not held."
    )
    note: LineNote = Field(default="", description="Of what is added.")


class Adjustment(Model):
    """What came of it."""

    credits: SignedCredits = Field(description="What was added, or taken.")
    grant: Grant


class GrantsQuery(PageQuery):
    """Which grants."""
