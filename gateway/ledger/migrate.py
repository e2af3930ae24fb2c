"""Forward-only migrations: files 0001_….sql, each applied once, in order, in a transaction."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

import asyncpg

from gateway.ledger.database import CONNECT_TIMEOUT_S, SESSION_SETTINGS
from gateway.ledger.errors import MigrationError, translated
from gateway.ledger.queries import load_queries

if TYPE_CHECKING:
    from asyncpg import Record

# Any number will do as long as nobody else uses it: "toll" in ASCII.
LOCK_ID = 0x746F6C6C
PARTITION_MONTHS_AHEAD = 3


async def migrate(url: str) -> list[str]:
    """Bring the database to this version's schema; answers the names of the files applied now.

    Safe to run from many nodes at once: they wait for one another.

    Raises: MigrationError when the database is ahead of this version, or its owner may not do
    what there is to do; LedgerUnavailable without Postgres.
    """
    with translated():
        connection = await asyncpg.connect(
            url, timeout=CONNECT_TIMEOUT_S, server_settings=SESSION_SETTINGS
        )
        try:
            await connection.execute("SELECT pg_advisory_lock($1)", LOCK_ID)
            return await _apply(connection, load_queries())
        except asyncpg.InsufficientPrivilegeError as error:
            raise MigrationError(f"the database can't be migrated: {error}") from error
        finally:
            await connection.close()


def migrations() -> dict[int, tuple[str, str]]:
    """Version → name and text of each migration file."""
    found = {}
    for entry in files(__package__).joinpath("migrations").iterdir():
        if entry.name.endswith(".sql"):
            name = entry.name.removesuffix(".sql")
            found[int(name.partition("_")[0])] = (name, entry.read_text(encoding="utf-8"))
    return dict(sorted(found.items()))


async def _apply(connection: asyncpg.Connection[Record], queries: dict[str, str]) -> list[str]:
    await connection.execute(queries["migration_prepare"])
    known = migrations()
    done = {
        row["version"]: row["name"] for row in await connection.fetch(queries["migration_list"])
    }
    if unknown := [name for version, name in done.items() if version not in known]:
        raise MigrationError(
            f"the database was migrated by a newer version of Tollkeeper ({', '.join(unknown)}): "
            "use that version or a newer one"
        )
    applied = []
    for version, (name, text) in known.items():
        if version in done:
            continue
        async with connection.transaction():
            await connection.execute(text)
            await connection.execute(queries["migration_insert"], version, name)
        applied.append(name)
    await connection.fetch(queries["partition_ensure"], PARTITION_MONTHS_AHEAD)
    return applied
