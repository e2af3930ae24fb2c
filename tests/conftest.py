"""The servers that tests share. Fixtures and tests run in one event loop per run.

redis_url           a Redis 6.2 (the embedded binary), shared by all: use accounts of your own
clean_redis_url     the same, emptied before the test
redis7_url          a Redis 7 or newer from the PATH, else skipped
postgres_url        a database of its own for the test, migrated
blank_postgres_url  the same, without any table
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
import redis.asyncio

from tests.support import servers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest_asyncio.fixture(scope="session")
async def redis_url(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    async with servers.redis_server(tmp_path_factory.mktemp("redis6") / "data") as url:
        yield url


@pytest_asyncio.fixture(scope="session")
async def redis7_url(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    binary = servers.redis_on_path((7, 0))
    if binary is None:
        pytest.skip("no Redis 7 on the PATH")
    async with servers.redis_server(tmp_path_factory.mktemp("redis7") / "data", binary) as url:
        yield url


@pytest_asyncio.fixture
async def clean_redis_url(redis_url: str) -> str:
    async with redis.asyncio.from_url(redis_url) as client:
        await client.flushall()
        await client.script_flush()
    return redis_url


@pytest_asyncio.fixture(scope="session")
async def postgres_server_url(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    async with servers.postgres_server(tmp_path_factory.mktemp("postgres") / "data") as url:
        yield url


@pytest_asyncio.fixture(scope="session")
async def _migrated_template(postgres_server_url: str) -> str:
    from gateway.ledger.migrate import migrate

    await servers.administer(postgres_server_url, f"CREATE DATABASE {servers.TEMPLATE}")
    await migrate(servers.database_url(postgres_server_url, servers.TEMPLATE))
    return servers.TEMPLATE


@pytest_asyncio.fixture
async def postgres_url(postgres_server_url: str, _migrated_template: str) -> AsyncIterator[str]:
    url = await servers.create_database(postgres_server_url, _migrated_template)
    yield url
    await servers.drop_database(url, postgres_server_url)


@pytest_asyncio.fixture
async def blank_postgres_url(postgres_server_url: str) -> AsyncIterator[str]:
    url = await servers.create_database(postgres_server_url)
    yield url
    await servers.drop_database(url, postgres_server_url)
