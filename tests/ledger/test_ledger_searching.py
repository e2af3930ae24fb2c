"""Long lists are read in pages of bounded cost: nothing is missed, doubled, or another tenant's."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from gateway.ledger import Ledger, Scope, Tenancy
from gateway.ledger.periods import AccountChange
from gateway.ledger.searching import CallFilter, SettledPlace, first_call_id
from policies.catalog import Plan, Platform
from tests.support.settlements import new_call_id, settlement

if TYPE_CHECKING:
    from gateway.ledger.rows import SettlementRow
    from policies.settlement import Settlement

NOW_MS = time.time_ns() // 1_000_000
DAY_MS = 86_400_000


async def platform_with_accounts(ledger: Ledger, slug: str, *names: str) -> tuple[int, list[int]]:
    platform_id = (
        await ledger.apply_catalog(Platform(slug, slug, None), [Plan("free", 0)], [])
    ).platform_id
    accounts = []
    for name in names:
        account_id = await ledger.create_account(platform_id, name, "free")
        assert account_id is not None
        accounts.append(account_id)
    return platform_id, accounts


async def key_of(ledger: Ledger, account_id: int) -> int:
    key_id = await ledger.create_key(
        account_id,
        name="k",
        prefix="tk",
        last4="0000",
        pepper_version=1,
        digest=f"digest of {account_id}".encode(),
    )
    assert key_id is not None
    return key_id


async def recorded(ledger: Ledger, count: int, **changes: Any) -> list[Settlement]:
    """Calls a second apart, the newest first."""
    calls = [
        settlement(
            **{
                "call_id": new_call_id(NOW_MS - 1_000 * number),
                "settled_ms": NOW_MS - 1_000 * number + 500,
                **changes,
            }
        )
        for number in range(count)
    ]
    await ledger.record_settlements(calls)
    return calls


async def all_pages(
    ledger: Ledger, platform_id: int, wanted: CallFilter, **options: int
) -> list[list[SettlementRow]]:
    pages = []
    after = None
    while True:
        page = await ledger.search_calls(platform_id, wanted, after=after, **options)  # type: ignore[arg-type]
        pages.append(page.rows)
        after = page.after
        if after is None:
            return pages


def ids(rows: list[SettlementRow] | list[Settlement]) -> list[str]:
    return [row.call_id for row in rows]


async def test_pages_have_each_call_once_newest_first(ledger: Ledger) -> None:
    platform_id, (alice, bob) = await platform_with_accounts(ledger, "one", "alice", "bob")
    mine = await recorded(ledger, 10, platform_id=platform_id, account_id=alice)
    others = await recorded(ledger, 3, platform_id=platform_id, account_id=bob)
    everything = sorted(ids(mine) + ids(others), reverse=True)

    pages = await all_pages(ledger, platform_id, CallFilter(), limit=4)
    assert [len(page) for page in pages] == [4, 4, 4, 1]
    assert [call for page in pages for call in ids(page)] == everything
    pages = await all_pages(ledger, platform_id, CallFilter(account_id=alice), limit=5)
    assert [ids(page) for page in pages] == [ids(mine)[:5], ids(mine)[5:]]


@pytest.mark.parametrize("of_account", [True, False])
async def test_each_filter_finds_its_calls_and_no_other(
    ledger: Ledger, *, of_account: bool
) -> None:
    platform_id, (alice,) = await platform_with_accounts(ledger, "one", "alice")
    key_id = await key_of(ledger, alice)
    plain = {"platform_id": platform_id, "account_id": alice, "key_id": 0}
    wanted: list[tuple[CallFilter, dict[str, Any]]] = [
        (CallFilter(key_id=key_id), {"key_id": key_id}),
        (CallFilter(route_id=77), {"route_id": 77}),
        (CallFilter(ending="exhausted"), {"ending": "exhausted"}),
        (CallFilter(status=502), {"status": 502}),
        (CallFilter(session="s-1"), {"session": "s-1"}),
        (CallFilter(session="s-1", status=418), {"session": "s-1", "status": 418}),
        (CallFilter(route_id=77, status=418), {"route_id": 77, "status": 418}),
    ]
    await recorded(ledger, 5, **plain)
    for number, (_, facts) in enumerate(wanted):
        moment_ms = NOW_MS - DAY_MS * (number + 1)
        await recorded(ledger, 1, **{**plain, **facts, "call_id": new_call_id(moment_ms)})

    for asked, facts in wanted:
        chosen = asked._replace(account_id=alice) if of_account else asked
        found = (await ledger.search_calls(platform_id, chosen, limit=50)).rows
        assert found, asked
        assert all(getattr(row, name) == fact for row in found for name, fact in facts.items())


async def test_a_time_has_the_calls_that_came_in_within_it(ledger: Ledger) -> None:
    platform_id, (alice,) = await platform_with_accounts(ledger, "one", "alice")
    edges = [NOW_MS - 10, NOW_MS - 9, NOW_MS - 1, NOW_MS]
    calls = [
        settlement(call_id=new_call_id(edge), platform_id=platform_id, account_id=alice)
        for edge in edges
    ]
    await ledger.record_settlements(calls)

    wanted = CallFilter(from_ms=edges[1], until_ms=edges[3])
    page = await ledger.search_calls(platform_id, wanted, limit=9)

    assert ids(page.rows) == [calls[2].call_id, calls[1].call_id]
    one = CallFilter(call_id=calls[0].call_id)
    assert ids((await ledger.search_calls(platform_id, one, limit=9)).rows) == [calls[0].call_id]
    assert first_call_id(edges[0]) < calls[0].call_id < first_call_id(edges[1])


async def test_a_page_that_has_looked_at_enough_says_where_to_go_on(ledger: Ledger) -> None:
    platform_id, (alice,) = await platform_with_accounts(ledger, "one", "alice")
    calls = await recorded(ledger, 25, platform_id=platform_id, account_id=alice)
    rare = settlement(
        call_id=new_call_id(NOW_MS - DAY_MS),
        platform_id=platform_id,
        account_id=alice,
        ending="exhausted",
    )
    await ledger.record_settlements([rare])
    wanted = CallFilter(ending="exhausted")

    first = await ledger.search_calls(platform_id, wanted, limit=5, scan_rows_max=10)
    assert (first.rows, first.after) == ([], calls[9].call_id)
    pages = await all_pages(ledger, platform_id, wanted, limit=5, scan_rows_max=10)
    assert [ids(page) for page in pages] == [[], [], [rare.call_id]]
    pages = await all_pages(ledger, platform_id, CallFilter(), limit=9, scan_rows_max=10)
    assert [call for page in pages for call in ids(page)] == [*ids(calls), rare.call_id]


async def test_a_key_of_somebody_else_has_no_calls(ledger: Ledger) -> None:
    platform_id, (alice, bob) = await platform_with_accounts(ledger, "one", "alice", "bob")
    other_platform, (carol,) = await platform_with_accounts(ledger, "two", "carol")
    key_id = await key_of(ledger, alice)
    calls = await recorded(ledger, 2, platform_id=platform_id, account_id=alice, key_id=key_id)

    async def found(platform: int, **asked: int) -> list[str]:
        return ids((await ledger.search_calls(platform, CallFilter(**asked), limit=9)).rows)

    assert await found(platform_id, key_id=key_id) == ids(calls)
    assert await found(platform_id, key_id=key_id, account_id=bob) == []
    assert await found(platform_id, key_id=key_id + 1) == []
    assert await found(other_platform, key_id=key_id) == []
    assert await found(other_platform, account_id=alice) == []
    assert await found(platform_id, account_id=carol) == []


async def test_a_tenant_finds_its_own_calls_only(ledger: Ledger, postgres_url: str) -> None:
    one, (alice, bob) = await platform_with_accounts(ledger, "one", "alice", "bob")
    two, (carol,) = await platform_with_accounts(ledger, "two", "carol")
    mine = await recorded(ledger, 3, platform_id=one, account_id=alice)
    await recorded(ledger, 3, platform_id=one, account_id=bob)
    theirs = await recorded(ledger, 3, platform_id=two, account_id=carol)
    start = SettledPlace(0)
    async with Tenancy(postgres_url) as tenancy:
        owner = tenancy.ledger(Scope(one, None, "token:1"))
        member = tenancy.ledger(Scope(one, alice, "key:1"))
        foreign = tenancy.ledger(Scope(two, None, "token:2"))

        assert len((await owner.search_calls(one, limit=9)).rows) == 6
        assert (await owner.search_calls(two, limit=9)).rows == []
        for ledger_of, platform in ((member, one), (foreign, two)):
            expected = ids(mine if platform == one else theirs)
            assert ids((await ledger_of.search_calls(platform, limit=9)).rows) == expected
            settled = (await ledger_of.settled_calls(platform, start, limit=9)).rows
            assert ids(settled) == expected[::-1]
        for asked in (CallFilter(account_id=bob), CallFilter(call_id=theirs[0].call_id)):
            assert (await member.search_calls(one, asked, limit=9)).rows == []
        others = CallFilter(account_id=bob)
        assert (await member.settled_calls(one, start, others, limit=9)).rows == []


async def test_calls_are_followed_in_the_order_in_which_they_were_settled(ledger: Ledger) -> None:
    platform_id, (alice, bob) = await platform_with_accounts(ledger, "one", "alice", "bob")
    short = await recorded(ledger, 3, platform_id=platform_id, account_id=bob)
    ran_for_a_day = settlement(
        call_id=new_call_id(NOW_MS - DAY_MS),
        settled_ms=short[1].settled_ms,
        platform_id=platform_id,
        account_id=alice,
    )
    await ledger.record_settlements([ran_for_a_day])

    place: SettledPlace | None = SettledPlace(short[2].settled_ms)
    found = []
    while place is not None:
        page = await ledger.settled_calls(platform_id, place, limit=1)
        found += ids(page.rows)
        place = page.after
    assert found == ids([short[2], ran_for_a_day, short[1], short[0]])

    wanted = CallFilter(account_id=alice)
    page = await ledger.settled_calls(platform_id, SettledPlace(0), wanted, limit=9)
    assert (ids(page.rows), page.after) == ([ran_for_a_day.call_id], None)
    page = await ledger.settled_calls(
        platform_id, SettledPlace(0), CallFilter(ending="exhausted"), limit=9, scan_rows_max=2
    )
    assert page.rows == []
    assert page.after == (ran_for_a_day.settled_ms, ran_for_a_day.call_id)


async def test_accounts_come_by_pages_and_filters(ledger: Ledger, postgres_url: str) -> None:
    names = [f"acme-{number}" for number in range(6)] + ["bolt", "zeta"]
    one, accounts = await platform_with_accounts(ledger, "one", *names)
    two, _ = await platform_with_accounts(ledger, "two", "acme-9")
    await ledger.change_account(one, accounts[2], AccountChange(status="suspended"))

    first = await ledger.accounts_page(one, limit=5)
    rest = await ledger.accounts_page(one, after=first.after, limit=5)
    assert [row.name for row in first.rows + rest.rows] == names
    assert (first.after, rest.after) == (accounts[4], None)

    async def named(**asked: Any) -> list[str]:
        return [row.name for row in (await ledger.accounts_page(one, limit=9, **asked)).rows]

    assert await named(status="suspended") == ["acme-2"]
    assert await named(name_prefix="acme-") == names[:6]
    assert await named(name_prefix="bolt", plan_slug="free") == ["bolt"]
    assert await named(plan_slug="pro") == []
    assert await named(name_prefix="%") == []
    short = await ledger.accounts_page(one, name_prefix="zeta", limit=5, scan_rows_max=4)
    assert (short.rows, short.after) == ([], accounts[3])
    async with Tenancy(postgres_url) as tenancy:
        member = tenancy.ledger(Scope(one, accounts[6], "key:1"))
        assert [row.name for row in (await member.accounts_page(one, limit=9)).rows] == ["bolt"]
        foreign = tenancy.ledger(Scope(two, None, "token:2"))
        assert (await foreign.accounts_page(one, limit=9)).rows == []


async def test_all_lots_of_an_account_come_by_pages(ledger: Ledger) -> None:
    one, (alice, bob) = await platform_with_accounts(ledger, "one", "alice", "bob")
    two, _ = await platform_with_accounts(ledger, "two")
    lots = [await ledger.add_grant(alice, 1_000 + number, priority=1) for number in range(5)]
    await ledger.add_grant(bob, 7, priority=1)

    first = await ledger.grants_page(one, alice, limit=3)
    rest = await ledger.grants_page(one, alice, after=first.after, limit=3)

    assert [row.grant_id for row in first.rows + rest.rows] == lots[::-1]
    assert rest.after is None
    assert first.rows[0] == next(
        row for row in await ledger.grants(alice) if row.grant_id == lots[-1]
    )
    assert (await ledger.grants_page(two, alice, limit=3)).rows == []
