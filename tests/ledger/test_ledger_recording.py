"""A settlement is recorded exactly once, in every book, whoever sends it how often."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import asyncpg
import pytest

from gateway.ledger import Ledger, LedgerUnavailable
from tests.support.postgres_gate import postgres_gate
from tests.support.settlements import (
    account_with_grants,
    assert_books_agree,
    new_call_id,
    settlement,
)

if TYPE_CHECKING:
    from policies.settlement import Settlement

WRITERS = 8


async def settled(ledger: Ledger, account_id: int) -> list[int]:
    return [grant.settled_microcredits for grant in await ledger.grants(account_id)]


async def test_a_settlement_is_in_every_book_after_one_statement(ledger: Ledger) -> None:
    platform_id, account_id, (first, second) = await account_with_grants(ledger, 100, 1_000)
    call = settlement(((first, 100), (second, 30)), platform_id=platform_id, account_id=account_id)

    recorded = await ledger.record_settlements([call])

    assert (recorded.inserted, recorded.durable, recorded.refused) == (1, [call], ())
    (row,) = await ledger.settlements(account_id, limit=10)
    assert row._asdict() == {name: getattr(call, name) for name in row._fields}
    assert await settled(ledger, account_id) == [100, 30]
    used = await ledger.usage_of_account(platform_id, account_id, call.settled_ms, call.settled_ms)
    assert used == (1, 130)
    await assert_books_agree(ledger)


async def test_any_text_comes_back_as_it_went_in(ledger: Ledger) -> None:
    texts = ["", '"', "\\", 'a"b\\"c', "{}", "a,b", "NULL", " x ", "é✓\U0001f4b0", "'; --", "\n\t"]
    _, account_id, _ = await account_with_grants(ledger)
    calls = [settlement(account_id=account_id, units=text, flags=text[::-1]) for text in texts]
    await ledger.record_settlements(calls)

    rows = {row.call_id: row for row in await ledger.settlements(account_id, limit=100)}
    assert [rows[call.call_id].units for call in calls] == texts
    assert [rows[call.call_id].flags for call in calls] == [text[::-1] for text in texts]


async def test_the_same_batch_again_changes_nothing(ledger: Ledger) -> None:
    platform_id, account_id, (grant,) = await account_with_grants(ledger, 10_000)
    calls = [
        settlement(((grant, 7),), platform_id=platform_id, account_id=account_id) for _ in range(50)
    ]
    assert (await ledger.record_settlements(calls)).inserted == 50
    newer = settlement(((grant, 7),), platform_id=platform_id, account_id=account_id)

    recorded = await ledger.record_settlements([*calls, newer])

    assert (recorded.inserted, len(recorded.durable)) == (1, 51)
    assert await settled(ledger, account_id) == [51 * 7]
    await assert_books_agree(ledger)


async def test_a_commit_whose_answer_was_cut_off_is_not_repeated(
    ledger: Ledger, postgres_url: str
) -> None:
    platform_id, account_id, (grant,) = await account_with_grants(ledger, 10_000)
    calls = [
        settlement(((grant, 7),), platform_id=platform_id, account_id=account_id) for _ in range(20)
    ]
    async with postgres_gate(postgres_url) as (gate, url), Ledger(url) as writer:
        gate.lose_next_answer(calls[-1].call_id.encode())
        with pytest.raises(LedgerUnavailable):
            await writer.record_settlements(calls)
        assert gate.answers_lost == 1
        assert await settled(ledger, account_id) == [140], "it was committed all the same"

        recorded = await writer.record_settlements(calls)

    assert (recorded.inserted, len(recorded.durable)) == (0, 20)
    assert await settled(ledger, account_id) == [140]
    await assert_books_agree(ledger)


@pytest.mark.parametrize(
    ("postings_max", "shared"),
    [(3, True), (0, True), (0, False)],
    ids=["locks on grants", "locks on calls", "locks on roll-ups"],
)
async def test_eight_writers_with_the_same_accounts_neither_deadlock_nor_miscount(
    ledger: Ledger, postgres_url: str, postings_max: int, *, shared: bool
) -> None:
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    platform_id, account_id, grants = await account_with_grants(ledger, *[10**9] * 40)
    accounts = [account_id, account_id + 1, account_id + 2]

    def call() -> Settlement:
        chosen = chance.sample(grants, chance.randint(0, postings_max))
        return settlement(
            tuple((grant, chance.randrange(1, 100)) for grant in chosen),
            platform_id=platform_id,
            account_id=chance.choice(accounts),
            key_id=chance.randrange(5),
            route_id=chance.randrange(3),
            ending=chance.choice(["completed", "upstream_error"]),
        )

    calls = [call() for _ in range(1_200)]

    async def write(own: list[Settlement]) -> None:
        async with Ledger(postgres_url) as writer:
            for start in range(0, len(own), 40):
                await writer.record_settlements(own[start : start + 40])

    # Sharing, each has half of all calls, so that most calls have several writers.
    shares = [
        chance.sample(calls, len(calls) // 2) if shared else calls[number::WRITERS]
        for number in range(WRITERS)
    ]
    print("seed", seed)  # noqa: T201 -- shown when the test fails
    await asyncio.gather(*map(write, shares))

    known = {each.call_id: each for share in shares for each in share}
    expected = dict.fromkeys(grants, 0)
    for each in known.values():
        for grant, amount in each.postings:
            expected[grant] += amount
    found = {
        grant.grant_id: grant.settled_microcredits for grant in await ledger.grants(account_id)
    }
    assert found == expected
    used = await ledger.usage_of_platform(platform_id, 0)
    assert used.calls == len(known)
    assert not [drift for drift in await ledger.audit_calls() if drift.charged_microcredits is None]
    assert await ledger.audit_grants() == []
    assert await ledger.audit_usage() == []
    assert await ledger.audit_rollups() == []
    connection = await asyncpg.connect(postgres_url)
    deadlocks = await connection.fetchval(
        "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    )
    await connection.close()
    assert deadlocks == 0


async def test_a_refused_row_is_found_and_the_others_are_written(
    ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    platform_id, account_id, (grant,) = await account_with_grants(ledger, 10_000)
    calls = [
        settlement(((grant, 7),), platform_id=platform_id, account_id=account_id) for _ in range(9)
    ]
    bad = [
        settlement(call_id="no uuid"),
        settlement(units="nul\x00"),
        settlement(ending="half\ud800"),
        settlement(charged_microcredits=2**53),
        settlement(held_microcredits=-1),
        settlement(platform_id=2**64),
        settlement(flags=None),
        settlement(postings=((grant, 2**63),)),
    ]
    mixed = [*calls, *bad]
    random.shuffle(mixed)

    recorded = await ledger.record_settlements(mixed)

    assert recorded.inserted == 9
    assert {each.call_id for each in recorded.durable} == {each.call_id for each in calls}
    assert {each.call_id for each in recorded.refused} == {each.call_id for each in bad}
    assert len([line for line in caplog.messages if "can't be recorded" in line]) == len(bad)
    await assert_books_agree(ledger)


async def test_two_settlements_of_one_call_in_a_batch_count_once_and_the_first(
    ledger: Ledger,
) -> None:
    platform_id, account_id, (grant,) = await account_with_grants(ledger, 10_000)
    call_id = new_call_id()
    first, second = (
        settlement(((grant, due),), call_id=call_id, platform_id=platform_id, account_id=account_id)
        for due in (5, 9)
    )

    assert (await ledger.record_settlements([first, second])).inserted == 1

    assert await settled(ledger, account_id) == [5]
    await assert_books_agree(ledger)


async def test_a_call_may_draw_twice_on_a_grant_and_a_free_call_on_none(ledger: Ledger) -> None:
    platform_id, account_id, (grant,) = await account_with_grants(ledger, 10_000)
    mine = {"platform_id": platform_id, "account_id": account_id}

    for calls in (
        [settlement(((grant, 5), (grant, 9)), **mine), settlement((), **mine)],
        [settlement((), **mine)],
        [],
    ):
        assert (await ledger.record_settlements(calls)).inserted == len(calls)

    assert await settled(ledger, account_id) == [14]
    await assert_books_agree(ledger)


async def test_a_posting_to_a_grant_that_does_not_exist_is_logged(
    ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    await ledger.record_settlements([settlement(((404, 5),))])
    assert "1 grants that calls drew on do not exist" in caplog.messages


@pytest.mark.parametrize("table", ["settlements", "ledger_entries"])
@pytest.mark.parametrize(
    "change", ["UPDATE {} SET account_id = 9", "DELETE FROM {}", "TRUNCATE {} CASCADE"]
)
async def test_what_is_settled_is_never_changed(
    ledger: Ledger, postgres_url: str, table: str, change: str
) -> None:
    _, _, (grant,) = await account_with_grants(ledger, 10_000)
    await ledger.record_settlements([settlement(((grant, 5),))])
    connection = await asyncpg.connect(postgres_url)
    try:
        with pytest.raises(asyncpg.RestrictViolationError, match="append-only"):
            await connection.execute(change.format(table))
    finally:
        await connection.close()
