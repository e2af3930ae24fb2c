"""Entries of the audit log as the API writes them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from gateway.control.api.fields import Id, Model, Moment, Page, PageQuery

Resource = Literal[
    "account",
    "grant",
    "issuer",
    "key",
    "ledger_change",
    "plan",
    "platform",
    "price_version",
    "route",
    "secret",
    "token",
]
Name = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[ -~]+$")]


class LogEntry(Model):
    """One change: what was different before and after it. Secrets are in neither."""

    id: Id
    at: Moment
    actor: str = Field(description="As in `token:7`, `key:12`, `operator`, `cli:alice`.")
    address: str = Field(description="Where the request came from; empty: this machine.")
    request_id: str
    action: Literal["create", "change", "delete"]
    resource: str
    resource_id: str
    account_id: Id | None
    before: dict[str, Any]
    after: dict[str, Any]


class LogEntries(Page[LogEntry]):
    """A part of the log. It may be short, or empty, and still go on."""


class LogQuery(PageQuery):
    """Which entries."""

    resource: Resource | None = None
    resource_id: Name | None = None
    actor: Name | None = None
    account_id: Id | None = None
    from_: Moment | None = Field(default=None, alias="from")
    until: Moment | None = None
