"""Reading the audit log."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from gateway.control.api.cursors import read_cursor, write_cursor
from gateway.control.api.endpoint import Endpoint
from gateway.control.api.roles import ADMINS, VIEWERS
from gateway.control.audit_log.models import LogEntries, LogEntry, LogQuery
from gateway.ledger.audit_log import LogFilter, LogPlace

if TYPE_CHECKING:
    from typing import Literal

    from gateway.control.api.ask import Ask
    from gateway.ledger.audit_log import LogEntry as Entry


async def read_list(ask: Ask, query: LogQuery) -> LogEntries:
    """Newest first; an account sees its own part."""
    place = read_cursor(query.cursor, int, int)
    page = await ask.ledger.log_page(
        ask.platform_id,
        LogFilter(
            resource=query.resource,
            resource_id=query.resource_id,
            actor=query.actor,
            account_id=query.account_id,
            from_ms=query.from_,
            until_ms=query.until,
        ),
        after=None if place is None else LogPlace(int(place[0]), int(place[1])),
        limit=query.limit,
    )
    return LogEntries(
        data=[_document(entry) for entry in page.rows],
        next_cursor=None if page.after is None else write_cursor(*page.after),
    )


async def read_own_list(ask: Ask, query: LogQuery) -> LogEntries:
    """The account's own part: whoever works for the platform does so from nowhere."""
    page = await read_list(ask, query)
    own = [
        entry if entry.actor == ask.caller.actor else entry.model_copy(update={"address": ""})
        for entry in page.data
    ]
    return page.model_copy(update={"data": own})


def _document(entry: Entry) -> LogEntry:
    return LogEntry(
        id=entry.entry_id,
        at=entry.at_us // 1_000,
        actor=entry.actor,
        address=entry.address,
        request_id=entry.request_id,
        action=cast('Literal["create", "change", "delete"]', entry.action),
        resource=entry.resource,
        resource_id=entry.resource_id,
        account_id=entry.account_id,
        before=dict(entry.before),
        after=dict(entry.after),
    )


ENDPOINTS = (
    Endpoint(
        "GET", "/v1/audit-log", "Read who changed what", VIEWERS, read_list,
        query=LogQuery, answers=LogEntries, exports=True, tag="audit-log",
        description="Append-only, written in each change's own transaction. What the gateway "
        "does by itself, such as settling calls and renewing periods, is in the books instead.",
    ),
    Endpoint(
        "GET", "/v1/me/audit-log", "Read who changed what of my account", ADMINS, read_own_list,
        query=LogQuery, answers=LogEntries, exports=True,
        description="Only your own changes say where they came from.",
    ),
)  # fmt: skip
