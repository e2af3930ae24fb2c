"""The shared servers are what the other tests take them for."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import asyncpg
import pytest
import redis.asyncio

from tests.support import memory
from tests.support.memory import PREFIX, UNLOCKED_S_MAX, memory_folder

if TYPE_CHECKING:
    from pathlib import Path


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


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What stands for memory, with room enough."""
    monkeypatch.setattr(memory, "MEMORY", tmp_path)
    monkeypatch.setattr(memory, "FREE_BYTES_MIN", 1)
    return tmp_path


def age(folder: Path) -> None:
    then = time.time() - 2 * UNLOCKED_S_MAX
    os.utime(folder, (then, then))


def test_a_folder_in_memory_is_gone_when_it_is_done_with(room: Path) -> None:
    with memory_folder(otherwise=room / "other") as folder:
        (folder / "data").write_text("x")
        assert folder.parent == room
    assert list(room.iterdir()) == []


def test_what_a_killed_run_left_in_memory_goes_and_what_is_used_stays(room: Path) -> None:
    left, fresh = room / f"{PREFIX}left", room / f"{PREFIX}fresh"
    for folder in (left, fresh, room / "of-somebody-else"):
        folder.mkdir()
        (folder / "data").write_text("x")
    age(left)
    age(room / "of-somebody-else")
    with memory_folder(otherwise=room) as used:
        age(used)
        with memory_folder(otherwise=room) as other:
            assert set(room.iterdir()) == {used, other, fresh, room / "of-somebody-else"}


def test_without_room_in_memory_a_folder_is_elsewhere(
    room: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    monkeypatch.setattr(memory, "FREE_BYTES_MIN", 2**63)
    with memory_folder(otherwise=elsewhere) as folder:
        assert folder == elsewhere
    assert elsewhere.exists()
    monkeypatch.setattr(memory, "MEMORY", room / "absent")
    with memory_folder(otherwise=elsewhere) as folder:
        assert folder == elsewhere
