"""A ledger on a database of the test's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest_asyncio

from gateway.ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest_asyncio.fixture
async def ledger(postgres_url: str) -> AsyncIterator[Ledger]:
    async with Ledger(postgres_url) as opened:
        yield opened
