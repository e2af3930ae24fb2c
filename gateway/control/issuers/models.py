"""Issuers as the API writes and reads them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from gateway.control.api.fields import Id, Model, Moment, Page
from gateway.identity.claims import ISSUER_CHARACTERS_MAX
from gateway.operations.issuers import (
    ACCOUNT_CLAIM_DEFAULT,
    CLAIM_CHARACTERS_MAX,
    URL_CHARACTERS_MAX,
)

IssuerName = Annotated[
    str,
    StringConstraints(min_length=1, max_length=ISSUER_CHARACTERS_MAX, pattern=r"^[!-~]+$"),
    Field(description="The `iss` of its tokens, as in https://login.example.com/."),
]
JwksUrl = Annotated[
    str,
    StringConstraints(max_length=URL_CHARACTERS_MAX, pattern=r"^https?://[!-~]+$"),
    Field(description="Where its keys are: https, at a public address."),
]
Claim = Annotated[
    str,
    StringConstraints(min_length=1, max_length=CLAIM_CHARACTERS_MAX),
    Field(description="The claim that has the account's name."),
]
Algorithm = Literal["RS256", "PS256", "ES256", "EdDSA"]
Algorithms = Annotated[list[Algorithm], Field(min_length=1, max_length=4)]


class Issuer(Model):
    """An identity provider whose tokens are believed, if they are made for this platform."""

    id: Id
    issuer: str
    audience: str = Field(description="The `aud` that its tokens must have.")
    jwks_url: str
    account_claim: str
    algorithms: list[str]
    created_at: Moment


class Issuers(Page[Issuer]):
    """A part of the platform's issuers."""


class NewIssuer(Model):
    """An issuer to be trusted."""

    issuer: IssuerName
    jwks_url: JwksUrl
    account_claim: Claim = ACCOUNT_CLAIM_DEFAULT
    algorithms: Algorithms = Field(default=["RS256"])


class IssuerPatch(Model):
    """What is to be different; what is left out stays."""

    jwks_url: JwksUrl | None = None
    account_claim: Claim | None = None
    algorithms: Algorithms | None = None
