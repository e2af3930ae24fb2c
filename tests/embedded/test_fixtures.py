"""The shared servers are what the other tests take them for."""

from __future__ import annotations

import asyncpg
import redis.asyncio


async def test_redis_url_is_the_bundled_redis_and_never_evicts(redis_url: str) -> None:
    async with redis.asyncio.from_url(redis_url) as client:
        facts = await client.info()
        settings = await client.config_get("*")
    assert facts["redis_version"].startswith("6.2.")
    assert settings["maxmemory-policy"] == "noeviction"
    assert settings["appendonly"] == "yes"
    assert settings["save"] == ""


async def test_redis7_url_is_at_least_redis_7(redis7_url: str) -> None:
    async with redis.asyncio.from_url(redis7_url) as client:
        assert int((await client.info())["redis_version"].split(".")[0]) >= 7


async def test_postgres_url_is_migrated(postgres_url: str) -> None:
    connection = await asyncpg.connect(postgres_url)
    assert await connection.fetchval("SELECT count(*) FROM settlements") == 0
    await connection.close()


async def test_each_test_has_a_database_of_its_own(blank_postgres_url: str) -> None:
    connection = await asyncpg.connect(blank_postgres_url)
    tables = "SELECT count(*) FROM information_schema.tables WHERE table_schema = 'public'"
    assert await connection.fetchval(tables) == 0
    await connection.execute("CREATE TABLE mine (id int)")
    await connection.close()


async def test_a_database_starts_without_the_tables_of_the_test_before(
    blank_postgres_url: str,
) -> None:
    connection = await asyncpg.connect(blank_postgres_url)
    assert await connection.fetchval("SELECT to_regclass('mine')") is None
    await connection.close()
