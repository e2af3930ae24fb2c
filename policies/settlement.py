"""The durable record of one call, and what an ending costs."""

from __future__ import annotations

from typing import NamedTuple


class Posting(NamedTuple):
    """Microcredits taken from (or held on) one grant."""

    grant_id: int
    microcredits: int


class Settlement(NamedTuple):
    """One row of `settlements`; exactly one per call.

    `call_id` is 32 lower-case hex digits of a UUIDv7. `outbox_id` names the entry in the shard's outbox stream that
    goes once this row is in Postgres; None when Redis could not be asked.
    """

    call_id: str
    shard: int
    outbox_id: str | None
    platform_id: int
    account_id: int
    key_id: int
    route_id: int
    price_version: int
    admitted_ms: int
    settled_ms: int
    ending: str
    status: int
    units: str  # "token=30" or "token=30;image=2"; empty when nothing was metered
    flags: str  # "" or comma-joined words such as "units_missing"
    held_microcredits: int
    charged_microcredits: int
    uncollected_microcredits: int
    postings: tuple[Posting, ...]
