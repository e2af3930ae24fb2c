"""Secrets as the API writes them. Nothing reads them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from gateway.control.api.fields import Model, Moment, Page
from gateway.operations.secrets import SECRET_BYTES_MAX


class Secret(Model):
    """What is known of a secret. Its value is never answered."""

    name: str = Field(description='Routes refer to it as "secret:NAME" in their headers.')
    created_at: Moment
    updated_at: Moment = Field(description="When it got its value.")


class Secrets(Page[Secret]):
    """A part of the platform's secrets."""


class SecretValue(Model):
    """The value of a secret: all of a header's value, as in "Bearer sk-123"."""

    value: Annotated[
        str,
        StringConstraints(
            min_length=1,
            max_length=SECRET_BYTES_MAX,
            pattern=r"^[!-~]([ -~]*[!-~])?$",
        ),
    ] = Field(json_schema_extra={"writeOnly": True})
