"""Settled calls: searching them, newest first, and following them as they are settled.

Following (`tollkeeper tail`) reads calls in the order in which Redis settled them. They come to
Postgres some time later, each worker's in batches, so a call may turn up between others that were
read already. A reader that has come to the end therefore goes back by FOLLOW_OVERLAP_MS and reads
that time again, leaving out call ids that it has seen (`tollkeeper tail` does). What is in Postgres
within that time after it was settled is read exactly once, however long the call ran. What comes
later is not, as when Postgres was away or a worker died: searching finds it. The time is counted
from this node's clock, and calls are settled by that of Redis: what they differ by is taken off.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from gateway.clock import now_ms
from gateway.ledger.searching import ALL_CALLS, Page, SettledPlace
from gateway.operations.calls import normal_call_id
from gateway.operations.errors import UsageError

if TYPE_CHECKING:
    from gateway.ledger import Ledger
    from gateway.ledger.rows import SettlementRow
    from gateway.ledger.searching import CallFilter

# A worker's batch waits 50 ms and is written in less than a second; clocks differ by a little.
FOLLOW_OVERLAP_MS = 5_000
# An account's calls are found among all of the platform's since the place: not since long ago.
FOLLOW_PAST_MS_MAX = 3_600_000
FOLLOW_PAGE_ROWS = 200


class FollowedPage(NamedTuple):
    """Calls that were settled behind a place, oldest first, and where to go on, always.

    `at_end`: there are no more for now; `after` lies before these rows, some of which come again.
    """

    rows: list[SettlementRow]
    after: SettledPlace
    at_end: bool


async def search_settlements(
    ledger: Ledger,
    platform_id: int,
    wanted: CallFilter = ALL_CALLS,
    *,
    request_id: str | None = None,
    after: str | None = None,
    limit: int,
) -> Page[SettlementRow, str]:
    """A platform's settled calls that match, newest first; `after` is what the last page said.

    A page may be short or empty and still say where to go on: it looks at a bounded number of
    calls. With `request_id`, as in `X-Request-Id`, it is that call or none.
    """
    for text in (request_id, after):
        if text is not None and normal_call_id(text) is None:
            return Page([], None)
    if request_id is not None:
        wanted = wanted._replace(call_id=normal_call_id(request_id))
    after = None if after is None else normal_call_id(after)
    return await ledger.search_calls(platform_id, wanted, after=after, limit=limit)


async def follow_settlements(
    ledger: Ledger,
    platform_id: int,
    after: SettledPlace | None = None,
    wanted: CallFilter = ALL_CALLS,
    *,
    moment_ms: int | None = None,
    limit: int = FOLLOW_PAGE_ROWS,
) -> FollowedPage:
    """The next calls in the order in which they were settled; without a place, those from now on.

    A stateless step, for readers that keep the place and leave out what they have seen. The
    filter's times are not asked for. `moment_ms` is now.

    Raises: UsageError for a place more than FOLLOW_PAST_MS_MAX ago.
    """
    moment_ms = now_ms() if moment_ms is None else moment_ms
    # Taken before Postgres is asked: what is settled meanwhile lies behind it.
    overlap = SettledPlace(max(moment_ms - FOLLOW_OVERLAP_MS, 0))
    if after is not None and after.settled_ms < moment_ms - FOLLOW_PAST_MS_MAX:
        raise UsageError("calls can be followed from an hour ago on: search for older ones")
    page = await ledger.settled_calls(platform_id, after or overlap, wanted, limit=limit)
    if page.after is not None:
        return FollowedPage(page.rows, page.after, at_end=False)
    return FollowedPage(page.rows, overlap, at_end=True)
