"""A ledger and counters on servers that are empty before each test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest_asyncio

from gateway.counters import Counters
from gateway.ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SHARDS = 8


@pytest_asyncio.fixture
async def ledger(postgres_url: str) -> AsyncIterator[Ledger]:
    async with Ledger(postgres_url) as opened:
        yield opened


@pytest_asyncio.fixture
async def counters(clean_redis_url: str) -> AsyncIterator[Counters]:
    async with Counters(clean_redis_url, shards=SHARDS, deadline_ms=20_000) as opened:
        yield opened
