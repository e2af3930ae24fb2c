"""Keys as Postgres keeps them: what changes with them, and what is found of many."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import asyncpg
import pytest

from gateway.ledger.delegations import NewDelegation
from gateway.ledger.rows import NO_ROUTE, Guards
from gateway.ledger.specs import guards_in_force
from policies.catalog import Caps, Limits
from tests.support.keys import key_of
from tests.support.settlements import account_with_grants

if TYPE_CHECKING:
    from gateway.ledger import Ledger
    from gateway.ledger.delegations import Family
    from gateway.ledger.rows import KeyFacts, KeyListRow

HOUR_MS = 3_600_000
HERE = Guards(("chat",), ("10.0.0.0/8",))


async def add_key(ledger: Ledger, account_id: int, digest: bytes = b"one", **more: object) -> int:
    key_id = await ledger.create_key(
        account_id,
        name="ci",
        prefix="tk_dev_ab",
        last4="wxyz",
        pepper_version=1,
        digest=digest,
        **more,  # type: ignore[arg-type]
    )
    assert key_id is not None
    return key_id


async def delegate(
    ledger: Ledger,
    account_id: int,
    parent: int,
    digest: bytes,
    *,
    routes: tuple[str, ...] = (),
    life_ms: int = HOUR_MS,
) -> int:
    def decide(family: Family) -> NewDelegation:
        return NewDelegation(
            name="agent",
            prefix="jti",
            last4="wxyz",
            pepper_version=1,
            digest=digest,
            budget_microcredits=5,
            expires_ms=family.now_ms + life_ms,
            routes=routes,
            guarded=bool(routes),
            metadata={},
        )

    key_id = await ledger.delegate_key(account_id, parent, decide)
    assert key_id is not None
    return key_id


async def test_a_key_is_listed_as_it_was_made(ledger: Ledger) -> None:
    platform_id, account_id, _ = await account_with_grants(ledger)
    facts = {"limits": Limits(concurrency=3), "caps": Caps(day=9), "guards": HERE}
    key_id = await add_key(ledger, account_id, metadata={"team": "blue"}, **facts)
    plain = await add_key(ledger, account_id, b"two")

    key, other = (await ledger.keys_page(platform_id, limit=9)).rows

    assert (key.key_id, other.key_id) == (key_id, plain)
    assert (key.limits, key.caps, key.guards, key.guard_version) == (*facts.values(), 1)
    assert (key.kind, key.parent_key_id, key.budget_microcredits) == ("key", None, None)
    assert key.metadata == {"team": "blue"}
    assert (other.guards, other.guard_version, other.metadata) == (Guards(), 0, {})


async def test_the_version_of_guards_grows_exactly_when_they_change(ledger: Ledger) -> None:
    platform_id, account_id, _ = await account_with_grants(ledger)
    key_id = await add_key(ledger, account_id)
    versions = []
    for guards, name in ((HERE, "ci"), (HERE, "renamed"), (Guards(), "renamed"), (HERE, "renamed")):
        key = await ledger.change_key(
            platform_id, key_id, lambda key, g=guards, n=name: key.facts._replace(guards=g, name=n)
        )
        assert key is not None
        assert (key.guards, key.name) == (guards, name)
        versions.append(key.guard_version)
        row = await ledger.find_key(b"one")
        assert row is not None
        assert (row.routes, row.addresses, row.guard_version) == (*guards, key.guard_version)
    assert versions == [1, 1, 2, 3]


async def test_other_guards_of_a_key_are_another_version_of_all_that_descend_from_it(
    ledger: Ledger,
) -> None:
    platform_id, account_id, _ = await account_with_grants(ledger)
    root = await add_key(ledger, account_id, guards=Guards(("chat", "images"), ()))
    child = await delegate(ledger, account_id, root, b"child", routes=("chat",))
    grandchild = await delegate(ledger, account_id, child, b"grandchild")
    before = await ledger.find_key(b"grandchild")
    assert before is not None
    assert (before.kind, before.routes, before.addresses) == ("delegated", ("chat",), ())

    await ledger.change_key(
        platform_id,
        root,
        lambda key: key.facts._replace(guards=Guards(("images",), ("10.0.0.0/8",))),
    )

    after = await ledger.find_key(b"grandchild")
    assert after is not None
    assert after.guard_version > before.guard_version
    assert (after.routes, after.addresses) == (NO_ROUTE, ("10.0.0.0/8",))
    assert (await key_of(ledger, platform_id, grandchild)).guards == Guards()


@pytest.mark.parametrize(
    ("specs", "guards"),
    [
        ([{}], Guards()),
        ([{}, {"routes": ["a", "b"]}], Guards(("a", "b"), ())),
        ([{"routes": ["b", "c"]}, {}, {"routes": ["a", "b"]}], Guards(("b",), ())),
        ([{"routes": ["c"]}, {"routes": ["a"]}, {"routes": ["c"]}], Guards(NO_ROUTE, ())),
        ([{}, {"addresses": ["10.0.0.1/32"]}], Guards((), ("10.0.0.1/32",))),
    ],
)
def test_guards_in_force_allow_what_all_ancestors_allow(
    specs: list[dict[str, list[str]]], guards: Guards
) -> None:
    assert guards_in_force(specs) == guards


async def test_of_changes_at_once_none_is_lost(ledger: Ledger) -> None:
    platform_id, account_id, _ = await account_with_grants(ledger)
    key_id = await add_key(ledger, account_id)

    def noted(number: int) -> object:
        def change(key: KeyListRow) -> KeyFacts:
            return key.facts._replace(metadata={**key.metadata, str(number): "x"})

        return ledger.change_key(platform_id, key_id, change)

    await asyncio.gather(*(noted(number) for number in range(12)))  # type: ignore[call-overload]
    key = await key_of(ledger, platform_id, key_id)
    assert sorted(key.metadata, key=int) == [str(number) for number in range(12)]


async def test_a_change_that_is_refused_leaves_the_key_as_it_was(ledger: Ledger) -> None:
    platform_id, account_id, _ = await account_with_grants(ledger)
    key_id = await add_key(ledger, account_id)

    def refused(_: KeyListRow) -> KeyFacts:
        raise LookupError("no")

    with pytest.raises(LookupError):
        await ledger.change_key(platform_id, key_id, refused)
    assert (await key_of(ledger, platform_id, key_id)).name == "ci"
    assert await ledger.change_key(platform_id + 1, key_id, refused) is None


async def test_all_that_descends_from_a_key_is_over_when_it_is_revoked(ledger: Ledger) -> None:
    platform_id, account_id, _ = await account_with_grants(ledger)
    root = await add_key(ledger, account_id)
    sibling = await add_key(ledger, account_id, b"two")
    child = await delegate(ledger, account_id, root, b"child")
    grandchild = await delegate(ledger, account_id, child, b"grandchild")
    over = await delegate(ledger, account_id, child, b"over", life_ms=-HOUR_MS)
    spared = await delegate(ledger, account_id, sibling, b"spared")

    assert await ledger.revoke_key(platform_id, root) == account_id
    first = [await key_of(ledger, platform_id, key_id) for key_id in (root, child, grandchild)]
    assert await ledger.revoke_key(platform_id, root) == account_id

    for key in first:
        assert key.status == "revoked"
        assert key.revoked_ms > 0
        assert await key_of(ledger, platform_id, key.key_id) == key
    assert (await key_of(ledger, platform_id, over)).status == "active"
    assert (await key_of(ledger, platform_id, spared)).status == "active"
    ended = [row.key_id for row in await ledger.ended_delegations(10)]
    assert ended == sorted([child, grandchild, over], reverse=True)
    assert await ledger.revoke_key(platform_id + 1, sibling) is None


async def test_a_page_of_keys_begins_behind_the_one_before(ledger: Ledger) -> None:
    platform_id, alice, _ = await account_with_grants(ledger)
    _, bob, _ = await account_with_grants(ledger, name="bob")
    keys = [await add_key(ledger, (alice, bob)[number % 2], b"%d" % number) for number in range(6)]
    past = int(time.time() * 1000) - HOUR_MS
    expired = await add_key(ledger, alice, b"expired", expires_ms=past)
    await ledger.revoke_key(platform_id, keys[0])

    async def page(**asked: object) -> list[int]:
        found = await ledger.keys_page(platform_id, limit=3, **asked)  # type: ignore[arg-type]
        return [key.key_id for key in found.rows]

    assert await page() == keys[:3]
    assert await page(after=keys[2]) == keys[3:]
    assert await page(after=keys[5]) == [expired]
    assert await page(account_id=bob, after=keys[1]) == [keys[3], keys[5]]
    assert await page(kind="delegated") == []
    assert await page(kind="key", after=keys[2]) == keys[3:]
    assert await page(status="revoked") == [keys[0]]
    assert await page(status="expired") == [expired]
    assert await page(status="active", account_id=alice) == [keys[2], keys[4]]
    other, *_ = await account_with_grants(ledger, slug="other", name="carol")
    assert await ledger.keys_page(other, limit=3) == ([], None)
    assert await ledger.keys_page(other, account_id=alice, limit=3) == ([], None)
    assert await ledger.key(other, keys[0]) is None
    assert await ledger.keys_alike(other, "tk_dev_ab") == []


async def test_a_page_of_keys_that_match_seldom_says_where_to_go_on(ledger: Ledger) -> None:
    platform_id, alice, _ = await account_with_grants(ledger)
    keys = [await add_key(ledger, alice, b"%d" % number) for number in range(5)]
    await ledger.revoke_key(platform_id, keys[3])
    for account_id in (None, alice):
        first = await ledger.keys_page(
            platform_id, account_id=account_id, limit=3, status="revoked", scan_rows_max=2
        )
        assert first == ([], keys[1])
        second = await ledger.keys_page(
            platform_id, account_id=account_id, after=keys[1], limit=3, status="revoked",
            scan_rows_max=2,
        )  # fmt: skip
        assert [key.key_id for key in second.rows] == [keys[3]]
        assert second.after == keys[3]
        assert (await ledger.keys_page(platform_id, after=keys[3], limit=3)).after is None


async def test_one_of_many_keys_is_found_without_reading_the_others(
    ledger: Ledger, postgres_url: str
) -> None:
    platform_id, account_id, _ = await account_with_grants(ledger)
    parent = await add_key(ledger, account_id)
    connection = await asyncpg.connect(postgres_url)
    try:
        await connection.execute(
            """INSERT INTO api_keys (platform_id, account_id, name, prefix, last4, pepper_version,
                   digest, kind, parent_key_id, budget_microcredits, expires_at, closed)
               SELECT $1, $2, 'x', 'p' || n, 'wxyz', 1, n::text::bytea,
                   'delegated', $3, 1, now(), true
               FROM generate_series(1, 20000) AS n""",
            *(platform_id, account_id, parent),
        )
        await connection.execute("ANALYZE api_keys")
        plans = {}
        for name, arguments in {
            "key_page": [platform_id, 10_000, 2_000, 50, None, None],
            "key_page_of_account": [platform_id, 10_000, 2_000, 50, None, None, account_id],
            "key_alike": [platform_id, "p500", "wxyz", 20],
            "key_children": [platform_id, parent, 10_000, 50],
            "delegation_count": [account_id],
            "delegation_ended": [None, 100],
            "key_revoke": [parent],
        }.items():
            query = ledger._queries[name]
            rows = await connection.fetch(f"EXPLAIN (ANALYZE, BUFFERS) {query}", *arguments)
            plans[name] = "\n".join(row[0] for row in rows)
    finally:
        await connection.close()
    for name, plan in plans.items():
        assert "Seq Scan" not in plan, (name, plan)
        assert "Rows Removed" not in plan, (name, plan)
    assert [key.prefix for key in await ledger.keys_alike(platform_id, "p500")] == ["p500"]
