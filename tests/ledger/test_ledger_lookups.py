"""What workers and commands ask of keys, accounts, grants, epochs and settings."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import asyncpg
import pytest

from gateway.ledger import Ledger, LedgerRejected, LedgerUnavailable
from gateway.ledger.periods import AccountChange
from policies.catalog import Plan, Platform
from tests.support.settlements import account_with_grants, assert_books_agree, settlement

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

HOUR_MS = 3_600_000
PLAN = Plan("pro", 0, requests_per_minute=600, requests_per_month=100, concurrency=50)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


async def add_key(ledger: Ledger, account_id: int, digest: bytes, **changes: int) -> int:
    key_id = await ledger.create_key(
        account_id,
        name="ci",
        prefix="tk_dev_ab",
        last4="wxyz",
        pepper_version=1,
        digest=digest,
        **changes,
    )
    assert key_id is not None
    return key_id


async def test_a_key_is_found_by_its_digest_whatever_its_state(ledger: Ledger) -> None:
    platform_id, account_id, _ = await account_with_grants(ledger)
    expires_ms = now_ms() - HOUR_MS
    key_id = await add_key(ledger, account_id, b"one", expires_ms=expires_ms)
    await ledger.change_account(platform_id, account_id, AccountChange(status="suspended"))
    assert await ledger.revoke_key(platform_id, key_id) == account_id

    row = await ledger.find_key(b"one")

    assert row == (
        *(key_id, "ci", "revoked", expires_ms, b"one"),
        *(account_id, "alice", "suspended", platform_id, "demo", 0),
        *("key", (), (), 0),
    )
    assert await ledger.find_key(b"two") is None


async def test_two_keys_never_share_a_digest(ledger: Ledger) -> None:
    _, account_id, _ = await account_with_grants(ledger)
    await add_key(ledger, account_id, b"one")
    with pytest.raises(LedgerRejected):
        await add_key(ledger, account_id, b"one")


async def test_an_account_is_seeded_with_limits_keys_and_every_lot_with_something_left(
    ledger: Ledger,
) -> None:
    platform_id = (await ledger.apply_catalog(Platform("demo"), (PLAN,), ())).platform_id
    account_id = await ledger.create_account(platform_id, "alice", "pro")
    assert account_id is not None
    later = now_ms() + HOUR_MS

    async def grant(amount: int, **facts: int) -> int:
        facts.setdefault("priority", 100)
        grant_id = await ledger.add_grant(account_id, amount, **facts)
        assert grant_id is not None
        return grant_id

    for_ever = await grant(10)
    last = await grant(20, priority=200)
    expiring = await grant(30, expires_ms=later, effective_ms=later - 1)
    first = await grant(40, priority=1)
    spent = await grant(50)
    over_ms = now_ms() - HOUR_MS
    over = await grant(60, effective_ms=over_ms - HOUR_MS, expires_ms=over_ms)
    active = await add_key(ledger, account_id, b"1")
    ending = await add_key(ledger, account_id, b"2", expires_ms=later)
    revoked = await add_key(ledger, account_id, b"3")
    await ledger.revoke_key(platform_id, revoked)
    await ledger.record_settlements(
        [
            settlement(((spent, 50), (first, 4)), platform_id=platform_id, account_id=account_id),
            settlement(platform_id=platform_id, account_id=account_id, settled_ms=now_ms()),
        ]
    )

    state = await ledger.account_state(account_id)

    assert state is not None
    effective = {name: state.pop(name) for name in list(state) if name.startswith("f:")}
    assert effective[f"f:{expiring}"] == later - 1
    assert abs(int(effective[f"f:{first}"]) - now_ms()) < HOUR_MS
    assert state == {
        "status": "active",
        "rpm": 600,
        "rpmonth": 100,
        "conc": 50,
        "month": int(time.strftime("%Y%m", time.gmtime())),
        "count": 2,
        "rules": "",
        "lots": f"{first} {over} {expiring} {for_ever} {last}",
        f"a:{first}": 36,
        f"s:{first}": 4,
        f"e:{first}": 0,
        f"a:{expiring}": 30,
        f"s:{expiring}": 0,
        f"e:{expiring}": later,
        f"a:{for_ever}": 10,
        f"s:{for_ever}": 0,
        f"e:{for_ever}": 0,
        f"a:{last}": 20,
        f"s:{last}": 0,
        f"e:{last}": 0,
        f"a:{over}": 60,
        f"s:{over}": 0,
        f"e:{over}": over_ms,
        **{f"w:{lot}": 0 for lot in (first, over, expiring, for_ever, last)},
        f"k:{active}": "0",
        f"k:{ending}": str(later),
        f"k:{revoked}": "-1",
    }
    assert await ledger.account_state(404) is None


async def test_an_account_without_a_plan_has_no_limits(ledger: Ledger) -> None:
    _, account_id, _ = await account_with_grants(ledger)
    state = await ledger.account_state(account_id)
    assert state is not None
    assert (state["rpm"], state["rpmonth"], state["conc"], state["lots"]) == (0, 0, 0, "")


async def test_names_are_taken_once_per_platform(ledger: Ledger) -> None:
    platform_id, _, _ = await account_with_grants(ledger)
    assert await ledger.create_account(platform_id, "alice") is None
    assert await ledger.create_account(platform_id, "bob", "no such plan") is None
    await account_with_grants(ledger, slug="other")


async def test_another_platforms_rows_are_not_found(ledger: Ledger) -> None:
    _, account_id, _ = await account_with_grants(ledger)
    key_id = await add_key(ledger, account_id, b"one")
    other, *_ = await account_with_grants(ledger, slug="other", name="bob")

    assert await ledger.find_account(other, "alice") is None
    assert [row.name for row in await ledger.accounts(other)] == ["bob"]
    assert (await ledger.keys_page(other, limit=9)).rows == []
    assert await ledger.revoke_key(other, key_id) is None
    await ledger.apply_catalog(Platform("demo"), (PLAN,), ())
    (bob,) = await ledger.accounts(other)
    assert not await ledger.change_account(other, bob.account_id, AccountChange(plan_slug="pro"))
    assert await ledger.change_account(1, account_id, AccountChange(plan_slug="pro"))
    (alice,) = await ledger.accounts(alice_platform := 1)
    assert (alice.plan_slug, alice_platform) == ("pro", 1)
    assert await ledger.account_ids_of_plan(1, "pro") == [account_id]
    assert await ledger.account_ids_of_plan(other, "pro") == []


@pytest.mark.parametrize(
    ("amount", "facts"),
    [
        (-1, {}),
        (2**53, {}),
        (2**70, {}),
        (1, {"source": "stolen"}),
        (1, {"effective_ms": 10, "expires_ms": 5}),
    ],
)
async def test_a_grant_that_makes_no_sense_is_refused(
    ledger: Ledger, amount: int, facts: dict[str, int]
) -> None:
    _, account_id, _ = await account_with_grants(ledger)
    with pytest.raises(LedgerRejected):
        await ledger.add_grant(account_id, amount, priority=100, **facts)
    assert await ledger.grants(account_id) == []
    assert await ledger.add_grant(404, 1, priority=100) is None
    await assert_books_agree(ledger)


async def test_an_epoch_is_never_given_twice(ledger: Ledger) -> None:
    epochs = await asyncio.gather(*(ledger.next_epoch(3) for _ in range(20)))
    assert sorted(epochs) == list(range(1, 21))
    assert await ledger.next_epoch(4) == 1


async def test_the_first_start_fixes_a_setting_for_all(ledger: Ledger) -> None:
    answers = await asyncio.gather(*(ledger.fix_setting("shards", str(n)) for n in range(8)))
    assert len(set(answers)) == 1
    assert await ledger.find_setting("shards") == answers[0]
    assert await ledger.find_setting("other") is None


async def test_postgres_away_is_said_in_our_words_by_every_kind_of_question() -> None:
    async with Ledger("postgresql://nobody@127.0.0.1:1/none") as ledger:
        questions: list[Callable[[], Awaitable[object]]] = [
            lambda: ledger.find_key(b"x"),
            lambda: ledger.account_state(1),
            ledger.snapshot_catalogue,
            lambda: ledger.record_settlements([settlement()]),
        ]
        for question in questions:
            with pytest.raises(LedgerUnavailable):
                await question()


async def test_a_restart_of_postgres_is_survived(ledger: Ledger, postgres_url: str) -> None:
    await ledger.next_epoch(1)
    await ledger.record_settlements([settlement()])
    connection = await asyncpg.connect(postgres_url)
    await connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    await connection.close()
    failures = 0
    while True:
        try:
            assert await ledger.next_epoch(1) == 2
            assert (await ledger.record_settlements([settlement()])).inserted == 1
            break
        except LedgerUnavailable:
            failures += 1
            assert failures < 5
