"""Logins, and the keys that tokens are signed with, as the API writes and reads them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from gateway.control.api.fields import Model, Moment

SECRET_CHARACTERS_MAX = 4_096
Secret = Annotated[str, StringConstraints(min_length=1, max_length=SECRET_CHARACTERS_MAX)]


class NewLogin(Model):
    """Who logs in."""

    token: Secret = Field(description="A token of the API, or the admin token.")


class Refresh(Model):
    """Whose login goes on."""

    refresh_token: Secret = Field(description="The newest; an old one ends the login.")


class Login(Model):
    """What proves a login."""

    access_token: str = Field(description="Send it as 'Authorization: Bearer ...'.")
    expires_in_s: int = Field(description="Until the access token has to be refreshed.")
    refresh_token: str = Field(description="Worth the next pair of tokens, once.")
    login_expires_at: Moment = Field(description="When the login is over, refreshed or not.")


class Jwk(Model):
    """A public key (RFC 8037)."""

    kty: str
    crv: str
    x: str
    kid: str
    alg: str
    use: str


class Jwks(Model):
    """Every key whose tokens may be good (RFC 7517), the one that signs first."""

    keys: list[Jwk]
