"""API keys as the API writes and reads them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from gateway.config.bounds import (
    BURST_MAX,
    LIMIT_MAX,
    REQUESTS_PER_MINUTE_MAX,
    REQUESTS_PER_SECOND_MAX,
)
from gateway.control.api.fields import Credits, Id, Model, Moment, Page, PageQuery
from gateway.operations.guards import (
    GUARD_NETWORKS_MAX,
    GUARD_ROUTES_MAX,
    METADATA_NAME_CHARACTERS_MAX,
    METADATA_PAIRS_MAX,
    METADATA_VALUE_CHARACTERS_MAX,
)
from gateway.operations.keys import KEY_NAME_CHARACTERS_MAX, KEY_NAME_DEFAULT

OVERLAP_S_MAX = 30 * 86_400
PREFIX_CHARACTERS_MAX = 64
Prefix = Annotated[str, StringConstraints(min_length=1, max_length=PREFIX_CHARACTERS_MAX)]
KeyName = Annotated[str, StringConstraints(min_length=1, max_length=KEY_NAME_CHARACTERS_MAX)]
KeyStatus = Literal["active", "expired", "revoked"]
KeyKind = Literal["key", "delegated", "issuer"]
RouteNames = Annotated[
    list[Annotated[str, StringConstraints(min_length=1, max_length=200)]],
    Field(max_length=GUARD_ROUTES_MAX, description="Which it may call, by name; empty: all."),
]
Addresses = Annotated[
    list[Annotated[str, StringConstraints(min_length=1, max_length=64)]],
    Field(
        max_length=GUARD_NETWORKS_MAX,
        description="Networks that it may call from, as 10.0.0.0/8 or 2001:db8::1; empty: all.",
    ),
]
Metadata = Annotated[
    dict[
        Annotated[str, StringConstraints(min_length=1, max_length=METADATA_NAME_CHARACTERS_MAX)],
        Annotated[str, StringConstraints(max_length=METADATA_VALUE_CHARACTERS_MAX)],
    ],
    Field(
        max_length=METADATA_PAIRS_MAX,
        description="What you note about it; it means nothing to the gateway.",
    ),
]
PerSecond = Annotated[int, Field(ge=0, le=REQUESTS_PER_SECOND_MAX)]
PerMinute = Annotated[int, Field(ge=0, le=REQUESTS_PER_MINUTE_MAX)]
Burst = Annotated[int, Field(ge=0, le=BURST_MAX)]
Limit = Annotated[int, Field(ge=0, le=LIMIT_MAX)]


class KeyLimits(Model):
    """How often calls may come, and how many may run at once. null, or 0: no limit."""

    requests_per_second: PerSecond | None = None
    requests_per_minute: PerMinute | None = None
    burst: Burst | None = Field(
        default=None, description="How many may come at once under the rate."
    )
    requests_per_month: Limit | None = None
    concurrency: Limit | None = None


class KeyCaps(Model):
    """Most that calls may spend, in credits. null, or "0": no cap."""

    day: Credits | None = None
    month: Credits | None = None
    total: Credits | None = None
    session: Credits | None = None


class Key(Model):
    """What calls of an account are made with."""

    id: Id
    account_id: Id
    account: str = Field(description="Its account's name.")
    name: str
    kind: KeyKind = Field(
        description="A secret of people, a token with a budget out of another key, or what stands "
        "for the account where a platform's own issuer names it."
    )
    prefix: str = Field(description="How its secret begins, to know it by.")
    last4: str
    status: KeyStatus
    expires_at: Moment | None
    created_at: Moment
    revoked_at: Moment | None
    limits: KeyLimits
    caps: KeyCaps
    routes: list[str]
    addresses: list[str]
    metadata: dict[str, str]
    parent_key_id: Id | None = Field(description="Which a delegated key is a part of.")
    budget_credits: Credits | None = Field(description="Of a delegated key.")


class KeyWithSecret(Key):
    """A key just made. Its secret is in this answer and nowhere else."""

    secret: str


class Keys(Page[Key]):
    """A part of the keys."""


class NewKey(Model):
    """A key to be made."""

    name: KeyName = KEY_NAME_DEFAULT
    expires_at: Moment | None = Field(default=None, description="null: never.")
    limits: KeyLimits = KeyLimits()
    caps: KeyCaps = KeyCaps()
    routes: RouteNames = Field(default=[])
    addresses: Addresses = Field(default=[])
    metadata: Metadata = Field(default={})


class KeyPatch(Model):
    """What is to be different; what is left out stays, single limits and caps too."""

    name: KeyName | None = None
    expires_at: Moment | None = Field(default=None, description="null: never.")
    limits: KeyLimits | None = None
    caps: KeyCaps | None = None
    routes: RouteNames | None = None
    addresses: Addresses | None = None
    metadata: Metadata | None = None


class Rotation(Model):
    """How a key is replaced."""

    overlap_s: Annotated[int, Field(ge=0, le=OVERLAP_S_MAX)] = Field(
        default=0, description="How long the old one still works."
    )


class OwnKeysQuery(PageQuery):
    """Which keys of an account."""

    status: KeyStatus | None = None
    kind: KeyKind | None = None
    prefix: Prefix | None = Field(default=None, description="All of a key's own `prefix`.")


class KeysQuery(OwnKeysQuery):
    """Which keys."""

    account_id: Annotated[int, Field(ge=1, le=2**53 - 1)] | None = None
