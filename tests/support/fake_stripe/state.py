"""All that the fake knows, kept in a file, so that it goes on after a restart where it was."""

from __future__ import annotations

import asyncio
import json
import os
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from . import event_resources
from .clock import MINUTE_S
from .server import Remembered

if TYPE_CHECKING:
    from pathlib import Path

    from .face import FakeStripe
    from .store import Object, Store

VERSION = 1


class StateFile:
    """Saves a fake after each change, so that what a client was answered is in the file."""

    def __init__(self, fake: FakeStripe, path: Path) -> None:
        self.fake = fake
        self.path = path
        self._saved: Any = None
        self._saving = asyncio.Lock()

    def load(self) -> None:
        """Takes up what was saved, if anything, before the fake serves.

        Raises: ValueError, when the file is not of this version of the fake.
        """
        if not self.path.exists():
            return
        restore(self.fake, json.loads(self.path.read_text(encoding="utf-8")))

    async def save(self) -> None:
        """Writes all of it in one step: a reader sees the old file or the new one."""
        async with self._saving:
            taken = snapshot(self.fake)
            matter = json.dumps(_matter(taken))
            if matter == self._saved:
                return
            await asyncio.to_thread(self._write, json.dumps(taken, separators=(",", ":")))
            self._saved = matter

    def _write(self, text: str) -> None:
        beside = self.path.with_name(f"{self.path.name}.new")
        with beside.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(self.path)


def _matter(taken: dict[str, Any]) -> dict[str, Any]:
    """What is worth a save: neither a clock that only runs, nor ids of calls that only read."""
    ahead_s = taken["now_s"] - int(time.time())
    return {**taken, "ids": None, "now_s": ahead_s // MINUTE_S}


def snapshot(fake: FakeStripe) -> dict[str, Any]:
    """All of it as JSON. Events that the API shows no more are left out."""
    return {
        "version": VERSION,
        "agenda": fake.agenda.dump(),
        "deliveries": fake.deliveries.dump(),
        "ids": {"made": fake.ids.made, "seed": fake.ids.seed},
        "now_s": fake.clock.now_s,
        "remembered": {
            key: asdict(one) | {"running": False}
            for key, one in fake.api.remembered.items()
            if one.status is not None
        },
        "stores": {_mode(live): _tables(store) for live, store in fake.stores.items()},
    }


def _mode(livemode: object) -> str:
    return "live" if livemode else "test"


def _tables(store: Store) -> dict[str, list[Object]]:
    tables = {kind: list(table.values()) for kind, table in store.tables.items()}
    return tables | {"event": event_resources.kept(store)}


def restore(fake: FakeStripe, saved: dict[str, Any]) -> None:
    """Puts it in the place of all that a fake knows. Its clock only ever goes on.

    Raises: ValueError, when it is of another version.
    """
    if saved.get("version") != VERSION:
        raise ValueError(f"state of version {saved.get('version')}: this fake reads {VERSION}")
    for livemode, store in fake.stores.items():
        store.tables = {
            kind: {each["id"]: each for each in rows}
            for kind, rows in saved["stores"][_mode(livemode)].items()
        }
    fake.clock.move_to(saved["now_s"])
    fake.ids.seed, fake.ids.made = saved["ids"]["seed"], saved["ids"]["made"]
    fake.agenda.load(saved["agenda"])
    fake.deliveries.load(saved["deliveries"], fake.stores.values())
    fake.api.remembered = {key: Remembered(**row) for key, row in saved["remembered"].items()}
