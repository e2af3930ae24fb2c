"""The embedded servers keep their data through stops, kills and restarts, and outlive nobody."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
import pytest
import redis.asyncio

from gateway.embedded import keep, postgres
from gateway.embedded import redis as embedded_redis
from gateway.embedded.datadir import open_data_dir
from gateway.embedded.servers import Servers, embedded_servers
from gateway.embedded.spawn import EmbeddedError, command_of
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

RUN_UNTIL_KILLED = """
import asyncio, pathlib, sys
from gateway.embedded.datadir import open_data_dir
from gateway.embedded.servers import embedded_servers
async def main():
    with open_data_dir(pathlib.Path(sys.argv[1])) as folder:
        async with embedded_servers(folder, redis=True, postgres=True) as servers:
            print(servers.redis.pid, servers.postgres.pid, servers.redis_url, servers.postgres_url,
                  flush=True)
            await asyncio.Event().wait()
asyncio.run(main())
"""


@contextlib.asynccontextmanager
async def both(path: Path) -> AsyncIterator[Servers]:
    with open_data_dir(path) as folder:
        async with embedded_servers(folder, redis=True, postgres=True) as servers:
            yield servers


async def write(redis_url: str | None, postgres_url: str | None) -> None:
    assert redis_url is not None
    async with redis.asyncio.from_url(redis_url) as client:
        await client.set("balance", "7")
    connection = await asyncpg.connect(postgres_url)
    await connection.execute("CREATE TABLE settled AS SELECT 7 AS amount")
    await connection.close()


async def read(servers: Servers) -> tuple[bytes | None, int]:
    assert servers.redis_url is not None
    async with redis.asyncio.from_url(servers.redis_url) as client:
        balance = await client.get("balance")
    connection = await asyncpg.connect(servers.postgres_url)
    settled = await connection.fetchval("SELECT amount FROM settled")
    await connection.close()
    return balance, settled


def uids_of(pid: int) -> list[int]:
    """Real, effective, saved and file system user of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("Uid:"))
    return [int(uid) for uid in line.split()[1:]]


async def gone(pid: int) -> None:
    await eventually(lambda: not command_of(pid))


async def test_data_is_there_after_a_restart_in_a_folder_with_an_odd_name(tmp_path: Path) -> None:
    folder = tmp_path / """my "data" isn't \\ here"""
    async with both(folder) as servers:
        await write(servers.redis_url, servers.postgres_url)
        pids = [server.pid for server in (servers.redis, servers.postgres) if server]
    assert [command_of(pid) for pid in pids] == ["", ""]
    async with both(folder) as servers:
        assert await read(servers) == (b"7", 7)


@pytest.mark.parametrize("at_once", [False, True])
async def test_servers_die_with_a_killed_parent_and_the_next_start_has_the_data(
    at_once: bool, tmp_path: Path
) -> None:
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", RUN_UNTIL_KILLED, tmp_path / "d", stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    redis_pid, postgres_pid, redis_url, postgres_url = (await parent.stdout.readline()).split()
    await write(redis_url.decode(), postgres_url.decode())
    parent.kill()
    await parent.wait()
    if not at_once:
        await gone(int(redis_pid))
        await gone(int(postgres_pid))
        assert not (tmp_path / "d" / "postgres" / "postmaster.pid").exists()  # a clean stop
    async with both(tmp_path / "d") as servers:
        assert await read(servers) == (b"7", 7)
    await gone(int(redis_pid))
    await gone(int(postgres_pid))


async def test_stale_pid_files_that_name_a_strangers_process_harm_nobody(tmp_path: Path) -> None:
    async with both(tmp_path) as servers:
        await write(servers.redis_url, servers.postgres_url)
    stranger = await asyncio.create_subprocess_exec("sleep", "60")
    stale = f"{stranger.pid}\n{tmp_path}/postgres\n1\n1\n\n127.0.0.1\n1 1\nready\n"
    (tmp_path / "postgres" / "postmaster.pid").write_text(stale)
    (tmp_path / "redis" / "redis.pid").write_text(f"{stranger.pid}\n")
    async with both(tmp_path) as servers:
        assert await read(servers) == (b"7", 7)
    assert stranger.returncode is None
    stranger.kill()
    await stranger.wait()


async def test_a_killed_server_is_back_at_its_address_with_its_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keep, "RESTART_DELAY_S", 0.02)
    async with both(tmp_path) as servers:
        await write(servers.redis_url, servers.postgres_url)
        assert servers.redis is not None
        assert servers.postgres is not None
        before = servers.redis.pid, servers.postgres.pid
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        away = (OSError, redis.RedisError, asyncpg.PostgresError, asyncpg.InterfaceError)
        assert await eventually(lambda: read(servers), unless=away) == (b"7", 7)
        assert servers.redis.pid != before[0]
        assert servers.postgres.pid != before[1]


async def test_an_interrupted_first_start_is_started_over(tmp_path: Path) -> None:
    async def start() -> None:
        async with both(tmp_path):
            pass

    interrupted = asyncio.create_task(start())
    await eventually((tmp_path / "postgres.new" / "base").exists)  # initdb is at work
    interrupted.cancel()
    with pytest.raises(asyncio.CancelledError):
        await interrupted
    assert not (tmp_path / "postgres").exists()
    async with both(tmp_path) as servers:
        await write(servers.redis_url, servers.postgres_url)


async def test_the_servers_are_durable_never_evict_and_listen_on_loopback_only(
    tmp_path: Path,
) -> None:
    async with both(tmp_path) as servers:
        connection = await asyncpg.connect(servers.postgres_url)
        shown = [
            await connection.fetchval(f"SHOW {name}")
            for name in ("fsync", "synchronous_commit", "full_page_writes", "listen_addresses")
        ]
        await connection.close()
        assert servers.redis_url is not None
        async with redis.asyncio.from_url(servers.redis_url) as client:
            settings = await client.config_get("*")
    assert shown == ["on", "on", "on", "127.0.0.1"]
    assert settings["appendonly"] == "yes"
    assert settings["appendfsync"] == "everysec"
    assert settings["maxmemory-policy"] == "noeviction"
    assert settings["bind"] == "127.0.0.1"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has rights to give up")
async def test_root_starts_the_servers_as_somebody_else_below_a_folder_only_root_may_enter(
    tmp_path: Path,
) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir(mode=0o700)
    async with both(hidden / "d") as servers:
        for server in (servers.redis, servers.postgres):
            assert server is not None
            assert 0 not in uids_of(server.pid)
    assert hidden.stat().st_mode & 0o777 == 0o700


async def test_a_server_that_cant_start_is_one_clear_line_and_the_other_is_stopped(
    tmp_path: Path,
) -> None:
    async with both(tmp_path):
        pass
    (tmp_path / "postgres" / "global" / "pg_control").unlink()
    with pytest.raises(EmbeddedError, match=r"Postgres does not start: .*pg_control") as caught:
        async with both(tmp_path):
            pass
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "redis" / "redis.pid").exists()


async def test_redis_6_refuses_data_that_redis_7_wrote(tmp_path: Path) -> None:
    (tmp_path / "redis" / "appendonlydir").mkdir(parents=True)
    context = embedded_redis.running_redis(
        tmp_path / "redis",
        password="x",
        log=tmp_path / "log",
        user=None,
        binary=embedded_redis.bundled_redis(),
    )
    with pytest.raises(EmbeddedError, match="written by Redis 7 or newer"):
        async with context:
            pass


def fake_server(folder: Path, name: str, version: str) -> Path:
    program = folder / name
    program.write_text(f"#!/bin/sh\necho 'Redis server v={version} sha=0'\n")
    program.chmod(0o755)
    return program


def test_a_new_enough_server_on_the_path_is_preferred(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    fake_server(tmp_path, "redis-server", "7.2.4")
    valkey = fake_server(tmp_path, "valkey-server", "8.1.0")
    assert embedded_redis.find_redis() == (valkey, (8, 1))


def test_an_old_server_on_the_path_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    fake_server(tmp_path, "redis-server", "6.0.16")
    assert embedded_redis.find_redis() == embedded_redis.bundled_redis()


def test_without_the_embedded_extra_the_message_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(embedded_redis.importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(EmbeddedError, match=r"tollkeeper\[embedded\]"):
        embedded_redis.find_redis()
    with pytest.raises(EmbeddedError, match=r"tollkeeper\[embedded\]"):
        postgres.binaries(18)
