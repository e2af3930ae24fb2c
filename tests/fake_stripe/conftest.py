"""A fake Stripe for each test, with the real client on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest_asyncio

from tests.support.fake_stripe.face import FakeStripe
from tests.support.stripe_shop import Shop, client_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest_asyncio.fixture
async def shop() -> AsyncIterator[Shop]:
    async with FakeStripe.running(seed="shop") as fake, client_of(fake) as client:
        yield Shop(fake, client)
