"""The shard under test, on each version of Redis that is supported."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import redis

from tests.support.lua_calls import NOW_US
from tests.support.lua_shard import LuaShard

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(params=["redis_url", "redis7_url"])
def client(request: pytest.FixtureRequest) -> Iterator[redis.Redis]:
    url = request.getfixturevalue(request.param)
    with redis.Redis.from_url(url, decode_responses=True) as client:
        yield client


@pytest.fixture
def shard(client: redis.Redis) -> Iterator[LuaShard]:
    shard = LuaShard(client)
    yield shard
    shard.clear()


@pytest.fixture
def open_shard(shard: LuaShard) -> LuaShard:
    """Open under epoch 3 at NOW_US, with seq 1."""
    shard.set_clock(NOW_US)
    shard.start(3)
    return shard
