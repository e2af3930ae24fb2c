"""Stripe's events and reconciliations as the API writes them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from gateway.control.api.fields import CURSOR_CHARACTERS_MAX, Model, Moment, Page, PageQuery
from gateway.stripe_sync.reconcile import PAYMENTS_DAYS, PAYMENTS_DAYS_MAX

Status = Literal["waiting", "done", "ignored", "parked"]
Name = Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=r"^[ -~]+$")]


class StripeEvent(Model):
    """An event, and what became of it."""

    id: str
    type: str
    object_id: str | None = Field(description="What it is about, as in `in_123`.")
    livemode: bool
    shape: Literal["snapshot", "thin"]
    source: Literal["webhook", "reconcile"] = Field(
        description="Whether Stripe sent it, or it was found in Stripe's list."
    )
    status: Status = Field(
        description="`ignored`: nobody has a use for it; `parked`: it was tried as often as is "
        "sensible, and waits until somebody mends what is wrong and replays it."
    )
    attempts: int = Field(description="How often it failed for a reason that has to be mended.")
    problem: str | None = Field(
        description="What went wrong at the last try; of one that is over, why nothing followed."
    )
    created_at: Moment
    received_at: Moment
    done_at: Moment | None


class StripeEvents(Page[StripeEvent]):
    """A part of the events. It may be short, or empty, and still go on."""


class StripeEventDetail(StripeEvent):
    """The same, with what Stripe sent."""

    payload: dict[str, Any]


class StripeEventQuery(PageQuery):
    """Which events."""

    status: Status | None = None
    type: Name | None = None
    object_id: Name | None = None


class ReconcileWish(Model):
    """How far to look."""

    days: Annotated[int, Field(ge=1, le=PAYMENTS_DAYS_MAX)] = Field(
        default=PAYMENTS_DAYS,
        description="Payments made within so many days are compared; events go back for 30.",
    )
    cursor: Annotated[str, StringConstraints(max_length=CURSOR_CHARACTERS_MAX)] | None = Field(
        default=None, description="What `next_cursor` of the answer before said."
    )


class Unmended(Model):
    """A payment that can't be booked."""

    object_id: str
    problem: str


class Reconciliation(Model):
    """What was found at Stripe and not here."""

    events_seen: int
    events_added: int = Field(description="They are worked on now.")
    payments_seen: int
    payments_mended: int = Field(description="Paid at Stripe, and booked only now.")
    problems: list[Unmended]
    next_cursor: str | None = Field(description="There is more to look at: ask again with this.")
