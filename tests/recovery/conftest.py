"""Two workers, a ledger and counters to look with, on servers that are empty before each test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest_asyncio

from gateway.counters import Counters
from gateway.ledger import Ledger
from tests.support.hands import Hand, hands

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SHARDS = 4


@pytest_asyncio.fixture
async def ledger(postgres_url: str) -> AsyncIterator[Ledger]:
    async with Ledger(postgres_url) as opened:
        yield opened


@pytest_asyncio.fixture
async def counters(clean_redis_url: str) -> AsyncIterator[Counters]:
    async with Counters(clean_redis_url, shards=SHARDS, deadline_ms=20_000) as opened:
        yield opened


@pytest_asyncio.fixture
async def workers(clean_redis_url: str, postgres_url: str) -> AsyncIterator[list[Hand]]:
    async with hands(clean_redis_url, postgres_url, 2, shards=SHARDS) as made:
        yield made
