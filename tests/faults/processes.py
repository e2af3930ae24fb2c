"""The processes of a deployment, each of which can be killed, frozen and started again in place."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp

from gateway.embedded import postgres as postgres_server
from gateway.embedded import redis as redis_server
from gateway.embedded.spawn import unprivileged_user
from tests.support.dev import ROOT, START_DEADLINE_S, TOLLKEEPER
from tests.support.ports import free_port
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gateway.embedded.spawn import Child

STOP_DEADLINE_S = 60.0
ADMIN_TOKEN = "the operator of the fault tests"
PEPPER = "the pepper of the fault tests"


class RedisProcess:
    """A Redis on a port of its own, with the settings of the embedded one: AOF everysec."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._log = home.with_name(home.name + ".log")
        self._user = unprivileged_user(home)
        self._password = secrets.token_hex(8)
        self._binary = redis_server.find_redis()
        self._port = free_port()
        self._child: Child | None = None

    @property
    def url(self) -> str:
        return f"redis://:{self._password}@127.0.0.1:{self._port}/0"

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self._port

    def url_through(self, port: int) -> str:
        """The URL that leads to it through something that listens on `port`."""
        return f"redis://:{self._password}@127.0.0.1:{port}/0"

    async def start(self) -> None:
        redis_server._prepare(self.home, self._binary)
        self._child = await redis_server._start(
            *(self.home, self._binary, self._port),
            password=self._password,
            log=self._log,
            user=self._user,
        )

    async def kill(self) -> None:
        """SIGKILL: nothing of it gets another word in."""
        if self._child is not None:
            _signal(self._child.pid, signal.SIGKILL)
            await self._child.wait()
            self._child = None

    def log_files(self) -> list[Path]:
        """The files of the append-only log, the one that is written to last."""
        folder = self.home / "appendonlydir"
        if folder.exists():
            return sorted(folder.glob("*.aof"), key=lambda path: path.stat().st_mtime)
        return [self.home / "appendonly.aof"]

    def keep_copy(self) -> Path:
        """A copy of its data as it is in the files now."""
        copy = self.home.with_name(self.home.name + ".copy")
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(self.home, copy)
        return copy

    def put_back(self, copy: Path) -> None:
        """Replace its data, while it does not run."""
        self.empty()
        for path in copy.glob("append*"):
            into = self.home / path.name
            shutil.copytree(path, into) if path.is_dir() else shutil.copy(path, into)
        self._give_to_user()

    def empty(self) -> None:
        """Remove its data, while it does not run."""
        for path in self.home.glob("append*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _give_to_user(self) -> None:
        if self._user is not None:
            for path in (self.home, *self.home.rglob("*")):
                os.chown(path, self._user.uid, self._user.gid)


class PostgresProcess:
    """A durable Postgres on a port of its own."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._log = home.with_name(home.name + ".log")
        self._user = unprivileged_user(home)
        self._password = secrets.token_hex(8)
        self._port = free_port()
        self._child: Child | None = None

    @property
    def url(self) -> str:
        name = postgres_server.POSTGRES_USER
        return f"postgresql://{name}:{self._password}@127.0.0.1:{self._port}/{name}"

    async def start(self) -> None:
        if not (self._home / "PG_VERSION").exists():
            await postgres_server._make_cluster(
                self._home, password=self._password, user=self._user
            )
        self._child = await postgres_server._start(
            self._home, self._port, log=self._log, user=self._user, durable=True
        )

    async def stop(self) -> None:
        """An orderly stop, as an operator's."""
        if self._child is not None:
            await self._child.stop()
            self._child = None

    async def kill(self) -> None:
        """SIGKILL to all of its processes: as if the machine had lost power, but for the disk."""
        if self._child is None:
            return
        pids = [self._child.pid, *children_of(self._child.pid)]
        for pid in pids:
            _signal(pid, signal.SIGKILL)
        await self._child.wait()
        self._child = None
        # Shared memory is free only when the last of them is gone.
        await eventually(lambda: not any(Path(f"/proc/{pid}/stat").exists() for pid in pids[1:]))


class BackendProcess:
    """The recording agent, which is never killed: it is the witness."""

    def __init__(self, folder: Path) -> None:
        self.journal = folder / "backend.jsonl"
        self.port = free_port()
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        script = Path(__file__).with_name("backend.py")
        arguments = ["--port", str(self.port), "--journal", str(self.journal)]
        self._process = await asyncio.create_subprocess_exec(sys.executable, script, *arguments)
        await eventually(self._listens)

    async def kill(self) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()

    async def _listens(self) -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        writer.close()
        return True


class GatewayProcess:
    """`tollkeeper serve`: a supervisor and its workers."""

    def __init__(self, config: Path) -> None:
        self._config = config
        self._process: asyncio.subprocess.Process | None = None
        self._drain: asyncio.Task[bytes] | None = None
        self.proxy_url = ""
        self.control_url = ""
        self.log = config.with_name("gateway.log")

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        """Start it and wait until all workers accept calls."""
        command = [*TOLLKEEPER, "serve", "--json", "--config", str(self._config)]
        environment = {"TOLLKEEPER_PEPPER": PEPPER, "TOLLKEEPER_ADMIN_TOKEN": ADMIN_TOKEN}
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *command,
                cwd=ROOT,
                env={**os.environ, **environment},
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
            )
        assert self._process.stdout is not None
        async with asyncio.timeout(START_DEADLINE_S):
            while line := await self._process.stdout.readline():
                event = json.loads(line)
                if event["event"] == "ready":
                    self.proxy_url, self.control_url = event["proxy_url"], event["control_url"]
                    self._drain = asyncio.ensure_future(self._process.stdout.read())
                    return
        raise AssertionError(f"the gateway does not start, see {self.log}")

    async def stop(self) -> int:
        """SIGTERM, as an operator's; the exit code."""
        assert self._process is not None
        _signal(self._process.pid, signal.SIGTERM)
        async with asyncio.timeout(STOP_DEADLINE_S):
            status = await self._process.wait()
        await self._ended()
        return status

    async def kill(self) -> None:
        """SIGKILL to the supervisor and every worker."""
        if self._process is None:
            return
        for pid in (self._process.pid, *children_of(self._process.pid)):
            _signal(pid, signal.SIGKILL)
        await self._process.wait()
        await self._ended()

    async def workers(self) -> list[Mapping[str, Any]]:
        """Every worker's place, as the control plane tells: index, pid, ready, restarts."""
        headers = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
        async with (
            aiohttp.ClientSession() as session,
            session.get(self.control_url + "/v1/status", headers=headers) as answer,
        ):
            return list((await answer.json())["workers"])

    async def worker_pids(self) -> list[int]:
        """The workers that accept calls."""
        return [worker["pid"] for worker in await self.workers() if worker["ready"]]

    async def all_ready(self, but: Sequence[int] = ()) -> list[int]:
        """Wait until every place has a worker that is none of `but`; their pids."""

        async def ready() -> list[int] | None:
            pids = [worker["pid"] for worker in await self.workers() if worker["ready"]]
            complete = len(pids) == len(await self.workers())
            return pids if complete and not set(but) & set(pids) else None

        pids = await eventually(ready, unless=(aiohttp.ClientError,), deadline_s=START_DEADLINE_S)
        assert pids is not None
        return pids

    async def _ended(self) -> None:
        if self._drain is not None:
            await self._drain
            self._drain = None
        self._process = None


def children_of(pid: int) -> list[int]:
    """The processes that this one started and that still run, theirs not included."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            found += map(int, (thread / "children").read_text().split())
    return found


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


send_signal = _signal
