"""The servers that tests share. Fixtures and tests run in one event loop per run.

redis_url           a Redis 6.2 (the embedded binary), shared by all: use accounts of your own
clean_redis_url     the same, emptied before the test
redis7_url          a Redis 7 or newer from the PATH, else skipped
postgres_url        a database of its own for the test, migrated
blank_postgres_url  the same, without any table

`make test` runs several processes of these tests side by side, each with servers of its own
(tests/support/side_by_side.py says which stay together).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import hypothesis
import pytest
import pytest_asyncio
import redis.asyncio

from tests.support import servers
from tests.support.memory import memory_folder

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

# Nothing here is about speed, and a busy machine is slow: neither may fail a property.
hypothesis.settings.register_profile(
    "tests", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("tests")


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Numbers the bytes that are no text, which often hold a time (gzip's head) or a random mask.

    A test's name must be the same in every process.
    """
    if isinstance(val, bytes) and not (val.isascii() and val.decode().isprintable()):
        return argname
    return None


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    from tests.support.side_by_side import processes

    return processes()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object:
    from tests.support.side_by_side import SideBySide

    return SideBySide(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):  # one of several processes
        from tests.support.side_by_side import place

        items.sort(key=place)


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
    with memory_folder(otherwise=tmp_path_factory.mktemp("postgres")) as folder:
        async with servers.postgres_server(folder / "data") as url:
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
