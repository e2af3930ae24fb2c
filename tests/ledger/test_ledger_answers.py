"""Answers of idempotency keys: kept once per key, for a day, behind the calls."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import asyncpg
import pytest

from gateway.jobs.answers import OldAnswers
from gateway.ledger import Ledger, LedgerRejected, LedgerUnavailable
from gateway.ledger.answer_writer import ROW_BYTES, AnswerWriter
from gateway.ledger.answers import AnswerRow, CallFate, KeptAnswer
from policies.idempotency import IDEMPOTENT_TTL_MS
from tests.support.settlements import late_settlement, new_call_id, settlement
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

DIGEST = "d" * 32
PRINT = "f" * 64


def row(number: int = 0, **changes: object) -> AnswerRow:
    plain = AnswerRow(1, 7, f"{number:032x}", PRINT, new_call_id(), receipt=False, answer=b"a\0b")
    return plain._replace(**changes)  # type: ignore[arg-type]


@asynccontextmanager
async def running(writer: AnswerWriter) -> AsyncIterator[AnswerWriter]:
    task = asyncio.create_task(writer.run())
    try:
        yield writer
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


class Store:
    """Keeps batches; fails as long as it is told to."""

    def __init__(self) -> None:
        self.batches: list[list[AnswerRow]] = []
        self.failures: list[Exception] = []

    async def save_answers(self, answers: list[AnswerRow]) -> None:
        if self.failures:
            raise self.failures.pop(0)
        self.batches.append(list(answers))


async def age(postgres_url: str, by: str) -> None:
    connection = await asyncpg.connect(postgres_url)
    await connection.execute(f"UPDATE idempotent_answers SET created_at = now() - interval '{by}'")
    await connection.close()


async def test_an_answer_comes_back_as_it_was_to_its_account_only(ledger: Ledger) -> None:
    kept = row()
    await ledger.save_answers([kept, row(1)])
    await ledger.save_answers([kept])
    assert await ledger.answer_of(7, kept.digest) == KeptAnswer(kept.call_id, PRINT, b"a\0b")
    assert await ledger.answer_of(8, kept.digest) is None
    assert await ledger.answer_of(7, f"{2:032x}") is None


async def test_a_key_has_the_answer_of_its_last_call(ledger: Ledger) -> None:
    first, second = row(), row(answer=b"second", fingerprint="e" * 64)
    await ledger.save_answers([first, second])
    found = await ledger.answer_of(7, first.digest)
    assert found == KeptAnswer(second.call_id, "e" * 64, b"second")


async def test_a_receipt_never_replaces_the_answer_of_its_call(ledger: Ledger) -> None:
    answer = row()
    receipt = answer._replace(receipt=True, answer=b"receipt")
    await ledger.save_answers([receipt])
    await ledger.save_answers([answer])
    await ledger.save_answers([receipt])
    found = await ledger.answer_of(7, answer.digest)
    assert found is not None
    assert found.answer == b"a\0b"
    await ledger.save_answers([receipt._replace(call_id=new_call_id())])
    found = await ledger.answer_of(7, answer.digest)
    assert found is not None
    assert found.answer == b"receipt", "of another call it does"


async def test_writers_of_the_same_keys_do_not_deadlock(ledger: Ledger) -> None:
    numbers = range(40)
    await asyncio.gather(
        *(
            ledger.save_answers([row(number) for number in (numbers if up else reversed(numbers))])
            for up in (True, False) * 6
        )
    )
    assert all([await ledger.answer_of(7, f"{number:032x}") for number in numbers])


async def test_an_answer_is_found_for_a_day_and_then_deleted(
    ledger: Ledger, postgres_url: str
) -> None:
    await ledger.save_answers([row(number) for number in range(700)])
    await age(postgres_url, "23 hours 59 minutes")
    assert await ledger.answer_of(7, f"{1:032x}") is not None
    assert await OldAnswers(ledger).delete() == 0
    await age(postgres_url, "24 hours")
    assert await ledger.answer_of(7, f"{1:032x}") is None
    await ledger.save_answers([row(1)])
    assert await OldAnswers(ledger).delete() == 699
    assert await ledger.answer_of(7, f"{1:032x}") is not None, "written anew"
    assert IDEMPOTENT_TTL_MS == 86_400_000


async def test_how_a_call_ended_is_known_from_its_settlement_or_what_waits_for_one(
    ledger: Ledger,
) -> None:
    settled = settlement(charged_microcredits=5)
    late = late_settlement(call_id=new_call_id(), owed_microcredits=9, ending="completed")
    await ledger.record_settlements([settled])
    await ledger.add_late_settlement(late)
    assert await ledger.fate_of(settled.call_id) == CallFate("completed", 200, 5)
    assert await ledger.fate_of(late.call_id) == CallFate("completed", late.status, 9)
    assert await ledger.fate_of(new_call_id()) is None


async def test_an_answer_that_makes_no_sense_is_refused(ledger: Ledger) -> None:
    with pytest.raises(LedgerRejected):
        await ledger.save_answers([row(digest="dd")])


async def test_the_writer_brings_every_answer_while_postgres_comes_and_goes() -> None:
    store = Store()
    store.failures = [LedgerUnavailable("away"), LedgerUnavailable("still")]
    rows = [row(number) for number in range(100)]
    async with running(AnswerWriter(store)) as writer:
        for each in rows[:50]:
            assert writer.add(each)
        await writer.flush(10)
        for each in rows[50:]:
            writer.add(each)
        await writer.drain(10)
    assert [each for batch in store.batches for each in batch] == rows
    assert len(writer) == 0


async def test_answers_that_postgres_refuses_hold_up_nobody() -> None:
    store = Store()
    store.failures = [LedgerRejected("no")]
    async with running(AnswerWriter(store)) as writer:
        writer.add(row(1))
        await eventually(lambda: not len(writer))
        writer.add(row(2))
        await writer.flush(10)
    assert [each.digest for batch in store.batches for each in batch] == [f"{2:032x}"]


async def test_the_queue_is_bounded_and_says_so() -> None:
    store = Store()
    writer = AnswerWriter(store, queue_max_bytes=2 * (ROW_BYTES + 3))
    assert [writer.add(row(number)) for number in range(3)] == [True, True, False]
    with pytest.raises(LedgerUnavailable):
        await writer.flush(0.01)
    async with running(writer):
        await writer.flush(10)
        assert writer.add(row(3))
