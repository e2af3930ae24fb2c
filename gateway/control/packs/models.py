"""Packs as the API writes and reads them: with the keys of the config's [[packs]]."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from gateway.config.selling import PACK_NAME_CHARACTERS_MAX, VALIDITY_DAYS_MAX
from gateway.control.api.fields import Id, Model, Page, Slug
from gateway.control.api.written import AmountText, MoneyText, WrittenModel


class PackTable(Model):
    """What a pack says. Null says nothing: the default holds."""

    name: (
        Annotated[str, StringConstraints(min_length=1, max_length=PACK_NAME_CHARACTERS_MAX)] | None
    ) = Field(default=None, description="For people; null: its slug.")
    credits: AmountText | None = Field(default=None, description="How many one pack has.")
    validity_days: Annotated[int, Field(ge=1, le=VALIDITY_DAYS_MAX)] | None = Field(
        default=None, description="How long they last from when they were paid; null: for ever."
    )
    price: MoneyText | list[MoneyText] | None = Field(
        default=None, description="What one pack costs, in each currency."
    )


class Pack(PackTable):
    """A pack."""

    id: Id
    slug: Slug
    managed_by: Literal["config", "api", "stripe"] = Field(
        description="Who describes it: the config file, people by this API, or a product of Stripe."
    )


class Packs(Page[Pack]):
    """A part of the platform's packs."""


class NewPack(PackTable, WrittenModel):
    """A pack to be sold."""

    slug: Slug


class PackPatch(PackTable, WrittenModel):
    """A merge patch (RFC 7396): what is left out stays, null takes back to the default."""

    slug: Slug | None = Field(default=None, description="It stays as it is.")
