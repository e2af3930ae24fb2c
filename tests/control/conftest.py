"""A running API for the tests of its resources."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest_asyncio

from tests.support.api import Api, running_api

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest_asyncio.fixture
async def api(postgres_url: str, clean_redis_url: str) -> AsyncIterator[Api]:
    async with running_api(postgres_url, clean_redis_url) as running:
        yield running
