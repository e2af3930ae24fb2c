"""An event is kept once, with one job; and whoever dies, it is worked on until it is done."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import asyncpg
import pytest
import pytest_asyncio

from gateway.ledger import Ledger, LedgerRejected, LedgerUnavailable
from gateway.ledger.inbox import EventKey
from gateway.ledger.queue import (
    GATHERED_MAX,
    HEARTBEAT_S,
    JOBS_MAX,
    TOGETHER_MAX,
    EventQueue,
)
from policies.catalog import Platform
from tests.support.inbox import (
    LIVE,
    TEST,
    execute,
    jobs,
    locked,
    some_event,
    statuses,
    waits_for_lock,
    working,
)
from tests.support.postgres_gate import postgres_gate
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ALL_JOBS_GONE: dict[str, str] = {}


@pytest_asyncio.fixture
async def queue(postgres_url: str) -> AsyncIterator[EventQueue]:
    async with EventQueue(postgres_url) as opened:
        yield opened


@pytest_asyncio.fixture
async def platform_id(ledger: Ledger) -> int:
    return (await ledger.apply_catalog(Platform("demo"), (), ())).platform_id


async def test_an_event_and_its_job_are_there_together_once(
    queue: EventQueue, platform_id: int, postgres_url: str
) -> None:
    key = EventKey(platform_id, TEST, "evt_1")
    answers = await asyncio.gather(
        *(queue.receive(platform_id, TEST, [some_event()]) for _ in range(8))
    )
    assert [new for new in answers if new] == [[key]]
    assert await jobs(postgres_url) == {key.text: "queued"}
    assert EventKey.of(key.text) == key


async def test_the_same_id_of_the_other_mode_or_platform_is_another_event(
    queue: EventQueue, ledger: Ledger, platform_id: int, postgres_url: str
) -> None:
    other = (await ledger.apply_catalog(Platform("other"), (), ())).platform_id
    for whose, livemode in ((platform_id, TEST), (platform_id, LIVE), (other, TEST)):
        assert await queue.receive(whose, livemode, [some_event()])
    assert len(await jobs(postgres_url)) == 3


async def test_what_nobody_has_a_use_for_gets_a_job_once_somebody_has(
    queue: EventQueue, platform_id: int, postgres_url: str
) -> None:
    ignored = some_event(status="ignored")
    assert await queue.receive(platform_id, TEST, [ignored]) == []
    assert await jobs(postgres_url) == {}
    assert await queue.receive(platform_id, TEST, [ignored]) == []
    assert await queue.receive(platform_id, TEST, [some_event()])
    assert await queue.receive(platform_id, TEST, [ignored]) == []
    assert await statuses(postgres_url) == {"evt_1": "waiting"}
    assert len(await jobs(postgres_url)) == 1


async def test_of_several_events_all_are_kept_or_none(
    queue: EventQueue, platform_id: int, postgres_url: str
) -> None:
    with pytest.raises(LedgerRejected):
        await queue.receive(
            platform_id, TEST, [some_event("evt_1"), some_event("evt_2", payload="{")]
        )
    assert await statuses(postgres_url) == {}
    assert await jobs(postgres_url) == {}


async def test_an_event_without_its_job_is_never_committed(
    platform_id: int, postgres_url: str
) -> None:
    async with (
        postgres_gate(postgres_url) as (gate, through),
        EventQueue(through) as queue,
        locked(postgres_url, "pgqueuer"),
    ):
        receiving = asyncio.create_task(queue.receive(platform_id, TEST, [some_event()]))
        await eventually(lambda: waits_for_lock(postgres_url))  # the event is written
        gate.shut()
        with pytest.raises(LedgerUnavailable):
            await receiving
    assert await statuses(postgres_url) == {}
    assert await jobs(postgres_url) == {}


async def test_a_commit_whose_answer_was_cut_off_leaves_both(
    platform_id: int, postgres_url: str
) -> None:
    async with postgres_gate(postgres_url) as (gate, through), EventQueue(through) as queue:
        gate.lose_next_answer(b"COMMIT")
        with pytest.raises(LedgerUnavailable):
            await queue.receive(platform_id, TEST, [some_event()])
    assert await statuses(postgres_url) == {"evt_1": "waiting"}
    assert list(await jobs(postgres_url)) == [EventKey(platform_id, TEST, "evt_1").text]


async def test_a_job_is_tried_again_until_it_is_over(
    queue: EventQueue, platform_id: int, postgres_url: str
) -> None:
    await queue.receive(platform_id, TEST, [some_event()])
    tries = []

    async def work(text: str, tried: int) -> int | None:
        tries.append((text, tried))
        return None if tried == 2 else 1

    async with working(queue, work):
        await eventually(lambda: len(tries) == 3)
    key = EventKey(platform_id, TEST, "evt_1").text
    assert tries == [(key, 0), (key, 1), (key, 2)]
    assert await jobs(postgres_url) == ALL_JOBS_GONE


async def test_no_more_than_so_many_jobs_run_at_once(queue: EventQueue, platform_id: int) -> None:
    await queue.receive(platform_id, TEST, [some_event(f"evt_{n}") for n in range(3 * JOBS_MAX)])
    running = most = done = 0
    gate = asyncio.Event()

    async def work(_text: str, _tried: int) -> None:
        nonlocal running, most, done
        running += 1
        most = max(most, running)
        await gate.wait()
        running -= 1
        done += 1

    async with working(queue, work):
        await eventually(lambda: running == JOBS_MAX)
        gate.set()
        await eventually(lambda: done == 3 * JOBS_MAX)
    assert most == JOBS_MAX


async def test_stopping_finishes_what_is_under_way_and_takes_nothing_new(
    queue: EventQueue, platform_id: int, postgres_url: str
) -> None:
    count = JOBS_MAX + 3
    await queue.receive(platform_id, TEST, [some_event(f"evt_{n}") for n in range(count)])
    begun, finished = [], []
    gate, stop = asyncio.Event(), asyncio.Event()

    async def work(text: str, _tried: int) -> None:
        begun.append(text)
        await gate.wait()
        finished.append(text)

    task = asyncio.create_task(queue.run(work, stop, poll_s=0.2))
    await eventually(lambda: len(begun) == JOBS_MAX)
    stop.set()
    gate.set()
    await task
    assert sorted(finished) == sorted(begun)
    assert len(await jobs(postgres_url)) == count - len(begun)


async def test_work_that_is_cut_off_is_free_for_the_next(
    queue: EventQueue, platform_id: int, postgres_url: str
) -> None:
    await queue.receive(platform_id, TEST, [some_event()])
    begun = asyncio.Event()

    async def work(_text: str, _tried: int) -> None:
        begun.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(queue.run(work, asyncio.Event()))
    await begun.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert list((await jobs(postgres_url)).values()) == ["queued"]
    assert await queue.sweep() == 0


async def test_a_job_that_fails_unforeseen_is_held_and_swept_up(
    queue: EventQueue, platform_id: int, postgres_url: str
) -> None:
    await queue.receive(platform_id, TEST, [some_event()])

    async def work(_text: str, _tried: int) -> None:
        raise RuntimeError("nobody foresaw this")

    async with working(queue, work):
        await eventually(lambda: _all(postgres_url, "failed"))
    assert await queue.sweep() == 1
    assert list((await jobs(postgres_url)).values()) == ["queued"]


async def test_only_events_that_wait_are_swept_up(
    queue: EventQueue, ledger: Ledger, platform_id: int, postgres_url: str
) -> None:
    ends = ("done", "ignored", "parked", "waiting")
    for status in ends:
        await queue.receive(platform_id, TEST, [some_event(f"evt_{status}")])
        key = EventKey(platform_id, TEST, f"evt_{status}")
        assert await ledger.mark_stripe_event(key, status, 1, "why")
    await execute(postgres_url, "DELETE FROM pgqueuer")
    assert await queue.sweep() == 1
    assert list(await jobs(postgres_url)) == [EventKey(platform_id, TEST, "evt_waiting").text]


@pytest.mark.parametrize("status", ["done", "ignored", "parked", "waiting"])
async def test_a_replayed_event_waits_with_one_job_that_is_due(
    queue: EventQueue, ledger: Ledger, platform_id: int, postgres_url: str, status: str
) -> None:
    key = EventKey(platform_id, TEST, "evt_1")
    await queue.receive(platform_id, TEST, [some_event()])
    await ledger.mark_stripe_event(key, status, 7, "why")
    if status == "waiting":  # its next try is far away
        await execute(postgres_url, "UPDATE pgqueuer SET execute_after = now() + interval '1 day'")
    else:
        await execute(postgres_url, "DELETE FROM pgqueuer")
    assert await queue.replay(key)
    assert await jobs(postgres_url) == {key.text: "queued"}
    event = await ledger.waiting_stripe_event(key)
    assert event is not None
    assert event.attempts == 0
    seen = []

    async def work(text: str, _tried: int) -> None:
        seen.append(text)

    async with working(queue, work):
        await eventually(lambda: seen == [key.text])


async def test_an_event_is_replayed_although_its_last_job_is_about_to_go(
    queue: EventQueue, ledger: Ledger, platform_id: int, postgres_url: str
) -> None:
    key = EventKey(platform_id, TEST, "evt_1")
    await queue.receive(platform_id, TEST, [some_event()])
    begun = []
    gate = asyncio.Event()

    async def work(text: str, _tried: int) -> None:
        begun.append(text)
        if len(begun) == 1:
            await ledger.mark_stripe_event(key, "parked", 1, "why")
            await gate.wait()

    async with working(queue, work):
        await eventually(lambda: begun)
        for _ in range(2):
            assert await queue.replay(key)
        gate.set()
        await eventually(lambda: len(begun) == 2)
    assert begun == [key.text] * 2
    assert await jobs(postgres_url) == ALL_JOBS_GONE


async def test_an_event_that_never_came_can_not_be_replayed(
    queue: EventQueue, platform_id: int, postgres_url: str
) -> None:
    assert not await queue.replay(EventKey(platform_id, TEST, "evt_none"))
    assert await jobs(postgres_url) == {}


KILLED = """
import asyncio, sys
from gateway.ledger.queue import EventQueue

async def work(text, tried):
    print("begun", flush=True)
    await asyncio.Event().wait()

async def main():
    async with EventQueue(sys.argv[1]) as queue:
        await queue.run(work, asyncio.Event(), heartbeat_s=1.0)

asyncio.run(main())
"""


async def test_the_jobs_of_a_killed_node_are_taken_by_another(
    queue: EventQueue, platform_id: int, postgres_url: str
) -> None:
    await queue.receive(platform_id, TEST, [some_event()])
    node = await asyncio.create_subprocess_exec(
        sys.executable, "-c", KILLED, postgres_url, stdout=subprocess.PIPE
    )
    assert node.stdout is not None
    assert await node.stdout.readline() == b"begun\n"
    node.kill()
    await node.wait()
    assert await queue.sweep() == 0  # nothing tells yet that it is dead
    seen = []

    async def work(text: str, _tried: int) -> None:
        seen.append(text)

    async with working(queue, work):
        await eventually(lambda: seen == [EventKey(platform_id, TEST, "evt_1").text])
    assert await jobs(postgres_url) == ALL_JOBS_GONE
    assert HEARTBEAT_S > 1.0


async def test_a_lost_connection_ends_the_run_and_the_next_goes_on(
    ledger: Ledger, platform_id: int, postgres_url: str
) -> None:
    async with postgres_gate(postgres_url) as (gate, through), EventQueue(through) as queue:
        begun, finish = asyncio.Event(), asyncio.Event()
        key = EventKey(platform_id, TEST, "evt_1")

        async def work(_text: str, _tried: int) -> None:
            begun.set()
            await finish.wait()
            await ledger.mark_stripe_event(key, "done", 0)

        await queue.receive(platform_id, TEST, [some_event()])
        task = asyncio.create_task(queue.run(work, asyncio.Event(), heartbeat_s=1.0, poll_s=0.1))
        await begun.wait()
        gate.shut()
        finish.set()
        with pytest.raises(LedgerUnavailable):
            await task
        assert await statuses(postgres_url) == {"evt_1": "done"}
        gate.open()
        async with working(queue, work):
            await eventually(lambda: _all(postgres_url))


async def test_the_environment_does_not_name_the_queues_tables(postgres_url: str) -> None:
    script = (
        "import asyncio, sys\n"
        "from gateway.ledger.queue import EventQueue\n"
        "async def main():\n"
        "    async with EventQueue(sys.argv[1]) as queue:\n"
        "        print(await queue.sweep())\n"
        "        stop = asyncio.Event()\n"
        "        stop.set()\n"
        "        await queue.run(None, stop)\n"
        "asyncio.run(main())\n"
    )
    named = {"FUNCTION": "x", "CHANNEL": "y", "PGQUEUER_QUEUE_TABLE": "z", "PGQUEUER_PREFIX": "p"}
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", script, postgres_url],
        env=os.environ | named,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "0\n"), done.stderr


async def test_the_queues_log_is_kept_for_some_time_only(
    queue: EventQueue, platform_id: int, postgres_url: str
) -> None:
    await queue.receive(platform_id, TEST, [some_event(f"evt_{n}") for n in range(3)])
    assert await queue.trim_log(60_000, 10) == 0
    await execute(postgres_url, "UPDATE pgqueuer_log SET created = now() - interval '2 minutes'")
    assert [await queue.trim_log(60_000, 2) for _ in range(3)] == [2, 1, 0]
    assert len(await jobs(postgres_url)) == 3


async def _all(postgres_url: str, *wanted: str) -> bool:
    return list((await jobs(postgres_url)).values()) == list(wanted)


async def test_events_that_come_together_take_few_commits_and_each_is_told_its_own(
    queue: EventQueue, platform_id: int, postgres_url: str
) -> None:
    count = 100
    events = [some_event(f"evt_{number}") for number in range(count)]
    answers = await asyncio.gather(
        *(queue.receive_one(platform_id, TEST, one) for one in [*events, *events]),
        queue.receive_one(platform_id, LIVE, events[0]),
    )
    assert answers == [True] * count + [False] * count + [True]
    assert len(await statuses(postgres_url)) == count
    assert len(await jobs(postgres_url)) == count + 1
    commits = await distinct_commits(postgres_url)
    assert commits <= 2 * count // TOGETHER_MAX + 2


async def test_a_value_that_postgres_refuses_keeps_no_other_event_out(
    queue: EventQueue, platform_id: int, postgres_url: str
) -> None:
    events = [some_event(f"evt_{number}") for number in range(5)]
    events[3] = events[3]._replace(payload="{")
    answers = await asyncio.gather(
        *(queue.receive_one(platform_id, TEST, one) for one in events), return_exceptions=True
    )
    assert [type(answer) for answer in answers] == [bool, bool, bool, LedgerRejected, bool]
    assert len(await statuses(postgres_url)) == 4


async def test_who_gathers_while_postgres_is_away_is_told_so(
    platform_id: int, postgres_url: str
) -> None:
    async with postgres_gate(postgres_url) as (gate, through), EventQueue(through) as queue:
        gate.shut()
        answers = await asyncio.gather(
            *(queue.receive_one(platform_id, TEST, some_event(f"evt_{n}")) for n in range(5)),
            return_exceptions=True,
        )
        assert {type(answer) for answer in answers} == {LedgerUnavailable}
        gate.open()
        assert await queue.receive_one(platform_id, TEST, some_event())


async def test_no_more_events_wait_for_their_commit_than_there_is_room_for(
    queue: EventQueue, platform_id: int, postgres_url: str
) -> None:
    async with locked(postgres_url, "pgqueuer"):
        first = asyncio.create_task(queue.receive_one(platform_id, TEST, some_event()))
        await eventually(lambda: waits_for_lock(postgres_url))
        waiting = [
            asyncio.create_task(queue.receive_one(platform_id, TEST, some_event("evt_2")))
            for _ in range(GATHERED_MAX)
        ]
        await asyncio.sleep(0)
        with pytest.raises(LedgerUnavailable):
            await queue.receive_one(platform_id, TEST, some_event("evt_3"))
    assert await first
    assert sum(await asyncio.gather(*waiting)) == 1


async def test_who_does_not_wait_any_longer_holds_nobody_up(
    queue: EventQueue, platform_id: int, postgres_url: str
) -> None:
    async with locked(postgres_url, "pgqueuer"):
        impatient = asyncio.create_task(queue.receive_one(platform_id, TEST, some_event()))
        await eventually(lambda: waits_for_lock(postgres_url))
        patient = asyncio.create_task(queue.receive_one(platform_id, TEST, some_event("evt_2")))
        impatient.cancel()
        await asyncio.gather(impatient, return_exceptions=True)
    assert await patient
    assert set(await statuses(postgres_url)) == {"evt_1", "evt_2"}


async def distinct_commits(postgres_url: str) -> int:
    connection = await asyncpg.connect(postgres_url)
    try:
        return int(
            await connection.fetchval("SELECT count(DISTINCT xmin::text) FROM stripe_events")
        )
    finally:
        await connection.close()


async def test_the_many_events_of_one_platform_do_not_keep_those_of_another(
    queue: EventQueue, ledger: Ledger, platform_id: int
) -> None:
    other = (await ledger.apply_catalog(Platform("other"), (), ())).platform_id
    for start in range(0, 300, 10):
        events = [some_event(f"evt_{start + n}") for n in range(10)]
        await queue.receive(platform_id, TEST, events)
    await queue.receive(other, TEST, [some_event()])
    order: list[int] = []

    async def work(text: str, _tried: int) -> None:
        order.append(EventKey.of(text).platform_id)

    async with working(queue, work):
        await eventually(lambda: len(order) == 301)
    assert order.index(other) < 30
