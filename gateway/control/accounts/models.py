"""Accounts as the API writes and reads them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from gateway.control.api.fields import Credits, Id, Model, Moment, Page, PageQuery, Slug
from gateway.operations.accounts import ACCOUNT_NAME_CHARACTERS_MAX

AccountName = Annotated[
    str, StringConstraints(min_length=1, max_length=ACCOUNT_NAME_CHARACTERS_MAX)
]
# Basis points as percent: "12.5".
Percent = Annotated[str, StringConstraints(pattern=r"^(100|\d{1,2}(\.\d{1,2})?)$")]
Status = Literal["active", "suspended"]


class Account(Model):
    """A customer of a platform."""

    id: Id
    name: str
    status: Status
    plan: str | None = Field(description="The slug of its plan; null: it has none.")
    discount_percent: str | None = Field(description="Off every price; null: what its plan says.")
    created_at: Moment


class Accounts(Page[Account]):
    """A part of the platform's accounts."""


class NewAccount(Model):
    """An account to be made."""

    name: AccountName
    plan: Slug | None = None
    credits: Credits | None = Field(
        default=None, description="To begin with; null: what its plan gives for a period."
    )


class AccountChange(Model):
    """What is to be different; what is left out stays."""

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
