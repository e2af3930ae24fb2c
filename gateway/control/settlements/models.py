"""Settled calls as the API writes them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from gateway.control.api.fields import CallId, Credits, Id, Model, Moment, Note, Page, PageQuery

Ending = Literal[
    "completed",
    "client_error",
    "upstream_error",
    "upstream_timeout",
    "client_disconnect",
    "exhausted",
    "unknown",
]
Session = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._~:-]{1,128}$")]
MomentText = Annotated[Moment, Field(description='RFC 3339, as in "2026-12-31T18:00:00Z".')]


class Settlement(Model):
    """How one call ended and what it cost."""

    request_id: CallId = Field(description="The call's `X-Request-Id`.")
    account_id: Id
    key_id: Id
    route_id: Id
    price_version: int = Field(description="0: the route was free.")
    admitted_at: Moment
    settled_at: Moment
    ending: str
    status: int = Field(description="What the client was answered; 0: nothing.")
    units: dict[str, int] = Field(description="What was metered.")
    flags: list[str]
    session: str | None
    held_credits: Credits
    charged_credits: Credits
    uncollected_credits: Credits


class Settlements(Page[Settlement]):
    """A part of the settled calls. It may be short, or empty, and still go on."""


class MySettlementsQuery(PageQuery):
    """Which of an account's own calls."""

    key_id: Id | None = None
    route: Annotated[str, StringConstraints(max_length=63)] | None = Field(
        default=None, description="A route's name."
    )
    ending: Ending | None = None
    session: Session | None = None
    from_: MomentText | None = Field(default=None, alias="from", description="Admitted since.")
    until: MomentText | None = Field(default=None, description="Admitted before.")


class SettlementsQuery(MySettlementsQuery):
    """Which calls of a platform."""

    account_id: Id | None = None
    status: Annotated[int, Field(ge=0, le=599)] | None = None
    request_id: CallId | None = None


class Following(Page[Settlement]):
    """Calls settled since the cursor, oldest first; some come again, tell them by their ids.

    There is always a next cursor.
    """

    at_end: bool = Field(description="There are no more for now: ask again in a second.")


class RefundNote(Model):
    """Why a call is refunded."""

    note: Note = ""


class Refund(Model):
    """What became of a refunded call's credits."""

    request_id: CallId
    account_id: Id
    restored_credits: Credits = Field(description="Back in the grants that paid.")
    granted_credits: Credits = Field(description="Those of ended grants, as a new one.")
    forfeited_credits: Credits = Field(description="Those of ended grants that the plan keeps.")
    grant_id: Id | None = Field(description="The new grant.")
