"""Who asks, as the API says it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from gateway.control.accounts.models import Account
from gateway.control.api.fields import Id, Model
from gateway.control.keys.models import Key

RoleName = Literal["operator", "owner", "editor", "viewer", "admin", "member"]


class Me(Model):
    """Who asks, and for whom."""

    role: RoleName
    platform: str = Field(description="The slug of the platform that requests work on.")
    account: Account | None = Field(description="null: who asks is not of one account.")
    key: Key | None = Field(description="The API key or delegated token that was shown.")
    token_id: Id | None = Field(description="The token of the API, shown or logged in with.")
    logged_in: bool = Field(description="Whether by a login, which can be ended.")
