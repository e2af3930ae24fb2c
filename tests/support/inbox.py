"""Events of Stripe as tests make them, and a queue that works on them without long waits."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import asyncpg

from gateway.ledger.inbox import NewEvent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.ledger.queue import EventQueue, Work

LIVE, TEST = True, False
POLL_S = 0.2
HEARTBEAT_S = 1.0


def some_event(event_id: str = "evt_1", kind: str = "invoice.paid", **fields: Any) -> NewEvent:
    """An event about the object `in_1`."""
    payload = {"id": event_id, "type": kind, "data": {"object": {"id": "in_1"}}}
    return NewEvent(
        event_id=event_id,
        type=kind,
        object_id="in_1",
        shape="snapshot",
        source="webhook",
        payload=json.dumps(payload),
        status="waiting",
        created_ms=1_700_000_000_000,
    )._replace(**fields)


@asynccontextmanager
async def working(queue: EventQueue, work: Work) -> AsyncIterator[asyncio.Task[None]]:
    """Works on jobs until the block ends, and then finishes those under way."""
    stop = asyncio.Event()
    task = asyncio.create_task(queue.run(work, stop, heartbeat_s=HEARTBEAT_S, poll_s=POLL_S))
    try:
        yield task
    finally:
        stop.set()
        await asyncio.gather(task, return_exceptions=True)


async def jobs(postgres_url: str) -> dict[str, str]:
    """The queue's jobs: their status by the text they carry."""
    connection = await asyncpg.connect(postgres_url)
    try:
        found = await connection.fetch("SELECT payload, status FROM pgqueuer")
    finally:
        await connection.close()
    return {row["payload"].decode(): row["status"] for row in found}


async def statuses(postgres_url: str) -> dict[str, str]:
    """What became of events, by their ids."""
    connection = await asyncpg.connect(postgres_url)
    try:
        found = await connection.fetch("SELECT event_id, status FROM stripe_events")
    finally:
        await connection.close()
    return {row["event_id"]: row["status"] for row in found}


async def execute(postgres_url: str, statement: str, *arguments: object) -> None:
    """By somebody's hand."""
    connection = await asyncpg.connect(postgres_url)
    try:
        await connection.execute(statement, *arguments)
    finally:
        await connection.close()


@asynccontextmanager
async def locked(postgres_url: str, table: str) -> AsyncIterator[None]:
    """Nobody else writes to the table until the block ends."""
    connection = await asyncpg.connect(postgres_url)
    try:
        async with connection.transaction():
            await connection.execute(f"LOCK TABLE {table} IN EXCLUSIVE MODE")
            yield
    finally:
        await connection.close()


async def waits_for_lock(postgres_url: str) -> bool:
    """Whether somebody waits for a table that is locked."""
    connection = await asyncpg.connect(postgres_url)
    try:
        waiting = "SELECT FROM pg_locks WHERE NOT granted AND locktype = 'relation'"
        return bool(await connection.fetchval(f"SELECT EXISTS ({waiting})"))
    finally:
        await connection.close()
