"""Redis servers of a test's own, and accounts in them."""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from gateway.counters import Counters
from tests.support.faulty_redis import FaultyWire, OwnRedis
from tests.support.shards import state

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.counters import AccountKeys

SHARDS = 64
ACCOUNT = 7
KEY = b"5"
CREDITS = 1_000_000
CONTEXT = b"1,7,5,2,9,"
# Where no deadline is meant to pass, a busy machine must not make one pass.
PATIENT_MS = 10_000


class Account:
    """Account 7 with 1 000 000 microcredits in grant 12, and the calls that tests make on it."""

    def __init__(self, counters: Counters) -> None:
        self.counters = counters
        self.keys: AccountKeys = counters.keys(ACCOUNT)

    async def seed(self, **changes: str | int) -> None:
        shard = self.keys.shard
        if await self.counters.close_shard(shard, 1, 0):
            await self.counters.open_shard(shard, 1)
        self.counters.adopt(shard, 1)
        assert await self.counters.load(self.keys, state(CREDITS) | changes)

    def admit(self, call_id: str, amount: int = 1000, *, lease_ms: int = 60_000):  # noqa: ANN201 -- as admit
        return self.counters.admit(self.keys, call_id, KEY, amount, lease_ms, 100, CONTEXT)

    async def admit_abandoned(self, call_id: str):  # noqa: ANN201 -- as admit
        """A call whose lease is over by now."""
        admitted = await self.admit(call_id, lease_ms=1)
        await asyncio.sleep(0.005)
        return admitted

    def settle(self, call_id: str, owed: int = 700):  # noqa: ANN201 -- as settle
        return self.counters.settle(self.keys, call_id, owed, b"completed,200,,")

    async def lot(self) -> tuple[int, int, int]:
        """Available, held, settled of grant 12."""
        fields = (await self.counters.inspect(self.keys)).fields
        return int(fields["a:12"]), int(fields["h:12"]), int(fields["s:12"])


@pytest.fixture
def call_id() -> str:
    return uuid.uuid4().hex


@pytest_asyncio.fixture
async def own_redis() -> AsyncIterator[OwnRedis]:
    async with OwnRedis() as server:
        yield server


@pytest_asyncio.fixture
async def wire(own_redis: OwnRedis) -> AsyncIterator[FaultyWire]:
    async with FaultyWire(own_redis.path) as faulty:
        yield faulty


@pytest_asyncio.fixture
async def account(clean_redis_url: str) -> AsyncIterator[Account]:
    """On the shared server: for what needs no fault."""
    async with Counters(clean_redis_url, shards=SHARDS, deadline_ms=PATIENT_MS) as counters:
        loaded = Account(counters)
        await loaded.seed()
        yield loaded


@pytest_asyncio.fixture
async def own_account(own_redis: OwnRedis) -> AsyncIterator[Account]:
    """On a server that the test may break."""
    async with Counters(own_redis.url, shards=SHARDS, deadline_ms=500) as counters:
        loaded = Account(counters)
        await loaded.seed()
        yield loaded


@pytest_asyncio.fixture
async def wired_account(wire: FaultyWire) -> AsyncIterator[Account]:
    """Behind a wire that the test may cut."""
    async with Counters(wire.url, shards=SHARDS, deadline_ms=PATIENT_MS) as counters:
        loaded = Account(counters)
        await loaded.seed()
        yield loaded
