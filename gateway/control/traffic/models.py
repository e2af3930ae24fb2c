"""Traffic as the API writes it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from gateway.control.api.fields import Credits, Model, Moment, Query


class RouteTraffic(Model):
    """What happened on one route during the time."""

    route: str
    calls: int = Field(description="That were settled, be it for nothing.")
    charged_credits: Credits
    denials: int = Field(description="Calls that were refused.")


class Traffic(Model):
    """What happened on each route of the platform, all workers together."""

    at: Moment
    seconds: int
    routes: list[RouteTraffic]


class TrafficQuery(Query):
    """How long to look."""

    seconds: Annotated[int, Field(ge=1, le=5)] = 1
