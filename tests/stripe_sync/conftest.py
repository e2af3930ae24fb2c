"""A market and a till as they are when nothing is said of them; files that want more say what."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest_asyncio

from tests.support.market import opened_market
from tests.support.payments_made import opened_till

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.market import Market
    from tests.support.payments_made import Till


@pytest_asyncio.fixture
async def market(clean_redis_url: str, postgres_url: str) -> AsyncIterator[Market]:
    async with opened_market(clean_redis_url, postgres_url) as opened:
        yield opened


@pytest_asyncio.fixture
async def till(clean_redis_url: str, postgres_url: str) -> AsyncIterator[Till]:
    async with opened_till(clean_redis_url, postgres_url) as opened:
        yield opened
