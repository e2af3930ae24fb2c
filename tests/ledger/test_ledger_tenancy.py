"""What the API asks of Postgres is answered for one tenant; what it changes is in the audit log."""

from __future__ import annotations

import asyncpg
import pytest

from gateway.ledger import Ledger, LedgerRejected, Scope, Tenancy
from gateway.ledger.periods import AccountChange
from policies.catalog import Plan, Platform

ALICE, BOB = "alice", "bob"


async def two_platforms(url: str) -> tuple[int, int]:
    """Each with a plan and an account; the accounts' ids are the platforms'."""
    async with Ledger(url) as ledger:
        ids = []
        for slug, account in (("one", ALICE), ("two", BOB)):
            report = await ledger.apply_catalog(Platform(slug, slug, None), [Plan("free", 100)], [])
            await ledger.create_account(report.platform_id, account, "free")
            ids.append(report.platform_id)
    return ids[0], ids[1]


async def test_a_tenant_sees_and_changes_nothing_of_another(postgres_url: str) -> None:
    one, two = await two_platforms(postgres_url)
    async with Tenancy(postgres_url) as tenancy:
        ledger = tenancy.ledger(Scope(one, None, "token:1"))

        assert [row.name for row in await ledger.accounts(one)] == [ALICE]
        assert await ledger.accounts(two) == []
        assert await ledger.find_platform("two") is None
        bob = await tenancy.ledger(Scope(two, None, "token:2")).find_account(two, BOB)
        assert bob is not None
        assert await ledger.account_state(bob.account_id) is None
        assert not await ledger.change_account(
            two, bob.account_id, AccountChange(status="suspended")
        )
        assert await ledger.grants(bob.account_id) == []


async def test_an_account_sees_nothing_of_others_of_its_platform(postgres_url: str) -> None:
    one, _ = await two_platforms(postgres_url)
    async with Tenancy(postgres_url) as tenancy:
        owner = tenancy.ledger(Scope(one, None, "token:1"))
        await owner.create_account(one, "carol", "free")
        carol = await owner.find_account(one, "carol")
        assert carol is not None

        ledger = tenancy.ledger(Scope(one, carol.account_id, "key:1"))

        assert [row.name for row in await ledger.accounts(one)] == ["carol"]
        assert [plan.slug for plan in await ledger.plans(one)] == ["free"]


async def test_an_account_changes_nothing_of_its_platform(postgres_url: str) -> None:
    one, _ = await two_platforms(postgres_url)
    async with Tenancy(postgres_url) as tenancy:
        owner = tenancy.ledger(Scope(one, None, "token:1"))
        await owner.set_secret(one, "agent", b"sealed")
        alice = await owner.find_account(one, ALICE)
        assert alice is not None
        account = tenancy.ledger(Scope(one, alice.account_id, "token:2"))

        assert [plan.slug for plan in await account.plans(one)] == ["free"]
        assert await account.secrets(one) == []
        assert not await account.delete_plan(one, "free")
        assert await account.delete_secret(one, "agent") is None
        assert not await account.change_plan(one, Plan("free", 10**9))
        assert await account.change_platform(one, Platform("one", "mine")) is None
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await account.create_plan(one, Plan("own", 10**9))
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await account.set_secret(one, "own", b"sealed")
        assert len(await owner.secrets(one)) == 1


async def test_the_api_can_do_nothing_outside_of_a_scope(postgres_url: str) -> None:
    one, _ = await two_platforms(postgres_url)
    async with Tenancy(postgres_url) as tenancy:
        unscoped = tenancy._ledger

        assert await unscoped.accounts(one) == []
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await unscoped.create_account(one, "mallory", None)


async def test_no_row_can_be_given_to_another_tenant(postgres_url: str) -> None:
    one, two = await two_platforms(postgres_url)
    async with Tenancy(postgres_url) as tenancy:
        ledger = tenancy.ledger(Scope(one, None, "token:1"))

        with pytest.raises((asyncpg.InsufficientPrivilegeError, LedgerRejected)):
            await ledger.create_account(two, "mallory", None)


async def test_each_change_is_in_the_audit_log_with_who_made_it(postgres_url: str) -> None:
    one, _ = await two_platforms(postgres_url)
    async with Tenancy(postgres_url) as tenancy:
        ledger = tenancy.ledger(Scope(one, None, "token:1", "192.0.2.7", "req-1"))
        alice = await ledger.find_account(one, ALICE)
        assert alice is not None
        await ledger.change_account(one, alice.account_id, AccountChange(status="suspended"))
        await ledger.create_key(
            alice.account_id,
            name="ci",
            prefix="tk_dev_abcd",
            last4="wxyz",
            pepper_version=1,
            digest=b"canary-digest",
        )

    connection = await asyncpg.connect(postgres_url)
    rows = await connection.fetch("SELECT * FROM audit_log ORDER BY id")
    await connection.close()
    status, key = rows
    assert (status["platform_id"], status["account_id"]) == (one, alice.account_id)
    assert (status["actor"], status["address"], status["request_id"]) == (
        "token:1",
        "192.0.2.7",
        "req-1",
    )
    assert (status["resource"], status["action"]) == ("account", "change")
    assert (status["before"], status["after"]) == (
        '{"status": "active"}',
        '{"status": "suspended"}',
    )
    assert (key["resource"], key["action"]) == ("key", "create")
    assert "digest" not in key["after"], "nothing of a secret"


async def test_nobody_can_change_the_audit_log_or_write_into_it(postgres_url: str) -> None:
    one, _ = await two_platforms(postgres_url)
    connection = await asyncpg.connect(postgres_url)
    await connection.execute("SET ROLE tollkeeper_api")
    await connection.execute(f"SET tollkeeper.platform = '{one}'")
    insert = (
        "INSERT INTO audit_log (actor, address, request_id, action, resource, resource_id, before,"
        " after) VALUES ('x', '', '', 'create', 'key', '1', '{}', '{}')"
    )
    for statement in (
        insert,
        "UPDATE audit_log SET actor = 'x'",
        "DELETE FROM audit_log",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement)
    await connection.execute("RESET ROLE")
    await connection.execute("SET tollkeeper.actor = 'x'; UPDATE platforms SET name = 'other'")
    with pytest.raises(asyncpg.RestrictViolationError):
        await connection.execute("DELETE FROM audit_log")
    await connection.close()


async def test_the_api_never_reads_sealed_secrets(postgres_url: str) -> None:
    connection = await asyncpg.connect(postgres_url)
    await connection.execute("SET ROLE tollkeeper_api")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await connection.fetch("SELECT sealed FROM secrets")
    for table in ("signing_keys", "login_sessions", "api_requests"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.fetch(f"SELECT * FROM {table}")
    await connection.close()


async def test_the_audit_log_can_not_be_diverted_to_a_table_of_its_name(postgres_url: str) -> None:
    one, _ = await two_platforms(postgres_url)
    connection = await asyncpg.connect(postgres_url)
    await connection.execute("CREATE TEMP TABLE audit_log (LIKE public.audit_log INCLUDING ALL)")
    await connection.execute("GRANT ALL ON pg_temp.audit_log TO tollkeeper_api")
    await connection.execute("SET ROLE tollkeeper_api")
    await connection.execute(
        f"SET tollkeeper.platform = '{one}'; SET tollkeeper.actor = 'mallory';"
        "UPDATE platforms SET name = 'other'"
    )
    await connection.execute("RESET ROLE")
    assert await connection.fetchval("SELECT count(*) FROM public.audit_log") == 1
    await connection.close()
