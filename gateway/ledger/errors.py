"""What can go wrong between the gateway and Postgres, in the gateway's own words."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import asyncpg

if TYPE_CHECKING:
    from collections.abc import Iterator

# SQLSTATE classes that say something about the values: asking again cannot help.
REJECTED_CLASSES = ("22", "23")
# Classes that say something about our SQL, or a schema that was not migrated: mistakes, to be seen.
MISTAKEN_CLASSES = ("0A", "42")


class LedgerUnavailable(Exception):  # noqa: N818 -- named for what is the case, as its callers say it
    """Postgres can't be asked now. What was sent may or may not have been committed."""


class LedgerRejected(Exception):  # noqa: N818 -- the same
    """Postgres refuses these values and always will."""


class MigrationError(Exception):
    """The database's schema and this version of the gateway do not fit together."""


@contextmanager
def translated() -> Iterator[None]:
    """Turn the driver's exceptions into the two above.

    Anything that is neither a verdict on the values nor a mistake in our SQL counts as unavailable:
    a deadlock, a full disk, a server that is read-only, starting or stopping all end some day.
    """
    try:
        yield
    except asyncpg.PostgresError as error:
        state = (error.sqlstate or "")[:2]
        if state in MISTAKEN_CLASSES:
            raise
        if state in REJECTED_CLASSES:
            raise LedgerRejected(str(error)) from error
        raise LedgerUnavailable(f"{type(error).__name__}: {error}") from error
    except (asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError) as error:
        raise LedgerUnavailable(f"{type(error).__name__}: {error}") from error
    except (ValueError, OverflowError) as error:  # no UTF-8, integers beyond 64 bits
        raise LedgerRejected(str(error)) from error
