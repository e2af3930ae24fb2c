"""Operations work on a deployment of the test's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest_asyncio

from tests.support.deployment import Deployment, running_deployment

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest_asyncio.fixture
async def deployment(clean_redis_url: str, postgres_url: str) -> AsyncIterator[Deployment]:
    async with running_deployment(clean_redis_url, postgres_url) as running:
        yield running
