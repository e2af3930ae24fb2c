"""Platforms as the API writes and reads them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from gateway.config.selling import TRIAL_DAYS, TRIAL_DAYS_MAX
from gateway.control.api.fields import Credits, Id, Model, Moment, Page, Slug
from gateway.operations.platforms import PLATFORM_NAME_CHARACTERS_MAX

PlatformName = Annotated[
    str, StringConstraints(min_length=1, max_length=PLATFORM_NAME_CHARACTERS_MAX)
]
UpgradeUrl = Annotated[str, StringConstraints(pattern=r"^https?://[!-~]+$", max_length=2_048)]
TrialDays = Annotated[int, Field(ge=1, le=TRIAL_DAYS_MAX)]
_SIGNUP = "The plan of accounts made without one, and of those whose paid one ends; null: none."
_TRIAL = "Given to new accounts on that plan, beside what it gives."
_DAYS = "How long these last."
_URL = "Where clients whose credits ran out are sent; null: nowhere."


class Platform(Model):
    """A tenant: it sells to accounts of its own."""

    id: Id
    slug: Slug
    name: str
    upgrade_url: str | None = Field(description=_URL)
    signup_plan: str | None = Field(description=_SIGNUP)
    trial_credits: Credits = Field(description=_TRIAL)
    trial_days: int = Field(description=_DAYS)
    created_at: Moment


class Platforms(Page[Platform]):
    """A part of the deployment's platforms."""


class NewPlatform(Model):
    """A platform to be made."""

    slug: Slug
    name: PlatformName | None = Field(default=None, description="Null: its slug.")
    upgrade_url: UpgradeUrl | None = Field(default=None, description=_URL)
    signup_plan: Slug | None = Field(default=None, description=_SIGNUP)
    trial_credits: Credits = Field(default=0, description=_TRIAL)
    trial_days: TrialDays = Field(default=TRIAL_DAYS, description=_DAYS)


class PlatformPatch(Model):
    """What is to be different; what is left out stays."""

    name: PlatformName | None = Field(default=None, description="Null: its slug.")
    upgrade_url: UpgradeUrl | None = Field(default=None, description=_URL)
    signup_plan: Slug | None = Field(default=None, description=_SIGNUP)
    trial_credits: Credits | None = Field(default=None, description=f"{_TRIAL} Null: none.")
    trial_days: TrialDays | None = Field(default=None, description=f"{_DAYS} Null: {TRIAL_DAYS}.")
