"""The audit log is read by pages, each entry once, by those whom it is about."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest_asyncio

from gateway.ledger import Ledger, Scope, Tenancy
from gateway.ledger.audit_log import LogEntry, LogFilter, LogPlace
from gateway.ledger.periods import AccountChange
from policies.catalog import Platform

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Noted:
    """A platform whose owner has made three accounts, and changed the first one four times."""

    def __init__(self, ledger: Ledger, tenancy: Tenancy) -> None:
        self.ledger, self.tenancy = ledger, tenancy

    async def prepare(self) -> None:
        self.one = (await self.ledger.apply_catalog(Platform("one"), (), ())).platform_id
        self.two = (await self.ledger.apply_catalog(Platform("two"), (), ())).platform_id
        self.owner = self.of(self.one, None, "token:1")
        self.accounts = [await self._account(name) for name in ("alice", "bob", "carol")]
        for number in range(4):
            actor = self.of(self.one, None, f"token:{number % 2}")
            status = "active" if number % 2 else "suspended"
            await actor.change_account(self.one, self.accounts[0], AccountChange(status=status))
        await self.of(self.two, None, "token:9").create_account(self.two, "mallory")

    def of(self, platform_id: int, account_id: int | None, actor: str) -> Ledger:
        return self.tenancy.ledger(Scope(platform_id, account_id, actor, "192.0.2.7", "req-1"))

    async def _account(self, name: str) -> int:
        account_id = await self.owner.create_account(self.one, name)
        assert account_id is not None
        return account_id


@pytest_asyncio.fixture
async def noted(postgres_url: str) -> AsyncIterator[Noted]:
    async with Ledger(postgres_url) as ledger, Tenancy(postgres_url) as tenancy:
        one = Noted(ledger, tenancy)
        await one.prepare()
        yield one


async def all_pages(ledger: Ledger, platform_id: int, wanted: LogFilter, **options: int) -> Any:
    found: list[LogEntry] = []
    after: LogPlace | None = None
    while True:
        page = await ledger.log_page(platform_id, wanted, after=after, **options)  # type: ignore[arg-type]
        found += page.rows
        after = page.after
        if after is None:
            return found


async def test_pages_have_each_entry_once_newest_first(noted: Noted) -> None:
    everything = (await noted.owner.log_page(noted.one, limit=50)).rows

    assert [entry.action for entry in everything] == ["change"] * 4 + ["create"] * 3
    assert [entry.at_us for entry in everything] == sorted(
        (entry.at_us for entry in everything), reverse=True
    )
    newest = everything[0]
    assert (newest.resource, newest.resource_id) == ("account", str(noted.accounts[0]))
    assert (newest.actor, newest.address, newest.request_id) == ("token:1", "192.0.2.7", "req-1")
    assert (newest.before, newest.after) == ({"status": "suspended"}, {"status": "active"})
    for limit in (1, 2, 3, 7):
        assert await all_pages(noted.owner, noted.one, LogFilter(), limit=limit) == everything
    found = await all_pages(
        noted.owner, noted.one, LogFilter(actor="token:0"), limit=2, scan_rows_max=2
    )
    assert [entry.actor for entry in found] == ["token:0"] * 2


async def test_each_filter_finds_its_entries_and_no_other(noted: Noted) -> None:
    everything = (await noted.owner.log_page(noted.one, limit=50)).rows
    alice, bob, _ = noted.accounts
    middle_ms = everything[3].at_us // 1000

    async def found(**asked: Any) -> list[LogEntry]:
        return (await noted.owner.log_page(noted.one, LogFilter(**asked), limit=50)).rows

    of_alice = [entry for entry in everything if entry.account_id == alice]
    assert len(of_alice) == 5
    assert await found(account_id=alice) == of_alice
    assert await found(resource="account", resource_id=str(alice)) == of_alice
    assert await found(resource="account", resource_id=str(alice), account_id=bob) == []
    assert await found(resource="account") == everything
    assert await found(resource="route") == []
    assert await found(actor="token:0") == [e for e in everything if e.actor == "token:0"]
    assert await found(from_ms=middle_ms) == [e for e in everything if e.at_us >= middle_ms * 1000]
    assert await found(until_ms=middle_ms) == [e for e in everything if e.at_us < middle_ms * 1000]


async def test_entries_of_one_transaction_are_told_apart_by_their_ids(noted: Noted) -> None:
    async with noted.owner.transaction() as session:
        for account_id in noted.accounts:
            values = (account_id, None, "suspended", False, None)
            await session.value("account_change", *values)
    found = (await noted.owner.log_page(noted.one, LogFilter(actor="token:1"), limit=3)).rows
    assert len({entry.at_us for entry in found}) == 1
    assert (
        await all_pages(noted.owner, noted.one, LogFilter(from_ms=found[0].at_us // 1000), limit=1)
        == (
            await noted.owner.log_page(
                noted.one, LogFilter(from_ms=found[0].at_us // 1000), limit=50
            )
        ).rows
    )


async def test_a_tenant_reads_its_own_entries_only(noted: Noted) -> None:
    alice, bob, _ = noted.accounts
    member = noted.of(noted.one, bob, "key:1")
    foreign = noted.of(noted.two, None, "token:2")

    assert [e.account_id for e in (await member.log_page(noted.one, limit=9)).rows] == [bob]
    for asked in (LogFilter(account_id=alice), LogFilter("account", str(alice))):
        assert (await member.log_page(noted.one, asked, limit=9)).rows == []
        assert (await foreign.log_page(noted.one, asked, limit=9)).rows == []
    assert (await foreign.log_page(noted.one, limit=9)).rows == []
    assert len((await foreign.log_page(noted.two, limit=9)).rows) == 1
