"""Delegations: parts of keys for agents, as the API writes and reads them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from gateway.control.api.fields import Credits, Id, Model, Moment, Page, PageQuery, SomeCredits
from gateway.control.keys.models import KeyName, KeyStatus, Metadata, RouteNames
from gateway.operations.delegations import (
    DELEGATED_LIFE_MS_MAX,
    DELEGATED_LIFE_MS_MIN,
    DELEGATED_NAME_DEFAULT,
)

# Clocks of nodes and of the database differ: a life that is allowed here is allowed there, too.
CLOCKS_DIFFER_S = 5
LIFE_S_MIN = DELEGATED_LIFE_MS_MIN // 1_000 + CLOCKS_DIFFER_S
LIFE_S_MAX = DELEGATED_LIFE_MS_MAX // 1_000


class NewDelegation(Model):
    """A part of a key for an agent."""

    credits: SomeCredits = Field(
        description="Its budget, taken out of its parent's cap in total, if that has one."
    )
    expires_in_s: Annotated[int, Field(ge=LIFE_S_MIN, le=LIFE_S_MAX)]
    routes: RouteNames | None = Field(
        default=None, description="Which it may call, of those its parent may; null: all of them."
    )
    key_id: Id | None = Field(
        default=None, description="For admins: which key of the account it is a part of."
    )
    name: KeyName = DELEGATED_NAME_DEFAULT
    metadata: Metadata = Field(default={})


class Delegated(Model):
    """A delegation just made. Its token is in this answer and nowhere else."""

    token: str = Field(description="What the agent shows the proxy, as it would an API key.")
    key_id: Id = Field(description="What the delegation is called by.")
    parent_key_id: Id
    expires_at: Moment
    credits: Credits
    routes: list[str] | None = Field(description="null: all that its parent may call.")


class Delegation(Model):
    """A part of a key, as it stands."""

    key_id: Id
    parent_key_id: Id
    name: str
    status: KeyStatus = Field(description="Of its own; it is over with its parent, too.")
    credits: Credits = Field(description="Its budget.")
    used_credits: Credits | None = Field(
        description="Charged, held, or delegated on; null: it is over, or nobody can say."
    )
    left_credits: Credits | None
    routes: list[str] = Field(description="Empty: all that its parent may call.")
    expires_at: Moment
    created_at: Moment
    revoked_at: Moment | None
    metadata: dict[str, str]


class Delegations(Page[Delegation]):
    """A part of the delegations."""


class DelegationsQuery(PageQuery):
    """Which delegations."""
