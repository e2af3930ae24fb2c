"""A ledger and counters on servers that are empty before each test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest_asyncio

from gateway.counters import Counters
from gateway.ledger import Ledger
from tests.support.billing_calendar import Calendar
from tests.support.deployment import running_deployment

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


@pytest_asyncio.fixture
async def calendar(clean_redis_url: str, postgres_url: str) -> AsyncIterator[Calendar]:
    async with running_deployment(clean_redis_url, postgres_url) as deployment:
        yield Calendar(deployment)
