"""A node works on events until it is stopped, and then loses none; old ones go."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import pytest_asyncio

from gateway.jobs import stripe_events
from gateway.jobs.stripe_events import OldStripeEvents, StripeEvents, StripeQueueCare
from gateway.ledger import Ledger
from gateway.ledger.inbox import EventKey
from gateway.ledger.queue import JOBS_MAX, EventQueue
from policies.catalog import Platform
from tests.support.inbox import TEST, execute, jobs, some_event, statuses
from tests.support.postgres_gate import postgres_gate
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import pytest

DAY_MS = 86_400_000


@pytest_asyncio.fixture
async def queue(postgres_url: str) -> AsyncIterator[EventQueue]:
    async with EventQueue(postgres_url) as opened:
        yield opened


@pytest_asyncio.fixture
async def platform_id(postgres_url: str) -> int:
    async with Ledger(postgres_url) as ledger:
        return (await ledger.apply_catalog(Platform("demo"), (), ())).platform_id


async def stopped(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()


async def test_a_node_that_stops_finishes_what_it_works_on(
    queue: EventQueue, platform_id: int, postgres_url: str
) -> None:
    await queue.receive(platform_id, TEST, [some_event()])
    begun, finish, finished = asyncio.Event(), asyncio.Event(), []

    async def work(text: str, _tried: int) -> None:
        begun.set()
        await finish.wait()
        finished.append(text)

    task = asyncio.create_task(StripeEvents(queue, work).run())
    await begun.wait()
    task.cancel()
    await asyncio.sleep(0)
    finish.set()
    await asyncio.wait({task})
    assert len(finished) == 1
    assert await jobs(postgres_url) == {}


async def test_what_takes_too_long_then_is_cut_off_and_left_to_others(
    queue: EventQueue, platform_id: int, postgres_url: str
) -> None:
    count = JOBS_MAX + 2
    await queue.receive(platform_id, TEST, [some_event(f"evt_{n}") for n in range(count)])
    begun = []

    async def work(text: str, _tried: int) -> None:
        begun.append(text)
        await asyncio.Event().wait()

    task = asyncio.create_task(StripeEvents(queue, work, stop_timeout_s=0.01).run())
    await eventually(lambda: len(begun) == JOBS_MAX)
    await stopped(task)
    assert list((await jobs(postgres_url)).values()) == ["queued"] * count


async def test_work_goes_on_when_postgres_is_back(
    platform_id: int,
    postgres_url: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(stripe_events, "RESTART_PAUSE_S", 0.05)
    seen = []

    async def work(text: str, _tried: int) -> None:
        seen.append(text)

    async with postgres_gate(postgres_url) as (gate, through), EventQueue(through) as queue:
        gate.shut()
        task = asyncio.create_task(StripeEvents(queue, work).run())
        await eventually(lambda: "wait until Postgres answers" in caplog.text)
        gate.open()
        await queue.receive(platform_id, TEST, [some_event()])
        await eventually(lambda: seen)
        await stopped(task)


async def test_events_that_lost_their_job_are_told_of(
    queue: EventQueue, platform_id: int, postgres_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    care = StripeQueueCare(queue)
    await queue.receive(platform_id, TEST, [some_event()])
    assert await care.sweep() == 0
    await execute(postgres_url, "DELETE FROM pgqueuer")
    assert await care.sweep() == 1
    assert [line.levelno for line in caplog.records] == [logging.WARNING]


async def test_only_what_is_over_and_old_is_deleted(
    queue: EventQueue, platform_id: int, postgres_url: str
) -> None:
    async with Ledger(postgres_url) as ledger:
        for age in ("old", "new"):
            for status in ("done", "ignored", "parked", "waiting"):
                await queue.receive(platform_id, TEST, [some_event(f"evt_{age}_{status}")])
                key = EventKey(platform_id, TEST, f"evt_{age}_{status}")
                await ledger.mark_stripe_event(key, status, 0)
        await execute(
            postgres_url,
            "UPDATE stripe_events SET received_at = now() - interval '2 days'"
            " WHERE event_id LIKE 'evt_old%'",
        )
        old = OldStripeEvents(queue, ledger, events_kept_ms=DAY_MS, log_kept_ms=DAY_MS)
        assert await old.trim() == 2
        assert await old.trim() == 0
        await execute(postgres_url, "UPDATE pgqueuer_log SET created = now() - interval '2 days'")
        assert await old.trim() == 8
    left = set(await statuses(postgres_url))
    assert left == {
        *(f"evt_new_{status}" for status in ("done", "ignored", "parked", "waiting")),
        "evt_old_parked",
        "evt_old_waiting",
    }
