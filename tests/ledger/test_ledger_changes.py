"""What lots lose apart from calls, and what they get back, is recorded exactly once."""

from __future__ import annotations

import asyncio
import random
import uuid
from typing import TYPE_CHECKING

import asyncpg
import pytest

from gateway.ledger import Ledger, LedgerRejected, LedgerUnavailable
from policies.settlement import LedgerChange, Posting, Settlement, correction_id
from tests.support.postgres_gate import postgres_gate
from tests.support.settlements import (
    account_with_grants,
    assert_books_agree,
    ledger_change,
    new_call_id,
    settlement,
)

if TYPE_CHECKING:
    from gateway.ledger import GrantRow

WRITERS = 8


async def lots(ledger: Ledger, account_id: int) -> dict[int, GrantRow]:
    return {row.grant_id: row for row in await ledger.grants(account_id)}


async def deadlocks(url: str) -> int:
    connection = await asyncpg.connect(url)
    try:
        return int(
            await connection.fetchval(
                "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
            )
        )
    finally:
        await connection.close()


@pytest.mark.parametrize(
    ("kind", "column"),
    [
        ("expire", "expired_microcredits"),
        ("revoke", "revoked_microcredits"),
        ("adjust", "revoked_microcredits"),
        ("late", "settled_microcredits"),
    ],
)
async def test_what_a_script_took_counts_in_its_column(
    ledger: Ledger, kind: str, column: str
) -> None:
    platform_id, account_id, (first, second) = await account_with_grants(ledger, 100, 100)
    mine = {"platform_id": platform_id, "account_id": account_id}
    change = ledger_change(kind, (first, 30), (second, 5), **mine)

    recorded = await ledger.record_changes([change])

    assert (recorded.inserted, recorded.durable, recorded.refused) == (1, [change], [])
    assert [getattr(row, column) for row in (await lots(ledger, account_id)).values()] == [30, 5]
    await assert_books_agree(ledger)


async def test_the_same_changes_again_change_nothing(ledger: Ledger) -> None:
    platform_id, account_id, (grant,) = await account_with_grants(ledger, 1_000)
    mine = {"platform_id": platform_id, "account_id": account_id}
    changes = [ledger_change(kind, (grant, 7), **mine) for kind in ("expire", "late", "adjust")]
    assert (await ledger.record_changes([*changes, changes[0]])).inserted == 3

    newer = ledger_change("revoke", (grant, 7), **mine)
    recorded = await ledger.record_changes([*changes, newer])

    assert (recorded.inserted, len(recorded.durable)) == (1, 4)
    (row,) = await ledger.grants(account_id)
    assert (row.settled_microcredits, row.expired_microcredits, row.revoked_microcredits) == (
        *(7, 7),
        14,
    )
    assert (await ledger.record_changes([])).inserted == 0
    await assert_books_agree(ledger)


async def test_a_call_is_corrected_once(ledger: Ledger) -> None:
    platform_id, account_id, (grant,) = await account_with_grants(ledger, 1_000)
    mine = {"platform_id": platform_id, "account_id": account_id}
    call = settlement(((grant, 50),), **mine)
    await ledger.record_settlements([call])
    late = ledger_change(
        "late", (grant, 7), change_id=correction_id(call.call_id), call_id=call.call_id, **mine
    )

    assert (await ledger.record_changes([late])).inserted == 1
    settled = await ledger.settlement_of(call.call_id)
    assert settled is not None
    assert settled.adjusted
    assert not await ledger.credit_call(call.call_id, "late", [Posting(grant, 5)])
    other_id = late._replace(change_id=uuid.uuid4().hex)
    assert (await ledger.record_changes([other_id])).inserted == 0

    (row,) = await ledger.grants(account_id)
    assert (row.settled_microcredits, row.credited_microcredits) == (57, 0)
    await assert_books_agree(ledger)


async def test_a_commit_of_changes_whose_answer_was_cut_off_is_not_repeated(
    ledger: Ledger, postgres_url: str
) -> None:
    platform_id, account_id, (grant,) = await account_with_grants(ledger, 1_000)
    change = ledger_change("expire", (grant, 7), platform_id=platform_id, account_id=account_id)
    async with postgres_gate(postgres_url) as (gate, url), Ledger(url) as writer:
        gate.lose_next_answer(uuid.UUID(change.change_id).bytes)
        with pytest.raises(LedgerUnavailable):
            await writer.record_changes([change])
        assert gate.answers_lost == 1
        assert (await lots(ledger, account_id))[grant].expired_microcredits == 7

        assert (await writer.record_changes([change])).inserted == 0

    assert (await lots(ledger, account_id))[grant].expired_microcredits == 7
    await assert_books_agree(ledger)


async def test_eight_writers_of_calls_and_changes_neither_deadlock_nor_miscount(
    ledger: Ledger, postgres_url: str
) -> None:
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    platform_id, account_id, grants = await account_with_grants(ledger, *[10**9] * 20)
    mine = {"platform_id": platform_id, "account_id": account_id}

    def postings() -> tuple[tuple[int, int], ...]:
        chosen = chance.sample(grants, chance.randint(1, 4))
        return tuple((grant, chance.randrange(10, 100)) for grant in chosen)

    kinds = ("expire", "revoke", "adjust", "late")
    changes = [ledger_change(chance.choice(kinds), *postings(), **mine) for _ in range(400)]
    calls = [settlement(postings(), **mine) for _ in range(400)]
    print("seed", seed)  # noqa: T201 -- shown when the test fails

    async def write(writer: int) -> None:
        own = random.Random(seed + writer)
        async with Ledger(postgres_url) as store:
            for _ in range(12):
                if own.random() < 0.5:
                    await store.record_changes(own.sample(changes, 40))
                elif own.random() < 0.7:
                    await store.record_settlements(own.sample(calls, 40))
                else:
                    parts = [Posting(grant, 1) for grant in own.sample(grants, 10)]
                    await store.credit_call(own.choice(calls).call_id, "refund", parts)
            await store.record_changes(changes)
            await store.record_settlements(calls)

    await asyncio.gather(*map(write, range(WRITERS)))

    expected: dict[int, dict[str, int]] = {grant: {} for grant in grants}
    columns = {"expire": "expired", "revoke": "revoked", "adjust": "revoked", "late": "settled"}
    taken: list[tuple[str, LedgerChange | Settlement]] = [
        *((columns[change.kind], change) for change in changes),
        *(("settled", call) for call in calls),
    ]
    for column, each in taken:
        for grant, amount in each.postings:
            expected[grant][column] = expected[grant].get(column, 0) + amount
    for grant, row in (await lots(ledger, account_id)).items():
        assert (row.settled_microcredits, row.expired_microcredits, row.revoked_microcredits) == (
            expected[grant].get("settled", 0),
            expected[grant].get("expired", 0),
            expected[grant].get("revoked", 0),
        )
    await assert_books_agree(ledger)
    assert await deadlocks(postgres_url) == 0


async def test_a_refused_change_is_found_and_the_others_are_written(
    ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    platform_id, account_id, (grant,) = await account_with_grants(ledger, 1_000)
    mine = {"platform_id": platform_id, "account_id": account_id}
    good = [ledger_change("expire", (grant, 7), **mine) for _ in range(5)]
    bad = [
        ledger_change("stolen", (grant, 1), **mine),
        ledger_change("expire", (grant, 2**63), **mine),
        ledger_change("expire", (grant, 1), change_id="no uuid", **mine),
    ]
    mixed = [*good, *bad]
    random.shuffle(mixed)

    recorded = await ledger.record_changes(mixed)

    assert (recorded.inserted, set(recorded.durable), set(recorded.refused)) == (
        *(5, set(good)),
        set(bad),
    )
    assert len([line for line in caplog.messages if "can't be recorded" in line]) == len(bad)
    await assert_books_agree(ledger)


async def test_a_change_of_a_grant_that_does_not_exist_is_logged(
    ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    await ledger.record_changes([ledger_change("expire", (404, 5))])
    assert "1 grants that changes name do not exist" in caplog.messages


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE ledger_changes SET note = 'x'",
        "DELETE FROM ledger_changes",
        "TRUNCATE ledger_changes",
    ],
)
async def test_a_change_is_never_changed(ledger: Ledger, postgres_url: str, change: str) -> None:
    _, _, (grant,) = await account_with_grants(ledger, 10_000)
    await ledger.record_changes([ledger_change("expire", (grant, 5))])
    connection = await asyncpg.connect(postgres_url)
    try:
        with pytest.raises(asyncpg.RestrictViolationError, match="append-only"):
            await connection.execute(change)
    finally:
        await connection.close()


async def test_how_a_call_was_settled_is_known_with_its_postings(ledger: Ledger) -> None:
    platform_id, account_id, (first, second) = await account_with_grants(ledger, 100, 1_000)
    mine = {"platform_id": platform_id, "account_id": account_id}
    call = settlement(((second, 7), (first, 40)), ending="unknown", flags="expired", **mine)
    await ledger.record_settlements([call, settlement(((first, 1),), **mine)])

    found = await ledger.settlement_of(call.call_id)

    assert found is not None
    assert set(found.postings) == set(call.postings)
    assert found._replace(postings=()) == (
        *(call.call_id, platform_id, account_id, "unknown", "expired", 47, call.settled_ms),
        *(False, False, ()),
    )
    assert await ledger.settlement_of(new_call_id()) is None

    assert await ledger.credit_call(call.call_id, "late", [Posting(first, 3)])
    after = await ledger.settlement_of(call.call_id)
    assert after == found._replace(adjusted=True)


async def test_a_call_that_was_charged_too_much_gets_it_back_once(
    ledger: Ledger, postgres_url: str
) -> None:
    platform_id, account_id, (first, second) = await account_with_grants(ledger, 100, 1_000)
    mine = {"platform_id": platform_id, "account_id": account_id}
    call = settlement(((first, 100), (second, 30)), **mine)
    await ledger.record_settlements([call])
    back = [Posting(second, 30), Posting(first, 10)]

    async with Ledger(postgres_url) as other:
        done = await asyncio.gather(
            *(store.credit_call(call.call_id, "late", back) for store in (ledger, other) * 4)
        )

    assert sorted(done) == [False] * 7 + [True]
    rows = await lots(ledger, account_id)
    assert [rows[grant].credited_microcredits for grant in (first, second)] == [10, 30]
    assert [rows[grant].settled_microcredits for grant in (first, second)] == [100, 30]
    assert not await ledger.credit_call(new_call_id(), "late", back)
    assert not await ledger.credit_call(call.call_id, "refund", [])
    await assert_books_agree(ledger)


async def test_a_lot_is_adjusted_upwards_once_per_id_and_never_after_its_end(
    ledger: Ledger,
) -> None:
    _, account_id, (grant, ended) = await account_with_grants(ledger, 100, 100)
    change_id = uuid.uuid4().hex
    for _ in range(2):
        assert await ledger.credit_grant(grant, 25, "goodwill", change_id=change_id) == account_id
    assert await ledger.credit_grant(grant, 5, "") == account_id
    await ledger.revoke_grant(ended)

    assert await ledger.credit_grant(ended, 5, "") is None
    assert await ledger.credit_grant(404, 5, "") is None
    with pytest.raises(LedgerRejected):
        await ledger.credit_grant(grant, 2**53 - 100, "")

    rows = await lots(ledger, account_id)
    assert [rows[lot].credited_microcredits for lot in (grant, ended)] == [30, 0]
    state = await ledger.account_state(account_id)
    assert state is not None
    assert state[f"a:{grant}"] == 130
    await assert_books_agree(ledger)
