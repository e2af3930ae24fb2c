"""Starts what a load test needs and tells what really happened: the gateway, an agent, the books.

Everything lives on free ports and in a folder of its own, and is gone afterwards. Three witnesses
can be asked independently: the agent (what arrived), Postgres (what was charged), and
`tollkeeper audit` (whether the books hold together).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

HERE = Path(__file__).parent
ROOT = HERE.parent
AGENT = ROOT / "examples/agent/agent.py"
TOLLKEEPER = Path(sys.executable).with_name("tollkeeper")
COMMAND_TIMEOUT_S = 120
OPEN_FILES = 65_536
READY_TIMEOUT_S = 60
SETTLED_TIMEOUT_S = 30
STOP_TIMEOUT_S = 60


class RigError(Exception):
    """The load test could not be set up; the text says what to do."""


class Rig:
    """A gateway with an agent behind it, as a context manager.

    `routes` is TOML; `{agent}` in it stands for the agent's address. Raises: RigError.
    """

    def __init__(
        self,
        routes: str,
        *,
        workers: int = 1,
        credits: str = "1000000000",  # noqa: A002 - the product's word
        agent: str | None = None,
    ) -> None:
        self._routes, self._workers, self._credits = routes, workers, credits
        self._folder = Path(tempfile.mkdtemp(prefix="tollkeeper-load-"))
        self._processes: list[subprocess.Popen[bytes]] = []
        self._agent = agent
        self.ready: dict[str, Any] = {}

    def __enter__(self) -> Self:
        if not TOLLKEEPER.exists():
            raise RigError("tollkeeper is not installed beside this Python: run `make test` first")
        try:
            self._folder.chmod(0o755)  # the embedded Postgres may run as another user
            allow_open_files()
            if self._agent is None:
                port = free_ports(1)[0]
                self.start([sys.executable, str(AGENT), "--port", str(port)], "agent")
                self._agent = f"http://127.0.0.1:{port}"
                await_url(f"{self._agent}/agents/health")
            self._start_gateway()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self._processes):
            process.terminate()
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def start(self, command: Sequence[str], name: str) -> subprocess.Popen[bytes]:
        """Start a process that ends with the rig; its output goes to `<name>.log`."""
        with self._log(name).open("wb") as log:
            process = subprocess.Popen(
                command, cwd=self._folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self._processes.append(process)
        return process

    @property
    def gateway_pid(self) -> int:
        """The process that started everything else."""
        return self._gateway.pid

    @property
    def url(self) -> str:
        """The proxy's address, without a slash at the end."""
        return str(self.ready["proxy_url"]).rstrip("/")

    @property
    def key(self) -> str:
        """The demo account's API key."""
        return str(self.ready["api_key"])

    @property
    def account(self) -> str:
        """The demo account's name."""
        return str(self.ready["account"])

    def seen_by_agent(self) -> dict[str, dict[str, int]]:
        """The agent's own counts, by path."""
        return dict(get_json(f"{self._agent}/agents/seen"))

    def books(self, calls: int | None = None) -> dict[str, Any]:
        """What Postgres says, from `books.py`; waits until `calls` settlements are there."""
        deadline = time.monotonic() + SETTLED_TIMEOUT_S
        while True:
            found = self._run([sys.executable, str(HERE / "books.py"), self.ready["postgres_url"]])
            if calls is None or found["calls"] >= calls or time.monotonic() > deadline:
                return dict(found)
            time.sleep(0.2)

    def audit(self) -> list[str]:
        """What `tollkeeper audit` finds wrong; empty when the books are clean."""
        try:
            self.tollkeeper("audit")
        except RigError as problem:
            return [str(problem)]
        return []

    def tollkeeper(self, *arguments: str) -> Any:
        """Run one command of the product; its JSON. Raises: RigError when it fails."""
        return self._run(self._command(*arguments))

    def _command(self, *arguments: str) -> list[str]:
        data = str(self._folder / "data")
        own = ["--config", str(self._config), "--data-dir", data, "--json"]
        return [str(TOLLKEEPER), *arguments, *own]

    @property
    def _config(self) -> Path:
        return self._folder / "config.toml"

    def _log(self, name: str) -> Path:
        return self._folder / f"{name}.log"

    def _start_gateway(self) -> None:
        head = f"[gateway]\nworkers = {self._workers}\n\n"
        self._config.write_text(head + self._routes.replace("{agent}", str(self._agent)))
        port, control_port = free_ports(2)
        command = self._command("dev", "--credits", self._credits)
        command += ["--port", str(port), "--control-port", str(control_port)]
        process = self._gateway = self.start(command, "gateway")
        deadline = time.monotonic() + READY_TIMEOUT_S
        while process.poll() is None and time.monotonic() < deadline:
            for line in self._log("gateway").read_text().splitlines():
                with contextlib.suppress(ValueError):
                    if isinstance(told := json.loads(line), dict) and told.get("event") == "ready":
                        self.ready = told
                        return
            time.sleep(0.05)
        raise RigError(f"the gateway did not become ready:\n{self._log('gateway').read_text()}")

    def _run(self, command: list[str]) -> Any:
        done = subprocess.run(
            command,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
        )
        if done.returncode != 0:
            name = f"{Path(command[0]).name} {Path(command[1]).name}"
            raise RigError(f"{name} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return json.loads(done.stdout)


class Verdict:
    """Comparisons, printed as they are made; `exit_code` is 1 once one of them failed."""

    def __init__(self) -> None:
        self.exit_code = 0

    def equal(self, what: str, **witnesses: object) -> None:
        """All witnesses must say the same."""
        values = list(witnesses.values())
        said = ", ".join(f"{name} {value}" for name, value in witnesses.items())
        self.true(f"{what}: {said}", holds=all(value == values[0] for value in values))

    def true(self, what: str, *, holds: bool) -> None:
        """One fact that must hold."""
        print(f"{'ok ' if holds else 'BAD'}  {what}", flush=True)
        if not holds:
            self.exit_code = 1

    def conclude(self) -> int:
        """Print the verdict; the process's exit code."""
        print("verdict: " + ("everything agrees" if self.exit_code == 0 else "NOT as it must be"))
        return self.exit_code


def allow_open_files() -> None:
    """Raise the limit of open files as far as we may: a connection is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def pin(pid: int, cpu: int) -> None:
    """Keep a process and its threads on one core, where the machine has two and the system can."""
    if not hasattr(os, "sched_setaffinity") or (os.cpu_count() or 1) < 2:
        return
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(int(thread.name), {cpu})


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on now."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in sockets]


def get_json(url: str, headers: Mapping[str, str] | None = None) -> Any:
    """GET a JSON document."""
    request = urllib.request.Request(url, headers=dict(headers or {}))
    with urllib.request.urlopen(request, timeout=5) as answer:
        return json.load(answer)


def await_url(url: str) -> None:
    """Wait until something answers there. Raises: RigError."""
    for _ in _attempts():
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=1):
            return
    raise RigError(f"nothing answers at {url}")


def charged_in_comment(line: str) -> str | None:
    """The credits that a stream's last comment line tells, or None for any other line."""
    found = re.match(r": credits-charged=([\d.]+)", line)
    return found[1] if found else None


def _attempts() -> Iterator[None]:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < deadline:
        yield
        time.sleep(0.05)
