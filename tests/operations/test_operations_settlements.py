"""Calls are found by their request id, and followed exactly once each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gateway.ledger import Ledger
from gateway.ledger.searching import CallFilter, SettledPlace
from gateway.operations.errors import UsageError
from gateway.operations.settlements import (
    FOLLOW_OVERLAP_MS,
    FOLLOW_PAGE_ROWS,
    FOLLOW_PAST_MS_MAX,
    FollowedPage,
    follow_settlements,
    search_settlements,
)
from tests.support.settlements import account_with_grants, new_call_id, settlement

if TYPE_CHECKING:
    from collections.abc import Callable

NOW_MS = 1_795_000_000_000


class Clock:
    """A node's clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.ms = NOW_MS

    def __call__(self) -> int:
        return self.ms


async def settle(ledger: Ledger, *moments_ms: int) -> list[str]:
    calls = [
        settlement(call_id=new_call_id(at - 40), settled_ms=at, admitted_ms=at - 40)
        for at in moments_ms
    ]
    await ledger.record_settlements(calls)
    return [call.call_id for call in calls]


class Follower:
    """A reader as follow_settlements wants it: keeps the place, and the ids of the overlap."""

    def __init__(
        self,
        ledger: Ledger,
        platform_id: int,
        *,
        clock_ms: Callable[[], int],
    ) -> None:
        self._ledger, self._platform_id = ledger, platform_id
        self._clock_ms = clock_ms
        self._after: SettledPlace | None = None
        self._seen: dict[str, int] = {}

    async def read(self) -> FollowedPage:
        moment_ms = self._clock_ms()
        page = await follow_settlements(
            self._ledger, self._platform_id, self._after, moment_ms=moment_ms
        )
        fresh = [row for row in page.rows if row.call_id not in self._seen]
        self._seen.update((row.call_id, row.settled_ms) for row in fresh)
        # However often it still goes back, never to before this.
        since_ms = moment_ms - FOLLOW_OVERLAP_MS
        self._seen = {call: at for call, at in self._seen.items() if at >= since_ms}
        self._after = page.after
        return page._replace(rows=fresh)


async def read(follower: Follower) -> list[str]:
    """All that is new for now."""
    found: list[str] = []
    while True:
        page = await follower.read()
        found += [row.call_id for row in page.rows]
        if page.at_end:
            return found


async def test_each_call_is_read_once_also_if_it_comes_late(postgres_url: str) -> None:
    clock = Clock()
    async with Ledger(postgres_url) as ledger:
        follower = Follower(ledger, 1, clock_ms=clock)
        await settle(ledger, NOW_MS - 60_000)
        assert await read(follower) == [], "what was settled before is not followed"

        first = await settle(ledger, NOW_MS, NOW_MS + 1, NOW_MS + 2)
        assert await read(follower) == first
        clock.ms += FOLLOW_OVERLAP_MS - 1_000
        late = await settle(ledger, NOW_MS + 1)
        more = await settle(ledger, NOW_MS + 900)
        assert await read(follower) == late + more
        clock.ms += FOLLOW_OVERLAP_MS
        assert await read(follower) == []
        assert not follower._seen, "what can not come again is forgotten"
        too_late = await settle(ledger, NOW_MS + 1)
        assert await read(follower) == []
    assert too_late


async def test_more_calls_than_a_page_has_are_all_read_once(postgres_url: str) -> None:
    clock = Clock()
    async with Ledger(postgres_url) as ledger:
        follower = Follower(ledger, 1, clock_ms=clock)
        assert await read(follower) == []
        calls = await settle(ledger, *(NOW_MS + n // 3 for n in range(2 * FOLLOW_PAGE_ROWS + 5)))
        assert sorted(await read(follower)) == sorted(calls)
        clock.ms += 500
        assert await read(follower) == []


async def test_following_can_not_begin_long_ago(postgres_url: str) -> None:
    async with Ledger(postgres_url) as ledger:
        with pytest.raises(UsageError, match="from an hour ago on"):
            await follow_settlements(
                ledger, 1, SettledPlace(NOW_MS - FOLLOW_PAST_MS_MAX - 1), moment_ms=NOW_MS
            )


async def test_a_call_is_found_by_its_request_id(postgres_url: str) -> None:
    async with Ledger(postgres_url) as ledger:
        platform_id, account_id, _ = await account_with_grants(ledger)
        mine = settlement(platform_id=platform_id, account_id=account_id)
        await ledger.record_settlements([mine, settlement(platform_id=99)])

        async def found(request_id: str, wanted: CallFilter = CallFilter()) -> list[str]:  # noqa: B008 -- immutable
            page = await search_settlements(
                ledger, platform_id, wanted, request_id=request_id, limit=5
            )
            return [row.call_id for row in page.rows]

        id_as_uuid = f"{mine.call_id[:8]}-{mine.call_id[8:12]}-{mine.call_id[12:]}".upper()
        assert await found(mine.call_id) == await found(id_as_uuid) == [mine.call_id]
        assert await found(mine.call_id, CallFilter(account_id=account_id)) == [mine.call_id]
        assert await found(mine.call_id, CallFilter(account_id=account_id + 1)) == []
        assert await found(mine.call_id, CallFilter(ending="exhausted")) == []
        assert await found(new_call_id()) == await found("no id") == []
        page = await search_settlements(ledger, platform_id, after="no place", limit=5)
        assert page == ([], None)
