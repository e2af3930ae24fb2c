"""The database belongs to a role that is no superuser, as where others run Postgres."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import asyncpg
import pytest
import pytest_asyncio

from gateway.clock import now_ms
from gateway.ledger import Ledger, MigrationError, Scope, Tenancy, migrate
from policies.catalog import Platform
from tests.control.routes.test_served_routes import Shop, serving
from tests.support import servers
from tests.support.api import running_api
from tests.support.nasty_upstream import answering, nasty_upstream
from tests.support.settlements import new_call_id, settlement
from tests.support.upstream_calls import HI
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

DAY_MS = 86_400_000
PARTITIONS = "SELECT relname FROM pg_class WHERE relispartition AND relkind = 'r'"


@pytest_asyncio.fixture(scope="module")
async def server_url(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """A server of its own: roles belong to servers, not to databases."""
    async with servers.postgres_server(tmp_path_factory.mktemp("owned") / "data") as url:
        yield url


async def database_of(server_url: str, owner: str, *options: str) -> str:
    """An empty database of a new role with these options: its URL for that role."""
    for command in (
        f"CREATE ROLE {owner} LOGIN NOSUPERUSER PASSWORD 'pw' {' '.join(options)}",
        f"CREATE DATABASE {owner} OWNER {owner}",
    ):
        await servers.administer(server_url, command)
    parts = urlsplit(server_url)
    return f"postgresql://{owner}:pw@{parts.hostname}:{parts.port}/{owner}"


async def test_calls_are_served_settled_and_told_of(server_url: str, clean_redis_url: str) -> None:
    url = await database_of(server_url, "maker", "CREATEROLE")
    await migrate(url)
    async with (
        running_api(url, clean_redis_url) as api,
        nasty_upstream(answering(HI)) as agent,
        serving(api, clean_redis_url) as proxy_url,
    ):
        shop = Shop(api.as_("owner"), agent, proxy_url, api.demo.key.text)
        await shop.sells()
        assert (await shop.call()).status == 200

        async def settled() -> list[dict[str, object]]:
            return list((await shop.client.get("/v1/settlements")).body["data"])

        assert len(await eventually(settled)) == 1
        usage = await shop.client.get("/v1/usage", by="route")
        assert [point["charged_credits"] for point in usage.body["points"]] == ["1"]
        log = await shop.client.get("/v1/audit-log", resource="route")
        assert [entry["action"] for entry in log.body["data"]].count("create") == 1
        assert (await api.as_("owner", api.other).get("/v1/settlements")).body["data"] == []


async def test_partitions_that_are_made_later_are_written_and_read(server_url: str) -> None:
    url = await database_of(server_url, "later")
    await servers.administer(server_url, "GRANT tollkeeper_api TO later")
    await migrate(url)
    later_ms = now_ms() + 150 * DAY_MS
    async with Ledger(url) as ledger, Tenancy(url) as tenancy:
        assert await ledger.ensure_partitions(6)
        report = await ledger.apply_catalog(Platform("demo", "demo", None), [], [])
        account_id = await ledger.create_account(report.platform_id, "alice", None)
        assert account_id is not None
        row = settlement(
            call_id=new_call_id(later_ms),
            admitted_ms=later_ms,
            settled_ms=later_ms,
            platform_id=report.platform_id,
            account_id=account_id,
        )
        for inserted in (1, 0):
            assert (await ledger.record_settlements([row])).inserted == inserted

        own = tenancy.ledger(Scope(report.platform_id, None, "token:1"))
        foreign = tenancy.ledger(Scope(report.platform_id + 1, None, "token:2"))
        for reader, count in ((own, 1), (foreign, 0)):
            found = await reader.search_calls(report.platform_id, limit=10)
            assert len(found.rows) == count
    connection = await asyncpg.connect(url)
    partitions = [row["relname"] for row in await connection.fetch(PARTITIONS)]
    await connection.execute("SET ROLE tollkeeper_api")
    for name in partitions:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.fetch(f"SELECT * FROM {name}")
    await connection.close()


async def test_an_owner_who_may_make_no_roles_is_told_what_to_do(server_url: str) -> None:
    url = await database_of(server_url, "helpless")

    with pytest.raises(MigrationError, match="GRANT tollkeeper_api TO helpless"):
        await migrate(url)

    await servers.administer(server_url, "GRANT tollkeeper_api TO helpless")
    assert await migrate(url)
