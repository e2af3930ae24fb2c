"""Tokens of the API as the API writes and reads them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from gateway.control.api.fields import Id, Model, Moment, Page, PageQuery
from gateway.operations.tokens import TOKEN_NAME_CHARACTERS_MAX

RoleName = Literal["operator", "owner", "editor", "viewer", "admin", "member"]
OwnRoleName = Literal["admin", "member"]
TokenStatus = Literal["active", "expired", "revoked"]
TokenName = Annotated[str, StringConstraints(min_length=1, max_length=TOKEN_NAME_CHARACTERS_MAX)]


class Token(Model):
    """What people and machines show the API."""

    id: Id
    role: RoleName
    name: str
    account_id: Id | None = Field(description="For which account; null: for all of the platform.")
    account: str | None
    prefix: str = Field(description="How its text begins, to know it by.")
    last4: str
    status: TokenStatus
    expires_at: Moment | None
    created_at: Moment
    revoked_at: Moment | None


class TokenWithText(Token):
    """A token just made. Its text is in this answer and nowhere else."""

    token: str


class Tokens(Page[Token]):
    """A part of the tokens."""


class NewOwnToken(Model):
    """A token of one's own account to be made."""

    role: OwnRoleName
    name: TokenName
    expires_at: Moment | None = Field(default=None, description="null: never.")


class NewToken(Model):
    """A token to be made, of at most its maker's role."""

    role: RoleName
    name: TokenName
    account_id: Id | None = Field(default=None, description="Of an admin or member.")
    expires_at: Moment | None = Field(default=None, description="null: never.")


class OwnTokensQuery(PageQuery):
    """Which tokens of an account."""


class TokensQuery(PageQuery):
    """Which tokens."""

    account_id: Annotated[int, Field(ge=1, le=2**53 - 1)] | None = Field(
        default=None, description="Those of this account."
    )
    operators: bool = Field(
        default=False, description="For operators: those of operators, who have no platform."
    )
