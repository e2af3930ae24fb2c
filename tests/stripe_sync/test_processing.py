"""An event is worked on until it is done; what can't be is parked, and nothing is lost."""

from __future__ import annotations

import asyncio
import logging
import sys
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
import pytest_asyncio

from gateway.counters.errors import NotReady
from gateway.ledger import LedgerRejected, LedgerUnavailable
from gateway.ledger.inbox import EventKey
from gateway.operations.errors import NotToldError
from gateway.operations.withdraw import NotTakenError
from gateway.stripe_sync.errors import (
    KeysMissingError,
    NeedsMendingError,
    StripeMissingError,
    StripeRefusedError,
    StripeUnavailableError,
)
from gateway.stripe_sync.events import HANDLERS
from gateway.stripe_sync.processing import GONE, REFUSAL, TROUBLE, WITHOUT_KEY, Patience, replay
from tests.support.inbox import TEST, execute, jobs, statuses, working
from tests.support.postgres_gate import postgres_gate
from tests.support.stripe_intake import QUICK, running_intake, snapshot_event, thin_event
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.stripe_sync.events import Hint
    from gateway.stripe_sync.sync import Sync
    from tests.support.stripe_intake import Intake

HOUR_MS = 3_600_000
LONG = Patience(tries=10_000, first_ms=1, longest_ms=1)


@pytest_asyncio.fixture
async def intake(postgres_url: str) -> AsyncIterator[Intake]:
    async with running_intake(postgres_url) as running:
        yield running


async def became(intake: Intake, status: str, event_id: str = "evt_1") -> bool:
    return (await statuses(intake.postgres_url))[event_id] == status


async def event(intake: Intake, event_id: str = "evt_1") -> Any:
    found = await intake.ledger.stripe_event(intake.platform_id, event_id)
    assert found is not None
    return found[0]


async def receive(intake: Intake, *documents: Any) -> None:
    for document in documents:
        assert (await intake.post(document)).status == 200


async def told(intake: Intake, problem: str) -> bool:
    return problem in (await event(intake)).problem


async def looks_elsewhere(sync: Sync, _hint: Hint) -> None:
    """A handler that Stripe has not all for that it asks about."""
    with pytest.raises(StripeMissingError):
        await sync.api.ask(lambda v1: v1.invoices.retrieve_async("in_10"))


def failing(*failures: Exception) -> Any:
    """A handler that fails with these, one after the other, the last one for ever."""
    left = list(failures)

    async def handle(_sync: Sync, _hint: Hint) -> None:
        raise left.pop(0) if len(left) > 1 else left[0]

    return handle


async def test_a_handler_is_told_what_the_event_says_and_the_event_is_done(intake: Intake) -> None:
    intake.handlers["invoice.paid"] = intake.record
    await receive(intake, snapshot_event(), thin_event())
    async with intake.working():
        await eventually(lambda: became(intake, "done"))
        await eventually(lambda: became(intake, "done", "evt_thin"))
    told = sorted(intake.seen, key=lambda hint: len(hint.object), reverse=True)
    assert [(one.type, one.object_id, one.created_ms) for one in told] == [
        ("invoice.paid", "in_1", 1_700_000_000_000)
    ] * 2
    assert [dict(one.object) for one in told] == [snapshot_event()["data"]["object"], {}]
    assert await jobs(intake.postgres_url) == {}
    row = await event(intake)
    assert row.done_ms > 0
    assert (row.attempts, row.problem) == (0, "")


async def test_an_event_of_what_stripe_has_not_is_done_and_says_so(
    intake: Intake, caplog: pytest.LogCaptureFixture
) -> None:
    """Drafts are deleted; but whoever wonders why nothing followed is to find out."""
    caplog.set_level(logging.INFO, "tollkeeper.stripe")
    intake.handlers |= {"invoice.paid": HANDLERS["invoice.paid"], "invoice.voided": looks_elsewhere}
    await receive(intake, snapshot_event(), snapshot_event("evt_2", "invoice.voided"))
    await receive(intake, thin_event())
    async with intake.working():
        for event_id in ("evt_1", "evt_2", "evt_thin"):
            await eventually(lambda event_id=event_id: became(intake, "done", event_id))
    assert [(await event(intake, one)).problem for one in ("evt_1", "evt_thin")] == [GONE, GONE]
    assert (await event(intake, "evt_2")).problem == "", "it was not about what is missing"
    lines = [line for line in caplog.messages if "Stripe has no in_1" in line]
    assert len(lines) == 2, "once for each"


async def test_what_nobody_handles_by_now_is_ignored(intake: Intake) -> None:
    intake.handlers["invoice.paid"] = intake.record
    await receive(intake, snapshot_event())
    del intake.handlers["invoice.paid"]
    async with intake.working():
        await eventually(lambda: became(intake, "ignored"))
    assert await jobs(intake.postgres_url) == {}


async def test_events_of_a_mode_that_is_not_the_keys_any_more_change_nothing(
    intake: Intake,
) -> None:
    intake.handlers["invoice.paid"] = intake.record
    await receive(intake, snapshot_event())
    intake.source.change(intake.platform_id, livemode=True)
    async with intake.working():
        await eventually(lambda: became(intake, "ignored"))
    assert intake.seen == []
    assert "other mode" in (await event(intake)).problem


@pytest.mark.parametrize(
    ("failure", "problem"),
    [
        (NeedsMendingError("the customer is nobody's"), "the customer is nobody's"),
        (StripeRefusedError("no such price", "resource_missing"), "no such price"),
        (LedgerRejected("a value"), "A mistake of ours (LedgerRejected): see the log."),
        (KeyError("a secret"), "A mistake of ours (KeyError): see the log."),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_what_is_refused_so_often_is_parked_and_an_error_says_so(
    intake: Intake, caplog: pytest.LogCaptureFixture, failure: Exception, problem: str
) -> None:
    intake.handlers["invoice.paid"] = failing(failure)
    await receive(intake, snapshot_event())
    async with intake.working():
        await eventually(lambda: became(intake, "parked"))
    row = await event(intake)
    assert (row.attempts, row.problem) == (3, problem)
    assert await jobs(intake.postgres_url) == {}
    assert await intake.ledger.inbox_figures() == (0, 1)
    errors = [line for line in caplog.records if "is parked" in line.getMessage()]
    assert [line.levelno for line in errors] == [logging.ERROR]
    assert await intake.queue.sweep() == 0


@pytest.mark.parametrize(
    "trouble",
    [
        StripeUnavailableError("Stripe is away"),
        LedgerUnavailable("Postgres is away"),
        NotReady("Redis is away"),
        NotTakenError("Redis is away"),
        NotToldError("Redis is away"),
        TimeoutError(),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_trouble_is_borne_for_longer_than_a_refusal(
    intake: Intake, trouble: Exception
) -> None:
    calls = 0

    async def handle(_sync: Sync, _hint: Hint) -> None:
        nonlocal calls
        calls += 1
        if calls <= 5:
            raise trouble

    intake.handlers["invoice.paid"] = handle
    await receive(intake, snapshot_event())
    async with intake.working(trouble=LONG):
        await eventually(lambda: became(intake, "done"))
    assert (calls, (await event(intake)).attempts) == (6, 0)


async def test_events_wait_while_their_platform_has_no_key_that_stripe_takes(
    intake: Intake,
) -> None:
    """Whoever replaces a key that was revoked days ago has nothing to replay."""

    async def ask(sync: Sync, hint: Hint) -> None:
        calls.append(hint.type)
        await sync.api.ask(lambda v1: v1.customers.list_async())

    calls: list[str] = []
    intake.handlers["invoice.paid"] = ask
    await receive(intake, snapshot_event())
    good = intake.source.by_platform[intake.platform_id].secret_key
    intake.source.change(intake.platform_id, secret_key="sk_test_revoked")
    async with intake.working(without_key=LONG):
        await eventually(lambda: len(calls) > QUICK.tries)
        intake.source.failure = KeysMissingError("demo", "env:KEY: it is not set")
        await eventually(lambda: told(intake, "can't be used"))
        row = await event(intake)
        assert (row.status, row.attempts) == ("waiting", 0)
        assert "env:" not in row.problem
        intake.source.failure = None
        intake.source.change(intake.platform_id, secret_key=good)
        await eventually(lambda: became(intake, "done"))


async def test_trouble_that_never_ends_is_parked_as_well(intake: Intake) -> None:
    intake.handlers["invoice.paid"] = failing(StripeUnavailableError("Stripe is away"))
    await receive(intake, snapshot_event())
    async with intake.working():
        await eventually(lambda: became(intake, "parked"))
    assert (await event(intake)).problem == "Stripe is away"


async def test_a_refusal_after_trouble_counts_from_one(intake: Intake) -> None:
    trouble, refusal = StripeUnavailableError("away"), NeedsMendingError("mend it")
    intake.handlers["invoice.paid"] = failing(*[trouble] * 5, refusal)
    await receive(intake, snapshot_event())
    async with intake.working(trouble=LONG):
        await eventually(lambda: became(intake, "parked"))
    assert (await event(intake)).attempts == 3


async def test_a_handler_that_hangs_makes_room_for_others(intake: Intake) -> None:
    async def hang(_sync: Sync, hint: Hint) -> None:
        if hint.created_ms:
            await asyncio.Event().wait()

    intake.handlers["invoice.paid"] = hang
    await receive(intake, snapshot_event())
    async with intake.working(timeout_s=0.01):
        await eventually(lambda: became(intake, "parked"))
    assert (await event(intake)).problem == "It took too long."


async def test_a_platform_without_stripe_by_now_is_something_to_mend(intake: Intake) -> None:
    intake.handlers["invoice.paid"] = intake.record
    await receive(intake, snapshot_event())
    del intake.source.by_platform[intake.platform_id]
    async with intake.working():
        await eventually(lambda: became(intake, "parked"))
    assert "has no Stripe" in (await event(intake)).problem


def test_how_long_is_waited() -> None:
    refused = [REFUSAL.delay_ms(failed) for failed in range(1, REFUSAL.tries + 1)]
    assert refused[:3] == [10_000, 20_000, 40_000]
    assert refused[-1] is None
    waited = sum(delay for delay in refused if delay)
    keyless = [WITHOUT_KEY.delay_ms(failed) or 0 for failed in range(1, WITHOUT_KEY.tries)]
    assert 3 * 24 * HOUR_MS <= sum(keyless) < 4 * 24 * HOUR_MS
    assert HOUR_MS < waited < 2 * HOUR_MS
    troubled = [TROUBLE.delay_ms(failed) or 0 for failed in range(1, TROUBLE.tries + 1)]
    assert 3 * 24 * HOUR_MS <= sum(troubled) < 4 * 24 * HOUR_MS
    assert max(troubled) == TROUBLE.longest_ms
    assert TROUBLE.delay_ms(TROUBLE.tries) is None


async def test_a_parked_event_that_is_replayed_is_tried_as_if_it_had_just_come(
    intake: Intake,
) -> None:
    intake.handlers["invoice.paid"] = failing(NeedsMendingError("mend it"))
    await receive(intake, snapshot_event())
    async with intake.working():
        await eventually(lambda: became(intake, "parked"))
        intake.handlers["invoice.paid"] = intake.record
        assert await replay(intake.ledger, intake.queue, intake.platform_id, "evt_1")
        await eventually(lambda: became(intake, "done"))
    assert not await replay(intake.ledger, intake.queue, intake.platform_id, "evt_none")
    assert not await replay(intake.ledger, intake.queue, intake.platform_id + 1, "evt_1")


async def test_an_outcome_that_postgres_can_not_be_told_is_found_again(postgres_url: str) -> None:
    async with (
        postgres_gate(postgres_url) as (gate, through),
        running_intake(through, postgres_url) as intake,
    ):

        async def handle(_sync: Sync, hint: Hint) -> None:
            intake.seen.append(hint)
            if len(intake.seen) == 1:
                gate.shut()

        intake.handlers["invoice.paid"] = handle
        await receive(intake, snapshot_event())
        key = EventKey(intake.platform_id, TEST, "evt_1")
        assert await intake.processor().work(key.text, 0) == 1
        assert await intake.processor().work(key.text, 1) == 1
        gate.open()
        async with intake.working():
            await eventually(lambda: became_at(postgres_url, "done"))
        assert len(intake.seen) == 2


async def became_at(postgres_url: str, status: str) -> bool:
    return (await statuses(postgres_url))["evt_1"] == status


# A node of its own that dies at one place, and what it does there.
NODE = """
import asyncio, os, sys
from types import SimpleNamespace
from gateway.ledger import Ledger
from gateway.ledger.inbox import Inbox
from gateway.ledger.queue import EventQueue
from gateway.stripe_sync.processing import Processor

url, death = sys.argv[1:]

def die(place):
    if place == death:
        os._exit(9)

class Books(Ledger):
    async def waiting_stripe_event(self, key):
        die("taken")
        return await super().waiting_stripe_event(key)

    async def mark_stripe_event(self, *told):
        die("before mark")
        marked = await super().mark_stripe_event(*told)
        die("after mark")
        return marked

class Billing:
    def __init__(self, ledger):
        self.ledger = ledger

    async def sync(self, platform_id):
        sync = SimpleNamespace(ledger=self.ledger, livemode=False)
        sync.noting = lambda missing: sync
        return sync

async def give(sync, hint):
    async with sync.ledger.transaction_apart() as session:
        session._queries = {"give": "INSERT INTO given VALUES ($1) ON CONFLICT DO NOTHING"}
        await session.value("give", hint.object_id)
        die("before commit")
    die("after commit")

async def main():
    async with Books(url) as ledger, EventQueue(url) as queue:
        work = Processor(Billing(ledger), handlers={"invoice.paid": give}).work
        stop = asyncio.Event()
        running = asyncio.create_task(queue.run(work, stop, heartbeat_s=1.0, poll_s=0.1))
        await asyncio.to_thread(sys.stdin.readline)
        stop.set()
        await running

asyncio.run(main())
"""
DEATHS = ("taken", "before commit", "after commit", "before mark", "after mark")


@pytest.mark.parametrize("death", DEATHS)
async def test_a_node_that_dies_between_two_steps_leaves_the_event_to_the_next(
    intake: Intake, death: str
) -> None:
    url = intake.postgres_url
    await execute(url, "CREATE TABLE given (object_id text PRIMARY KEY)")
    intake.handlers["invoice.paid"] = intake.record
    await receive(intake, snapshot_event())
    dying = await asyncio.create_subprocess_exec(
        sys.executable, "-c", NODE, url, death, stdin=asyncio.subprocess.PIPE
    )
    assert await asyncio.wait_for(dying.wait(), 30) == 9
    assert list((await jobs(url)).values()) == ["picked"]
    next_one = await asyncio.create_subprocess_exec(
        sys.executable, "-c", NODE, url, "never", stdin=asyncio.subprocess.PIPE
    )
    try:
        await eventually(lambda: no_jobs(url))
    finally:
        await next_one.communicate(b"\n")
    assert next_one.returncode == 0
    assert await statuses(url) == {"evt_1": "done"}
    assert await count(url, "given") == 1


async def no_jobs(url: str) -> bool:
    return await jobs(url) == {}


async def count(url: str, table: str) -> int:
    connection = await asyncpg.connect(url)
    try:
        return int(await connection.fetchval(f"SELECT count(*) FROM {table}"))
    finally:
        await connection.close()


async def test_two_nodes_do_not_work_on_an_event_at_the_same_time(intake: Intake) -> None:
    running = most = 0

    async def handle(_sync: Sync, _hint: Hint) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        intake.seen.append(_hint)

    intake.handlers["invoice.paid"] = handle
    documents = [snapshot_event(f"evt_{number}") for number in range(12)]
    await receive(intake, *documents)
    work = intake.processor().work
    async with working(intake.queue, work), working(intake.queue, work):
        await eventually(lambda: no_jobs(intake.postgres_url))
    assert len(intake.seen) == len(documents)
