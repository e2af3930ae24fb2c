"""The data folder of `tollkeeper dev`: its lock, its secrets, and who is running on it.

lock           held while a process works on the folder
secrets.json   pepper, master key, passwords, tokens and the demo key; for its owner's eyes only
running.json   where the servers of the running process are, for commands typed meanwhile
postgres/ redis/ logs/
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from gateway.embedded.spawn import EmbeddedError
from gateway.identity.master_key import new_master_key

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SECRET_BYTES = 24
PEPPER_BYTES = 32


@dataclass(frozen=True, slots=True)
class Secrets:
    """What the folder must remember and nobody else may read.

    `api_key` is "" until the demo account has one. Folders of earlier versions have no `master_key`
    until the next start.
    """

    pepper: str
    postgres_password: str
    redis_password: str
    admin_token: str
    api_key: str = ""
    master_key: str = ""


@dataclass(frozen=True, slots=True)
class Running:
    """Where the servers of the process that holds the folder can be reached.

    `fake_stripe_url` is the fake Stripe of `platform`, "" where there is none.
    """

    pid: int
    redis_url: str
    postgres_url: str
    proxy_url: str = ""
    control_url: str = ""
    worker_pids: tuple[int, ...] = ()
    platform: str = ""
    fake_stripe_url: str = ""


class DataDir:
    """An existing, locked data folder. Made by `open_data_dir`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.postgres = path / "postgres"
        self.redis = path / "redis"
        self.logs = path / "logs"

    def secrets(self) -> Secrets:
        """The folder's secrets, made on first use."""
        try:
            kept = read_secrets(self.path)
        except FileNotFoundError:
            kept = Secrets(
                pepper=secrets.token_hex(PEPPER_BYTES),
                postgres_password=secrets.token_hex(SECRET_BYTES),
                redis_password=secrets.token_hex(SECRET_BYTES),
                admin_token="tka_" + secrets.token_urlsafe(SECRET_BYTES),
            )
        if kept.master_key:
            return kept
        return self.remember(replace(kept, master_key=new_master_key()))

    def remember(self, values: Secrets) -> Secrets:
        """Keeps these secrets instead."""
        _write_private(self.path / "secrets.json", asdict(values))
        return values

    def remember_api_key(self, api_key: str) -> None:
        """Keeps the demo key, to show it again on later starts."""
        self.remember(replace(self.secrets(), api_key=api_key))

    def left_running(self) -> Running | None:
        """What a run before us announced and, being killed, did not take back."""
        try:
            return _read_running(self.path)
        except (OSError, ValueError, TypeError):
            return None

    def announce(self, running: Running) -> None:
        """Tells commands typed meanwhile where our servers are."""
        _write_private(self.path / "running.json", asdict(running))

    @contextlib.contextmanager
    def announced(self, running: Running) -> Iterator[None]:
        """Announces as long as the context lasts."""
        self.announce(running)
        try:
            yield
        finally:
            (self.path / "running.json").unlink(missing_ok=True)


@contextlib.contextmanager
def open_data_dir(path: Path) -> Iterator[DataDir]:
    """The data folder, made if absent, for us alone as long as the context lasts.

    The lock is the kernel's: it goes with the process that holds it, however that ends.

    Raises: EmbeddedError when it is in use, or not ours to write.
    """
    path = path.absolute()
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        (path / "logs").mkdir(mode=0o700, exist_ok=True)
        handle = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except PermissionError as error:
        raise EmbeddedError(
            f"{error.filename or path} belongs to another user: "
            "start as that user, or give another --data-dir"
        ) from None
    except OSError as error:
        raise EmbeddedError(f"data folder {path} can't be used: {error.strerror}") from None
    try:
        _lock(handle, path)
        yield DataDir(path)
    finally:
        os.close(handle)


def _lock(handle: int, path: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(handle, 20).decode().strip() or "unknown"
        raise EmbeddedError(
            f"data folder {path} is in use by process {holder}: stop it, or give another --data-dir"
        ) from None
    os.ftruncate(handle, 0)
    os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)


def read_secrets(path: Path) -> Secrets:
    """The secrets of a data folder. Raises: FileNotFoundError before its first start."""
    return Secrets(**_known(Secrets, json.loads((path / "secrets.json").read_text())))


def read_running(path: Path) -> Running | None:
    """Who runs on this data folder now.

    None when nobody does (the file of a killed process is not believed).
    """
    try:
        running = _read_running(path)
        handle = os.open(path / "lock", os.O_RDWR | os.O_CLOEXEC)
    except (OSError, ValueError, TypeError):
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return running
    else:
        return None
    finally:
        os.close(handle)


def _read_running(path: Path) -> Running:
    values = _known(Running, json.loads((path / "running.json").read_text()))
    return Running(**{**values, "worker_pids": tuple(values.get("worker_pids", ()))})


def _known(kind: type, values: dict[str, Any]) -> dict[str, Any]:
    """Leaves out what a newer version may have written."""
    names = {field.name for field in fields(kind)}
    return {name: value for name, value in values.items() if name in names}


def _write_private(path: Path, values: dict[str, Any]) -> None:
    """Replaces the file at once, so that a reader or a crash never sees half of it."""
    draft = path.with_name(path.name + ".new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
        json.dump(values, stream, indent=1)
        stream.flush()
        os.fsync(stream.fileno())
    draft.replace(path)
