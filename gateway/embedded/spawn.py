"""Starts and stops the servers that belong to us: as an ordinary user, and never outliving us.

Three things differ from a plain subprocess:

- Postgres refuses to run as root. When we are root, a child runs as an unprivileged user, which
  keeps the one capability (CAP_DAC_OVERRIDE) that lets it reach binaries and data below folders
  such as /root that only root may enter. Widening those folders' modes instead would change the
  user's files.
- A child is sent its own stop signal by the kernel when we die, however we die (PR_SET_PDEATHSIG),
  so that a killed supervisor leaves no server behind and Postgres still stops cleanly.
- A child gets a session of its own: Ctrl-C in a terminal reaches us alone, and we stop the children
  in order.

The last two need Linux. Elsewhere, and in any case, the next start ends what an earlier run left
(`stop_leftover`).
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import pwd
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

STOP_DEADLINE_S = 20.0
KILL_DEADLINE_S = 5.0
LEFTOVER_DEADLINE_S = 15.0
POLL_INTERVAL_S = 0.01
LOG_TAIL_BYTES = 2_000
LOG_BYTES_MAX = 16_000_000  # at start; then the file before is kept once

_PR_SET_PDEATHSIG = 1
_PR_SET_KEEPCAPS = 8
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_RAISE = 2
_CAP_DAC_OVERRIDE = 1
_CAPABILITY_VERSION_3 = 0x20080522


class EmbeddedError(Exception):
    """An embedded server can't run; the message is one line for the person who started it."""


class User(NamedTuple):
    """Whom a child runs as."""

    uid: int
    gid: int


def unprivileged_user(home: Path) -> User | None:
    """Whom to run servers as: None (as ourselves) unless we are root.

    As root: whoever owns `home` from an earlier run, else `nobody`, so that data made by an
    ordinary user stays theirs.
    """
    if os.geteuid() != 0:
        return None
    if home.exists() and (owner := home.stat()).st_uid != 0:
        return User(owner.st_uid, owner.st_gid)
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError:
        raise EmbeddedError(
            "Postgres does not run as root and there is no user `nobody`: start as an ordinary user"
        ) from None
    return User(entry.pw_uid, entry.pw_gid)


class Child:
    """A running server of ours."""

    def __init__(
        self, name: str, process: asyncio.subprocess.Process, stop_signal: signal.Signals
    ) -> None:
        self._name = name
        self._process = process
        self._stop_signal = stop_signal

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.returncode is None

    async def wait(self) -> int:
        """Its exit status, once it has ended."""
        return await self._process.wait()

    async def stop(self) -> None:
        """Asks it to stop cleanly and waits; kills it only when it does not."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(self._stop_signal)
        try:
            await asyncio.wait_for(self._process.wait(), STOP_DEADLINE_S)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()


async def spawn(
    name: str,
    argv: Sequence[str | Path],
    *,
    log: Path,
    user: User | None,
    stop_signal: signal.Signals,
    own_environment: bool = True,
) -> Child:
    """Starts a server whose output goes to `log`, with a bare environment unless it needs ours.

    Raises: EmbeddedError when it can't be executed.
    """
    with _open_log(log) as output:
        try:
            process = await asyncio.create_subprocess_exec(
                *map(str, argv),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=_child_setup(user, stop_signal),
                env=_bare_environment() if own_environment else None,
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise EmbeddedError(f"{name} does not start: {error}") from error
    return Child(name, process, stop_signal)


async def run(
    name: str, argv: Sequence[str | Path], *, user: User | None, text: str | None = None
) -> None:
    """Runs a tool such as initdb to its end, with `text` on its standard input.

    Raises: EmbeddedError with its last line of output when it fails.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *map(str, argv),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_child_setup(user, signal.SIGTERM),
            env=_bare_environment(),
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise EmbeddedError(f"{name} does not start: {error}") from error
    try:
        output, _ = await process.communicate((text or "").encode())
    except asyncio.CancelledError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        raise
    if process.returncode:
        lines = output.decode(errors="replace").strip().splitlines() or ["no output"]
        raise EmbeddedError(f"{name} failed: {lines[-1]}")


def _bare_environment() -> dict[str, str]:
    """Nothing that would change a server's settings (PGOPTIONS) or its messages."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}


def _open_log(log: Path) -> BinaryIO:
    if log.exists() and log.stat().st_size > LOG_BYTES_MAX:
        log.replace(log.with_name(log.name + ".old"))
    return log.open("ab")


def log_tail(log: Path, lines_max: int = 1) -> str:
    """The last lines a server wrote, for the message about its failure."""
    with contextlib.suppress(OSError), log.open("rb") as stream:
        stream.seek(max(0, log.stat().st_size - LOG_TAIL_BYTES))
        lines = stream.read().decode(errors="replace").strip().splitlines()
        if lines:
            return " ".join(line.strip() for line in lines[-lines_max:])
    return "it wrote nothing"


async def stop_leftover(
    pid: int, marker: str, stop_signal: signal.Signals, deadline_s: float = LEFTOVER_DEADLINE_S
) -> None:
    """Ends a server that an earlier, killed run left behind, if process `pid` still is that server.

    `marker` must be in its command line (its data folder is): a recycled pid names somebody else's
    process. The caller holds the data folder's lock, so nobody uses that server any more.
    """
    deadline = asyncio.get_running_loop().time() + deadline_s
    for attempt in (stop_signal, signal.SIGKILL):
        if marker not in command_of(pid):
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, attempt)
        # A process that is no child of ours can only be asked whether it still is there.
        while marker in command_of(pid):
            if asyncio.get_running_loop().time() > deadline:
                break
            await asyncio.sleep(POLL_INTERVAL_S)
        deadline += KILL_DEADLINE_S


def command_of(pid: int) -> str:
    """The command line of a live process, "" when there is none."""
    proc = Path("/proc")
    if (proc / "self").exists():
        try:
            return (
                (proc / str(pid) / "cmdline")
                .read_bytes()
                .replace(b"\0", b" ")
                .decode("utf-8", "replace")
            )
        except OSError:
            return ""
    listing = subprocess.run(  # noqa: S603 - a fixed program and a number
        ["/bin/ps", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return listing.stdout


def _child_setup(user: User | None, death_signal: signal.Signals) -> Callable[[], None]:
    """What the child does between fork and exec.

    Everything it needs is prepared here, before the fork.
    """
    libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
    parent = os.getpid()
    mask = 1 << _CAP_DAC_OVERRIDE
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    # Two sets of {effective, permitted, inheritable}: capabilities 0 to 31, then 32 to 63.
    capabilities = (ctypes.c_uint32 * 6)(mask, mask, mask, 0, 0, 0)

    def set_up() -> None:
        if user is not None:
            if libc is not None:
                libc.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0)
            os.setgroups([])
            os.setgid(user.gid)
            os.setuid(user.uid)
            # Not granted in some containers: then the child reaches what its user may reach.
            if libc is not None and libc.capset(header, capabilities) == 0:
                libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, _CAP_DAC_OVERRIDE, 0, 0)
        if libc is not None:
            # After the change of user, which resets it.
            libc.prctl(_PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
            if os.getppid() != parent:
                os._exit(1)

    return set_up
