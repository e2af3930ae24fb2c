"""Folders in memory, for what thousands of tests make and remove.

A database of a test's own is some hundred files, made before it and removed after it. A disk's file
system spends more on them than most tests need: ext4 looks at every file removed in the last
seconds before it makes one, which took half of the whole run.

A run that is killed can't remove its folder: the next one does. Whoever uses one has it locked.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

MEMORY = Path("/dev/shm")
PREFIX = "tollkeeper-tests-"
FREE_BYTES_MIN = 2 * 2**30  # 150 MB each is usual; containers often have 64 MB in all
UNLOCKED_S_MAX = 60.0  # between making a folder and locking it


@contextlib.contextmanager
def memory_folder(otherwise: Path) -> Iterator[Path]:
    """An empty folder in memory, removed at the end; `otherwise` where there is not enough."""
    if not _has_room():
        yield otherwise
        return
    _remove_leftovers()
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=MEMORY))
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _has_room() -> bool:
    try:
        return os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free >= FREE_BYTES_MIN
    except OSError:
        return False


def _remove_leftovers() -> None:
    """What killed runs of ours have left."""
    for folder in MEMORY.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            if folder.stat().st_uid == os.geteuid() and _is_left(folder):
                shutil.rmtree(folder, ignore_errors=True)


def _is_left(folder: Path) -> bool:
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(lock)
    return time.time() - folder.stat().st_mtime > UNLOCKED_S_MAX
