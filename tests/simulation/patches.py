"""Puts the simulation's sides and clock where the product looks for the world.

Only for a process of its own (`python -m tests.simulation`): nothing is put back.
"""

from __future__ import annotations

import os
import random
import secrets
import time
import uuid
from typing import TYPE_CHECKING

import asyncpg

from gateway.counters.endpoint import Endpoint
from tests.simulation.virtual_loop import PROCESS

if TYPE_CHECKING:
    from tests.simulation.postgres_side import PostgresSide
    from tests.simulation.redis_side import RedisSide
    from tests.simulation.virtual_loop import VirtualLoop

_real_time_ns = time.time_ns
_real_monotonic = time.monotonic
_real_connect = asyncpg.connect


def install(loop: VirtualLoop, redis: RedisSide, postgres: PostgresSide, seed: int) -> None:
    """From now on, code that runs in a `Process` meets this loop's clock and these two sides."""

    def time_ns() -> int:
        process = PROCESS.get()
        if process is None:
            return _real_time_ns()
        return loop.now_us * 1_000 + process.clock_offset_ms * 1_000_000

    def monotonic() -> float:
        return _real_monotonic() if PROCESS.get() is None else loop.time()

    async def dial(_: Endpoint, protocol: object) -> None:
        await redis.dial(protocol)  # type: ignore[arg-type]

    async def connect(url: str, **options: object) -> object:
        if PROCESS.get() is None:
            return await _real_connect(url, **options)  # type: ignore[arg-type]
        return await postgres.connect(url, **options)

    chance = random.Random(f"ids of {seed}")
    time.time_ns = time_ns
    time.time = lambda: time_ns() / 1_000_000_000
    time.monotonic = monotonic
    Endpoint.dial = dial  # type: ignore[method-assign,assignment]
    asyncpg.connect = connect
    asyncpg.create_pool = postgres.create_pool  # type: ignore[assignment]
    os.urandom = chance.randbytes
    secrets.choice = chance.choice
    secrets.randbelow = chance.randrange
    secrets.token_bytes = lambda count=32: chance.randbytes(count)
    secrets.token_hex = lambda count=32: chance.randbytes(count).hex()
    uuid.uuid4 = lambda: uuid.UUID(bytes=chance.randbytes(16), version=4)
    # Unseeded generators are seeded by os.urandom in C: give them a seed of ours.
    system = random.Random

    class Seeded(system):  # type: ignore[misc,valid-type]
        def __init__(self, given: object = None) -> None:
            super().__init__(chance.getrandbits(64) if given is None else given)

    random.Random = Seeded  # type: ignore[misc]
    random.seed(seed)
