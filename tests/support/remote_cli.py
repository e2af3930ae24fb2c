"""The command line of somebody on another machine: a home of its own, and no config."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import stat
import sys
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from typer.testing import CliRunner
from yarl import URL

from gateway.cli.app import app
from tests.support.ports import free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.api import Api

PROGRAM = "import sys; sys.argv[0] = 'tollkeeper'; from gateway.cli import main; main()"
LINE_S_MAX = 20.0


class Answer(NamedTuple):
    """What a command answered."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


class Remote:
    """Runs commands in this process, away from the loop that the test runs in."""

    def __init__(self, api: Api, home: Path) -> None:
        self.api = api
        self.home = home

    @property
    def file(self) -> Path:
        """Where the login is kept."""
        return self.home / "config" / "tollkeeper" / "login.json"

    @property
    def login(self) -> dict[str, Any]:
        return dict(json.loads(self.file.read_text()))

    @property
    def mode(self) -> int:
        return stat.S_IMODE(self.file.stat().st_mode)

    def change_login(self, **changes: object) -> None:
        """As if time had passed, or somebody else had written it."""
        self.file.write_text(json.dumps(self.login | changes))

    def environment(self, token: str = "") -> dict[str, str]:
        return {
            "HOME": str(self.home),
            "XDG_CONFIG_HOME": str(self.home / "config"),
            "TOLLKEEPER_TOKEN": token,
        }

    async def __call__(self, *words: str, token: str = "", stdin: str = "") -> Answer:
        result = await asyncio.to_thread(
            CliRunner().invoke, app, words, env=self.environment(token), input=stdin
        )
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Answer(result.exit_code, result.stdout, result.stderr)

    async def json(self, *words: str, token: str = "", stdin: str = "") -> Any:
        """The document of a command that must succeed."""
        answer = await self(*words, "--json", token=token, stdin=stdin)
        assert answer.code == 0, answer.err
        return answer.document

    async def log_in(self, credential: str, *words: str) -> Any:
        """Who one is after that."""
        return await self.json("login", self.api.url, *words, stdin=credential + "\n")

    @asynccontextmanager
    async def started(self, *words: str) -> AsyncIterator[Process]:
        """A command as a process of its own; killed at the end, if it still runs."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            PROGRAM,
            *words,
            env=os.environ | self.environment(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            yield Process(process)
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()

    @asynccontextmanager
    async def on_terminal(self, *words: str) -> AsyncIterator[Terminal]:
        """The same as people start it."""
        ours, its = pty.openpty()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", PROGRAM, *words),
            env=os.environ | self.environment() | {"TERM": "xterm", "COLUMNS": "100"},
            stdin=its,
            stdout=its,
            stderr=its,
        )
        os.close(its)
        try:
            yield Terminal(process, ours)
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
            os.close(ours)


class Terminal:
    """A command that somebody looks at."""

    def __init__(self, process: asyncio.subprocess.Process, descriptor: int) -> None:
        self._process = process
        self._descriptor = descriptor

    async def read(self) -> str:
        """What is drawn next; empty at the end."""
        reading = asyncio.to_thread(self._read)
        return await asyncio.wait_for(reading, LINE_S_MAX)

    def type(self, text: str) -> None:
        """On its keyboard."""
        os.write(self._descriptor, text.encode())

    async def code(self) -> int:
        return await asyncio.wait_for(self._process.wait(), LINE_S_MAX)

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def _read(self) -> str:
        with suppress(OSError):  # how a terminal says that nobody is there any more
            return os.read(self._descriptor, 65_536).decode()
        return ""


class Process:
    """A command that runs."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def line(self) -> str:
        """The next line of its output."""
        return await self._read(self._process.stdout)

    async def error(self) -> str:
        """The next line of what it says on stderr."""
        return await self._read(self._process.stderr)

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def stop_reading(self) -> None:
        """As `| head` does when it has enough."""
        transport = self._process._transport.get_pipe_transport(1)  # type: ignore[attr-defined]
        transport.close()

    async def ended(self) -> Answer:
        """What it answered from here on, when it has come to its end."""
        out, err = await asyncio.wait_for(self._process.communicate(), LINE_S_MAX)
        assert self._process.returncode is not None
        return Answer(self._process.returncode, out.decode(), err.decode())

    async def _read(self, stream: asyncio.StreamReader | None) -> str:
        assert stream is not None
        return (await asyncio.wait_for(stream.readline(), LINE_S_MAX)).decode().rstrip("\n")


class Wire:
    """A way to the control plane that can be cut and mended, at one address."""

    def __init__(self, api: Api) -> None:
        self._port = URL(api.url).port
        self._server: asyncio.Server | None = None
        self._ends: set[asyncio.StreamWriter] = set()
        self._own_port = free_port()
        self.url = f"http://127.0.0.1:{self._own_port}"

    async def mend(self) -> None:
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", self._own_port)

    async def cut(self) -> None:
        """New connections are refused, those that there are break."""
        if self._server is not None:
            self._server.close()
        for end in self._ends:
            end.transport.abort()

    async def _carry(self, near: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        far, on = await asyncio.open_connection("127.0.0.1", self._port)
        self._ends |= {back, on}
        await asyncio.gather(_pour(near, on), _pour(far, back))


async def _pour(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await source.read(65_536):
            sink.write(data)
            await sink.drain()
    sink.close()


@asynccontextmanager
async def wired(api: Api) -> AsyncIterator[Wire]:
    """A wire that carries."""
    wire = Wire(api)
    await wire.mend()
    try:
        yield wire
    finally:
        await wire.cut()
