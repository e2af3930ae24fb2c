"""What workers tell of their traffic is there while they live, and adds up to rates."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest_asyncio

from gateway.counters import Counters
from gateway.counters.traffic import INDEX_TTL_MS, TRAFFIC_BATCH, TRAFFIC_TTL_MS, TrafficRow, since

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

NOW_MS = 1_790_000_000_000
CHAT, SEARCH = 7, 9


@pytest_asyncio.fixture
async def counters(clean_redis_url: str) -> AsyncIterator[Counters]:
    async with Counters(clean_redis_url, shards=4, deadline_ms=10_000) as counters:
        yield counters


async def test_what_workers_tell_is_read_worker_by_worker(counters: Counters) -> None:
    await counters.save_traffic(1, {CHAT: TrafficRow(3, 900, 1)}, NOW_MS)
    await counters.save_traffic(2, {CHAT: TrafficRow(1, 5), SEARCH: TrafficRow(denials=4)}, NOW_MS)
    assert await counters.traffic() == {
        1: {CHAT: TrafficRow(3, 900, 1)},
        2: {CHAT: TrafficRow(1, 5, 0), SEARCH: TrafficRow(0, 0, 4)},
    }


async def test_a_worker_without_a_call_is_there(counters: Counters) -> None:
    await counters.save_traffic(1, {}, NOW_MS)
    assert await counters.traffic() == {1: {}}


async def test_rows_that_do_not_change_stay(counters: Counters) -> None:
    await counters.save_traffic(1, {CHAT: TrafficRow(3), SEARCH: TrafficRow(1)}, NOW_MS)
    await counters.save_traffic(1, {CHAT: TrafficRow(4)}, NOW_MS)
    assert await counters.traffic() == {1: {CHAT: TrafficRow(4), SEARCH: TrafficRow(1)}}


async def test_many_routes_are_written_in_parts(counters: Counters) -> None:
    rows = {route: TrafficRow(route, 2 * route, 0) for route in range(2 * TRAFFIC_BATCH + 1)}
    await counters.save_traffic(1, rows, NOW_MS)
    assert await counters.traffic() == {1: rows}


async def test_a_worker_hears_when_redis_has_forgotten_it(counters: Counters) -> None:
    assert not await counters.save_traffic(1, {CHAT: TrafficRow(3)}, NOW_MS)
    assert await counters.save_traffic(1, {CHAT: TrafficRow(4)}, NOW_MS)
    await counters.command("FLUSHALL")
    assert not await counters.save_traffic(1, {}, NOW_MS)


async def test_a_worker_that_has_ended_is_forgotten(counters: Counters) -> None:
    await counters.save_traffic(1, {CHAT: TrafficRow(3)}, NOW_MS)
    assert 0 < await counters.command("PTTL", "tk:traffic:1") <= TRAFFIC_TTL_MS
    await counters.command("DEL", "tk:traffic:1")  # as its expiry does
    assert await counters.traffic() == {}
    await counters.save_traffic(2, {}, NOW_MS + INDEX_TTL_MS)
    assert await counters.command("ZRANGE", "tk:traffic", 0, -1) == [b"2"]


def test_rates_are_the_difference_of_two_looks_over_all_workers() -> None:
    before = {1: {CHAT: TrafficRow(10, 100, 1)}, 2: {}}
    now = {1: {CHAT: TrafficRow(15, 160, 1)}, 2: {CHAT: TrafficRow(2, 20, 3)}}
    assert since(before, now) == {CHAT: TrafficRow(7, 80, 3)}


def test_rates_jump_neither_when_a_worker_goes_nor_when_one_comes_back() -> None:
    one, two = {CHAT: TrafficRow(10, 100, 1)}, {CHAT: TrafficRow(1_000_000, 5, 0)}
    assert since({1: one, 2: two}, {1: one}) == {CHAT: TrafficRow()}
    assert since({1: one}, {1: one, 2: two}) == {CHAT: TrafficRow()}
