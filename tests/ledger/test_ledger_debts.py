"""What is owed is paid by what is given next: in one statement, by one at a time, to the end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from gateway.ledger import Ledger
from gateway.ledger.database import Scope
from gateway.ledger.periods import AccountChange
from policies.catalog import Plan, Platform
from policies.money import OveragePrice
from tests.support.debts import owe

if TYPE_CHECKING:
    from gateway.ledger import AccountRow

PLANS = [
    Plan("free", credits_microcredits=100),
    Plan(
        "pro",
        credits_microcredits=1_000,
        overage_cap_microcredits=500,
        overage_price=OveragePrice(2_000_000),
    ),
]


async def account_of(ledger: Ledger, name: str = "alice") -> AccountRow:
    report = await ledger.apply_catalog(Platform("demo"), PLANS, [])
    await ledger.create_account(report.platform_id, name)
    account = await ledger.find_account(report.platform_id, name)
    assert account is not None
    return account


async def give(ledger: Ledger, account: AccountRow, amount: int, **facts: Any) -> tuple[int, int]:
    """A lot's number, and what of it went to what was owed."""
    grant_id = await ledger.add_grant(account.account_id, amount, priority=0, **facts)
    (row,) = await ledger.some_grants(account.account_id, [grant_id or 0])
    return row.grant_id, row.revoked_microcredits


async def sound(ledger: Ledger) -> bool:
    found = [await ledger.audit_grants(), await ledger.audit_changes(), await ledger.audit_debts()]
    return found == [[], [], []]


async def query(url: str, text: str, *arguments: object) -> Any:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(text, *arguments)
    finally:
        await connection.close()


async def test_the_next_lots_pay_until_nothing_is_owed(ledger: Ledger, postgres_url: str) -> None:
    account = await account_of(ledger)
    await owe(postgres_url, account, 250)

    paid = [(await give(ledger, account, 100))[1] for _ in range(4)]

    assert paid == [100, 100, 50, 0]
    assert await ledger.owed(account.account_id) == 0
    assert await sound(ledger)


async def test_a_lot_that_is_there_already_pays_nothing_again(
    ledger: Ledger, postgres_url: str
) -> None:
    account = await account_of(ledger)
    first = await give(ledger, account, 100, business_key="pack:1")
    await owe(postgres_url, account, 30)

    assert await give(ledger, account, 100, business_key="pack:1") == first
    assert await ledger.owed(account.account_id) == 30


@pytest.mark.parametrize("source", ["overage", "refund"])
async def test_overage_and_what_comes_back_pay_nothing(
    ledger: Ledger, postgres_url: str, source: str
) -> None:
    account = await account_of(ledger)
    await owe(postgres_url, account, 30)

    assert (await give(ledger, account, 100, source=source))[1] == 0
    assert await ledger.owed(account.account_id) == 30


async def test_another_account_pays_nothing(ledger: Ledger, postgres_url: str) -> None:
    account, other = await account_of(ledger), await account_of(ledger, "bob")
    await owe(postgres_url, account, 30)

    assert (await give(ledger, other, 100))[1] == 0


async def test_many_who_give_at_once_pay_what_is_owed_once(
    ledger: Ledger, postgres_url: str
) -> None:
    account = await account_of(ledger)
    await owe(postgres_url, account, 1_000)
    async with Ledger(postgres_url) as other:
        paid = await asyncio.gather(
            *(give(store, account, 70) for store in (ledger, other) for _ in range(12))
        )

    assert sum(amount for _, amount in paid) == 1_000
    assert await ledger.owed(account.account_id) == 0
    assert await sound(ledger)


async def test_the_api_gives_as_its_tenant_and_the_debt_is_paid(
    ledger: Ledger, postgres_url: str
) -> None:
    account = await account_of(ledger)
    await owe(postgres_url, account, 30)
    url = postgres_url
    settings = {"role": "tollkeeper_api", "timezone": "UTC"}
    async with Ledger(url, settings=settings) as restricted:
        own = restricted.scoped(Scope(account.platform_id, None, "token:1"))
        assert (await give(own, account, 100))[1] == 30
        assert await own.owed(account.account_id) == 0
        foreign = restricted.scoped(Scope(account.platform_id + 1, None, "token:1"))
        assert await foreign.owed(account.account_id) == 0
        assert await foreign.add_grant(account.account_id, 1, priority=0) is None


async def test_a_debt_paid_by_a_lot_that_never_begins_is_owed_again(
    ledger: Ledger, postgres_url: str
) -> None:
    account = await account_of(ledger)
    change = AccountChange(plan_slug="free")
    await ledger.change_account(account.platform_id, account.account_id, change)
    await owe(postgres_url, account, 60)
    ends = "SELECT to_ms(period_end_at) FROM accounts WHERE id = $1"
    over_ms = await query(postgres_url, ends, account.account_id)
    assert await ledger.prepare_period(account.account_id, over_ms)
    assert await ledger.owed(account.account_id) == 0

    change = AccountChange(plan_slug="pro")
    await ledger.change_account(account.platform_id, account.account_id, change)

    lots = await ledger.grants(account.account_id)
    paid = {row.amount_microcredits: row.revoked_microcredits for row in lots if not row.revoked_ms}
    assert paid[1_000] == 60
    assert await ledger.owed(account.account_id) == 0
    assert await sound(ledger)


async def test_a_lot_of_overage_keeps_the_price_of_its_plan(
    ledger: Ledger, postgres_url: str
) -> None:
    account = await account_of(ledger)
    change = AccountChange(plan_slug="pro")
    await ledger.change_account(account.platform_id, account.account_id, change)
    dearer = Plan("pro", 0, overage_cap_microcredits=1, overage_price=OveragePrice(9))
    await ledger.apply_catalog(Platform("demo"), [PLANS[0], dearer], [])

    terms = "SELECT plan_slug || ' ' || nanos_per_credit FROM overage_terms WHERE account_id = $1"
    assert await query(postgres_url, terms, account.account_id) == "pro 2000000"


DAMAGES = {
    "owed": "UPDATE account_debts SET owed_microcredits = owed_microcredits + 1",
    "paid": "INSERT INTO debt_entries (platform_id, account_id, kind, microcredits, grant_id)"
    " SELECT platform_id, account_id, 'paid', 1, id FROM grants LIMIT 1",
    "step": "UPDATE clawbacks SET taken_microcredits = taken_microcredits + 1",
    "payment": "UPDATE paid_lots SET microcredits = 5",
}


@pytest.mark.parametrize("wrong", DAMAGES)
async def test_the_audit_finds_debts_that_do_not_come_out(
    ledger: Ledger, postgres_url: str, wrong: str
) -> None:
    account = await account_of(ledger)
    await owe(postgres_url, account, 30)
    grant_id, _ = await give(ledger, account, 10)
    await query(
        postgres_url,
        "WITH made AS (INSERT INTO billing_transactions (platform_id, account_id, livemode,"
        " business_key, kind, status, currency, amount_minor, created_at) VALUES ($1, $2, false,"
        " 'invoice:in_1', 'pack', 'succeeded', 'usd', 100, now()) RETURNING id), lot AS ("
        " INSERT INTO paid_lots SELECT $3, made.id, $1, $2, 10 FROM made) INSERT INTO clawbacks"
        " (id, platform_id, account_id, transaction_id, cause, amount_microcredits, parts, is_done)"
        " SELECT gen_random_uuid(), $1, $2, made.id, 'refund', 10, '[]', true FROM made",
        account.platform_id,
        account.account_id,
        grant_id,
    )
    assert await ledger.audit_debts() == []

    await query(postgres_url, DAMAGES[wrong])

    assert wrong in {drift.wrong for drift in await ledger.audit_debts()}
