"""Reading the audit log: who changed what, from where. Triggers write it (migrations/0007)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from gateway.ledger.searching import SCAN_ROWS_MAX, Page, Searching, page_of

if TYPE_CHECKING:
    from collections.abc import Mapping

# The end of the year 9999, behind every entry.
AT_MS_MAX = 253_402_300_799_999


class LogEntry(NamedTuple):
    """A change of one resource: `before` and `after` are what is different, never a secret."""

    entry_id: int
    account_id: int | None
    at_us: int  # microseconds since 1970
    actor: str
    address: str
    request_id: str
    action: str  # create | change
    resource: str
    resource_id: str
    before: Mapping[str, Any]
    after: Mapping[str, Any]


class LogFilter(NamedTuple):
    """Which entries; None does not ask. `until_ms` is not in the time any more."""

    resource: str | None = None
    resource_id: str | None = None
    actor: str | None = None
    account_id: int | None = None
    from_ms: int | None = None
    until_ms: int | None = None


class LogPlace(NamedTuple):
    """A place in the log: behind this entry."""

    at_us: int
    entry_id: int


ALL_ENTRIES = LogFilter()


class AuditLog(Searching):
    """What people changed."""

    async def log_page(
        self,
        platform_id: int,
        wanted: LogFilter = ALL_ENTRIES,
        *,
        after: LogPlace | None = None,
        limit: int,
        scan_rows_max: int = SCAN_ROWS_MAX,
    ) -> Page[LogEntry, LogPlace]:
        """A platform's entries, newest first; those of a transaction have one time."""
        account_id = self.account_in_scope(wanted.account_id)
        query = "audit_log_page" if account_id is None else "audit_log_page_account"
        if wanted.resource is not None and wanted.resource_id is not None:
            query = "audit_log_page_resource"
        end = LogPlace(1_000 * (AT_MS_MAX if wanted.until_ms is None else wanted.until_ms), 0)
        found = await self._session.all(
            query,
            platform_id,
            wanted.from_ms or 0,
            *(end if after is None else min(end, after)),
            scan_rows_max,
            limit + 1,
            wanted.actor,
            wanted.resource,
            wanted.resource_id,
            account_id,
        )
        return page_of(found, _entry, _place, limit, scan_rows_max)


def _entry(before: str, after: str, **fields: Any) -> LogEntry:
    return LogEntry(**fields, before=json.loads(before), after=json.loads(after))


def _place(entry: LogEntry) -> LogPlace:
    return LogPlace(entry.at_us, entry.entry_id)
