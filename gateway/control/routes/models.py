"""Routes as the API writes and reads them: with the keys of the config's [[routes]]."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints, WithJsonSchema

from gateway.config.protocols import MESSAGE_BYTES_MAX, TASK_LEASE_S_MAX
from gateway.config.routes import BODY_MAX_BYTES_MAX, CONNECTIONS_MAX_MAX, HEADER_VALUE_BYTES_MAX
from gateway.config.section import SECONDS_MAX
from gateway.control.api.fields import Id, Model, Page, PageQuery, Slug
from gateway.control.api.written import AmountText, CallLimits, RouteCaps, WrittenModel
from gateway.control.routes.prices import Price

_SECONDS = {"type": "number", "minimum": 0.001, "maximum": SECONDS_MAX}
Seconds = Annotated[
    int | float, Field(ge=0.001, le=SECONDS_MAX, allow_inf_nan=False), WithJsonSchema(_SECONDS)
]
MatchText = Annotated[
    str,
    StringConstraints(min_length=3, max_length=2_000),
    Field(
        description='Methods joined by "|", or "*"; then a path, which may have "{name}" segments '
        'and "/**" at its end.',
        examples=["POST /v1/chat/completions"],
    ),
]
UpstreamText = Annotated[
    str,
    StringConstraints(min_length=8, max_length=2_000, pattern=r"^https?://[!-~]+$"),
    Field(
        description="A server at a public address. The call's path is kept, unless there is one.",
        examples=["https://agents.example.com"],
    ),
]
HeaderName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9!#$%&'*+.^`|~-]+$")]
HeaderValue = Annotated[str, StringConstraints(max_length=HEADER_VALUE_BYTES_MAX)]
Headers = dict[HeaderName, HeaderValue | None]
Rule = Literal["actual", "reserved", "minimum", "nothing"]


class EndingRules(Model):
    """What each ending of a call costs."""

    completed: Rule | None = None
    client_error: Rule | None = None
    upstream_error: Rule | None = None
    upstream_timeout: Rule | None = None
    client_disconnect: Rule | None = None
    exhausted: Rule | None = None
    unknown: Rule | None = None


class TrustWithoutRedis(Model):
    """What an account may use on trust while the gateway can't look at its credits."""

    allow: AmountText | None = None


class TaskCharge(Model):
    """Of A2A: what a price is for, and how long a task's credits stay held."""

    charge: Literal["message", "task"] | None = None
    task_lease_s: Annotated[int, Field(ge=1, le=TASK_LEASE_S_MAX)] | None = None


class WebSocketBounds(Model):
    """Of WebSockets: bounds, and how often credits and key are looked at."""

    message_max_bytes: Annotated[int, Field(ge=1, le=MESSAGE_BYTES_MAX)] | None = None
    check_s: Seconds | None = None


class RouteTable(Model):
    """What a route says besides its name and place. Null says nothing: the default holds."""

    timeout_s: Seconds | None = Field(default=None, description="For the whole call.")
    connect_timeout_s: Seconds | None = None
    first_byte_timeout_s: Seconds | None = None
    idle_timeout_s: Seconds | None = None
    errors: Literal["problem", "openai", "anthropic", "jsonrpc"] | None = Field(
        default=None, description="The shape of the gateway's own errors."
    )
    protocol: Literal["http", "mcp", "a2a", "websocket"] | None = None
    ensure_usage: Literal["openai", ""] | None = Field(
        default=None, description="Streams report their usage, also where clients did not ask."
    )
    body_max_bytes: Annotated[int, Field(ge=0, le=BODY_MAX_BYTES_MAX)] | None = None
    connections_max: Annotated[int, Field(ge=1, le=CONNECTIONS_MAX_MAX)] | None = None
    when_redis_is_down: TrustWithoutRedis | None = None
    headers: Headers | None = Field(
        default=None,
        description="Given to the agent. What is a credential is a secret of the platform, "
        'referred to as "secret:NAME".',
        examples=[{"Authorization": "secret:openai"}],
    )
    free: bool | None = Field(default=None, description="A route without a price has to say so.")
    price: Price | None = None
    on: EndingRules | None = None
    limits: CallLimits | None = None
    caps: RouteCaps | None = None
    a2a: TaskCharge | None = None
    websocket: WebSocketBounds | None = None


class Route(RouteTable):
    """A route. Of the config's, values of headers are hidden."""

    id: Id
    name: Slug
    match: str
    upstream: str
    active: bool = Field(description="Whether it is in service.")
    managed_by: Literal["config", "api"] = Field(
        description="Who describes it: the config file, or people by this API."
    )
    price_version: Id | None = Field(description="Of the price in force; null: it is free.")


class Routes(Page[Route]):
    """A part of the platform's routes."""


class RoutesQuery(PageQuery):
    """Which routes."""

    active: bool | None = Field(default=None, description="In service, or out of it.")


class NewRoute(RouteTable, WrittenModel):
    """A route to be put into service."""

    name: Slug
    match: MatchText
    upstream: UpstreamText


class WholeRoute(RouteTable, WrittenModel):
    """All that a route is from now on."""

    name: Slug | None = Field(default=None, description="It stays as it is.")
    match: MatchText
    upstream: UpstreamText


class RoutePatch(RouteTable, WrittenModel):
    """A merge patch (RFC 7396): what is left out stays, null takes back to the default."""

    name: Slug | None = Field(default=None, description="It stays as it is.")
    match: MatchText | None = None
    upstream: UpstreamText | None = None
