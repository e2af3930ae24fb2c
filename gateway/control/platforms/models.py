"""Platforms as the API writes and reads them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from gateway.control.api.fields import Id, Model, Moment, Page, Slug
from gateway.operations.platforms import PLATFORM_NAME_CHARACTERS_MAX

PlatformName = Annotated[
    str, StringConstraints(min_length=1, max_length=PLATFORM_NAME_CHARACTERS_MAX)
]
UpgradeUrl = Annotated[str, StringConstraints(pattern=r"^https?://[!-~]+$", max_length=2_048)]
_URL = "Where clients whose credits ran out are sent; null: nowhere."


class Platform(Model):
    """A tenant: it sells to accounts of its own."""

    id: Id
    slug: Slug
    name: str
    upgrade_url: str | None = Field(description=_URL)
    created_at: Moment


class Platforms(Page[Platform]):
    """A part of the deployment's platforms."""


class NewPlatform(Model):
    """A platform to be made."""

    slug: Slug
    name: PlatformName | None = Field(default=None, description="Null: its slug.")
    upgrade_url: UpgradeUrl | None = Field(default=None, description=_URL)


class PlatformPatch(Model):
    """What is to be different; what is left out stays."""

    name: PlatformName | None = Field(default=None, description="Null: its slug.")
    upgrade_url: UpgradeUrl | None = Field(default=None, description=_URL)
