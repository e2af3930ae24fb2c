"""Usage as the API writes it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from gateway.control.api.fields import Credits, Id, Model, Moment, Query
from gateway.operations.usage import PARTS

Interval = Literal["hour", "day", "month"]
_PART = "|".join(PARTS)


class UsagePoint(Model):
    """One hour, day or month, of what is told apart. Null: it is not."""

    at: Moment = Field(description="Where it begins.")
    account_id: Id | None
    account: str | None
    route_id: Id | None
    route: str | None
    key_id: Id | None
    calls: int
    calls_completed: int
    held_credits: Credits
    charged_credits: Credits
    uncollected_credits: Credits


class Projection(Model):
    """What the period comes to if it goes on as it began; null: it is too early to say."""

    basis: str = Field(description="`billing_period` of the account, or `calendar_month`.")
    from_: Moment = Field(serialization_alias="from")
    until: Moment
    calls: int
    charged_credits: Credits
    projected_calls: int | None
    projected_credits: Credits | None


class UsageSeries(Model):
    """Points in the order of time; where nothing was called there is none."""

    interval: Interval
    from_: Moment = Field(serialization_alias="from")
    until: Moment
    points: list[UsagePoint]
    projection: Projection | None


class MyUsageQuery(Query):
    """Which time, and what is told apart."""

    interval: Interval = "day"
    from_: Moment | None = Field(
        default=None, alias="from", description="By default 30 intervals before `until`."
    )
    until: Moment | None = Field(default=None, description="By default now.")
    by: Annotated[
        str | None,
        StringConstraints(pattern=rf"^({_PART})(,({_PART})){{0,2}}$"),
        Field(description="What is told apart, as in `route,key`."),
    ] = None
    route: Annotated[str, StringConstraints(max_length=63)] | None = None
    key_id: Id | None = None


class UsageQuery(MyUsageQuery):
    """The same, of a platform or one of its accounts."""

    account_id: Id | None = None
