"""What a plan gives is given once per period, whoever renews, and its rest goes on as it says."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from gateway.ledger import Ledger, LedgerUnavailable
from gateway.ledger.periods import AccountChange
from policies.catalog import Plan, Platform
from policies.periods import months_after_ms
from tests.support.postgres_gate import postgres_gate
from tests.support.settlements import assert_books_agree, ledger_change

if TYPE_CHECKING:
    from gateway.ledger import GrantRow
    from policies.settlement import LedgerChange

PRO = Plan("pro", 1_000, overage_cap_microcredits=300)
ROLLING = Plan("rolling", 1_000, rollover_microcredits_max=600, rollover_periods=2)
FREE = Plan("free", 0)
# With its semicolon: "BEGIN ISOLATION LEVEL READ COMMITTED" is none.
COMMIT = b"COMMIT;"


async def make(ledger: Ledger, plan: Plan, name: str = "alice", **options: Any) -> int:
    platform_id = (await ledger.apply_catalog(Platform("demo"), (plan,), ())).platform_id
    account_id = await ledger.create_account(platform_id, name, plan.slug, **options)
    assert account_id is not None
    return account_id


async def execute(url: str, statement: str, *arguments: object) -> Any:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetch(statement, *arguments)
    finally:
        await connection.close()


async def period(url: str, account_id: int) -> tuple[int, int]:
    ((start_ms, end_ms),) = await execute(
        url,
        "SELECT to_ms(period_start_at), to_ms(period_end_at) FROM accounts WHERE id = $1",
        account_id,
    )
    return start_ms, end_ms


async def move_back(url: str, account_id: int, months: int) -> None:
    """As if the account had been made so many months earlier."""
    start_ms, _ = await period(url, account_id)
    start_ms, end_ms = (months_after_ms(start_ms, -ago) for ago in (months, months - 1))
    await execute(
        url,
        "UPDATE accounts SET period_anchor_at = from_ms($2), period_start_at = from_ms($2),"
        " period_end_at = from_ms($3) WHERE id = $1",
        account_id,
        start_ms,
        end_ms,
    )
    await execute(
        url,
        "UPDATE grants SET effective_at = from_ms($2), expires_at = from_ms($3),"
        " business_key = source || ':' || $1 || ':' || $2 WHERE account_id = $1",
        account_id,
        start_ms,
        end_ms,
    )


async def by_source(ledger: Ledger, account_id: int, source: str) -> list[GrantRow]:
    rows = [row for row in await ledger.grants(account_id) if row.source == source]
    return sorted(rows, key=lambda row: row.effective_ms)


async def expire(ledger: Ledger, lot: GrantRow, rest: int | None = None) -> LedgerChange:
    """Withdraw what an ended lot has left, as the script and the sweeper do."""
    taken = lot.amount_microcredits if rest is None else rest
    owner = {"platform_id": 1, "account_id": lot.account_id}
    change = ledger_change("expire", (lot.grant_id, taken), **owner)
    assert (await ledger.record_changes([change])).inserted == 1
    return change


async def test_an_account_begins_with_a_period_and_what_its_plan_gives_for_it(
    ledger: Ledger, postgres_url: str
) -> None:
    account_id = await make(ledger, PRO)

    start_ms, end_ms = await period(postgres_url, account_id)

    assert end_ms == months_after_ms(start_ms, 1)
    plan, overage = await ledger.grants(account_id)
    assert (plan.source, plan.amount_microcredits, overage.source) == ("plan", 1_000, "overage")
    assert (overage.amount_microcredits, overage.priority) == (300, 1_000_000)
    for lot in (plan, overage):
        assert (lot.effective_ms, lot.expires_ms) == (start_ms, end_ms)
    state = await ledger.account_state(account_id)
    assert state is not None
    assert state["lots"] == f"{plan.grant_id} {overage.grant_id}o"
    await assert_books_agree(ledger)


@pytest.mark.parametrize(("first", "sources"), [(70, ["manual"]), (0, [])])
async def test_an_account_may_get_something_else_first(
    ledger: Ledger, first: int, sources: list[str]
) -> None:
    account_id = await make(ledger, replace(PRO, overage_cap_microcredits=0), name="bob")
    other = await make(ledger, replace(PRO, overage_cap_microcredits=0), first_microcredits=first)
    assert [row.source for row in await ledger.grants(account_id)] == ["plan"]
    rows = await ledger.grants(other)
    assert [row.source for row in rows] == sources
    assert [(row.amount_microcredits, row.expires_ms) for row in rows] == [(70, 0)][: len(rows)]


async def test_an_account_that_could_not_be_given_its_credits_is_not_made(ledger: Ledger) -> None:
    with pytest.raises(Exception, match="microcredits"):
        await make(ledger, PRO, first_microcredits=2**53)
    assert await ledger.accounts(1) == []


async def test_an_account_whose_making_lost_its_answer_is_there_whole(
    ledger: Ledger, postgres_url: str
) -> None:
    await make(ledger, PRO, "bob")
    async with postgres_gate(postgres_url) as (gate, url), Ledger(url) as node:
        gate.lose_next_answer(COMMIT)
        with pytest.raises(LedgerUnavailable):
            await node.create_account(1, "alice", "pro")
        assert gate.answers_lost == 1
        assert await node.create_account(1, "alice", "pro") is None
    alice = await ledger.find_account(1, "alice")
    assert alice is not None
    assert len(await ledger.grants(alice.account_id)) == 2
    await assert_books_agree(ledger)


async def test_eight_nodes_renew_a_period_once(ledger: Ledger, postgres_url: str) -> None:
    account_id = await make(ledger, PRO)
    await move_back(postgres_url, account_id, 1)
    _, end_ms = await period(postgres_url, account_id)
    assert [row.account_id for row in await ledger.due_renewals()] == [account_id]
    assert await ledger.due_renewals(end_ms - 1) == []

    async with contextlib.AsyncExitStack() as nodes:
        stores = [await nodes.enter_async_context(Ledger(postgres_url)) for _ in range(8)]
        renewed = await asyncio.gather(*(store.renew(account_id, end_ms) for store in stores))

    assert sorted(renewed) == [False] * 7 + [True]
    assert await period(postgres_url, account_id) == (end_ms, months_after_ms(end_ms, 1))
    old, new = await by_source(ledger, account_id, "plan")
    assert (old.expires_ms, new.effective_ms) == (end_ms, end_ms)
    assert len(await by_source(ledger, account_id, "overage")) == 2
    assert await ledger.due_renewals() == []
    await assert_books_agree(ledger)


async def test_a_renewal_whose_answer_was_cut_off_gives_nothing_twice(
    ledger: Ledger, postgres_url: str
) -> None:
    account_id = await make(ledger, PRO)
    await move_back(postgres_url, account_id, 1)
    _, end_ms = await period(postgres_url, account_id)
    async with postgres_gate(postgres_url) as (gate, url), Ledger(url) as node:
        gate.lose_next_answer(COMMIT)
        with pytest.raises(LedgerUnavailable):
            await node.renew(account_id, end_ms)
        assert gate.answers_lost == 1
        assert not await node.renew(account_id, end_ms)
    assert len(await by_source(ledger, account_id, "plan")) == 2


async def test_periods_that_nobody_renewed_are_made_up_for_one_by_one(
    ledger: Ledger, postgres_url: str
) -> None:
    account_id = await make(ledger, PRO)
    await move_back(postgres_url, account_id, 3)
    for _ in range(3):
        (due,) = await ledger.due_renewals()
        assert await ledger.renew(due.account_id, due.period_end_ms)
    assert await ledger.due_renewals() == []
    lots = await by_source(ledger, account_id, "plan")
    assert len(lots) == 4
    assert [lot.expires_ms for lot in lots[:-1]] == [lot.effective_ms for lot in lots[1:]]


async def test_another_plan_begins_a_period_and_ends_only_the_overage_of_the_one_before(
    ledger: Ledger, postgres_url: str
) -> None:
    account_id = await make(ledger, PRO)
    await ledger.apply_catalog(Platform("demo"), (ROLLING,), ())
    before = {row.source: row for row in await ledger.grants(account_id)}
    assert await ledger.change_account(1, account_id, AccountChange(plan_slug="pro"))
    assert len(await ledger.grants(account_id)) == 2, "it is on that plan"

    assert await ledger.change_account(1, account_id, AccountChange(plan_slug="rolling"))

    start_ms, end_ms = await period(postgres_url, account_id)
    after = {row.grant_id: row for row in await ledger.grants(account_id)}
    assert after[before["plan"].grant_id] == before["plan"]
    assert after[before["overage"].grant_id].expires_ms <= start_ms + 1
    _, new = await by_source(ledger, account_id, "plan")
    assert (new.effective_ms, new.expires_ms) == (start_ms, end_ms)
    assert not await ledger.change_account(1, 404, AccountChange(plan_slug="pro"))
    assert not await ledger.change_account(1, account_id, AccountChange(plan_slug="none"))


async def test_the_rest_of_a_plan_lot_goes_on_for_so_many_periods_and_no_longer(
    ledger: Ledger, postgres_url: str
) -> None:
    account_id = await make(ledger, ROLLING)
    await move_back(postgres_url, account_id, 3)
    for _ in range(3):
        (due,) = await ledger.due_renewals()
        await ledger.renew(due.account_id, due.period_end_ms)
    lot = (await by_source(ledger, account_id, "plan"))[0]
    rolled = []
    for _ in range(3):
        change = await expire(ledger, lot)
        again = await ledger.rollover_lot(change)
        assert again == await ledger.rollover_lot(change)
        if again is None:
            break
        lots = {row.grant_id: row for row in await ledger.grants(account_id)}
        assert lots[again].effective_ms == lot.expires_ms
        lot = lots[again]
        rolled.append((lot.amount_microcredits, lot.rollovers))
    assert rolled == [(600, 1), (600, 2)]
    assert await ledger.rollovers_due() == []
    await assert_books_agree(ledger)


async def test_a_period_gets_no_more_rolled_over_than_the_plan_says(
    ledger: Ledger, postgres_url: str
) -> None:
    account_id = await make(ledger, ROLLING)
    await move_back(postgres_url, account_id, 1)
    (lot,) = await by_source(ledger, account_id, "plan")
    changes = [await expire(ledger, lot, rest) for rest in (400, 250, 10)]
    assert {change.change_id for change in await ledger.rollovers_due()} == {
        change.change_id for change in changes
    }

    for due in await ledger.rollovers_due():
        assert await ledger.rollover_lot(due) is not None

    amounts = [row.amount_microcredits for row in await by_source(ledger, account_id, "rollover")]
    assert (len(amounts), sum(amounts)) == (3, 600)
    assert await ledger.rollovers_due() == []
    await assert_books_agree(ledger)


async def test_eight_nodes_roll_a_rest_over_once(ledger: Ledger, postgres_url: str) -> None:
    account_id = await make(ledger, ROLLING)
    await move_back(postgres_url, account_id, 1)
    (lot,) = await by_source(ledger, account_id, "plan")
    change = await expire(ledger, lot, 100)
    async with contextlib.AsyncExitStack() as nodes:
        stores = [await nodes.enter_async_context(Ledger(postgres_url)) for _ in range(8)]
        given = await asyncio.gather(*(store.rollover_lot(change) for store in stores))
    (rolled,) = await by_source(ledger, account_id, "rollover")
    assert set(given) == {rolled.grant_id}
    assert rolled.amount_microcredits == 100


async def test_nothing_is_rolled_over_that_is_no_recorded_rest_of_a_plan(
    ledger: Ledger, postgres_url: str
) -> None:
    account_id = await make(ledger, ROLLING)
    (plan,) = await ledger.grants(account_id)
    bought = await ledger.add_grant(account_id, 50, source="pack", priority=0)
    assert bought is not None
    owner = {"platform_id": 1, "account_id": account_id}
    revoked = ledger_change("revoke", (plan.grant_id, 5), **owner)
    of_pack = ledger_change("expire", (bought, 5), **owner)
    unrecorded = ledger_change("expire", (plan.grant_id, 5), **owner)
    await ledger.record_changes([revoked, of_pack])

    for change in (revoked, of_pack, unrecorded):
        assert await ledger.rollover_lot(change) is None

    assert await ledger.rollovers_due() == []
    free = await make(ledger, replace(FREE, credits_microcredits=9), name="bob")
    (lot,) = await ledger.grants(free)
    assert await ledger.rollover_lot(await expire(ledger, lot)) is None
    assert await ledger.rollovers_due() == []
