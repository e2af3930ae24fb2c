"""Lists as one stream of CSV or NDJSON: page after page, so that memory stays constant.

Each page is a query of its own that goes on behind the last row: no transaction stays open, and
between pages others have their turn. The pace is bounded, so that exports leave the calls' way
alone. So is how long a client may take to read a piece, and no tenant has more than one export at a
time: few run at once, and nobody is to keep others from theirs.
"""

from __future__ import annotations

import asyncio
import csv
import io
import re
from typing import TYPE_CHECKING, Any, Final

import orjson

from gateway.control.api.problems import Problem, unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Hashable

    from gateway.control.api.fields import Model, Page, PageQuery

EXPORT_PAGE_ROWS: Final = 500
# Of one export. Postgres and this process then take a part of a core, not all of it.
EXPORT_ROWS_PER_S: Final = 2_000
EXPORTS_MAX: Final = 2  # at the same time, of one node
# Within this a client takes a piece of EXPORT_PAGE_ROWS rows, or its export ends.
EXPORT_STALL_S: Final = 30.0
NDJSON, CSV = "application/x-ndjson", "text/csv"
_NUMBER = re.compile(r"-?[0-9.]+")
# Spreadsheets take a text that begins so for a formula, and run it.
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def wanted_format(accept: str) -> str | None:
    """Which stream a request's Accept header asks for; None: a page of JSON."""
    kinds = [part.partition(";")[0].strip().lower() for part in accept.split(",")]
    return next((kind for kind in kinds if kind in {NDJSON, CSV}), None)


class Exports:
    """The exports of this node."""

    def __init__(self) -> None:
        self._running: set[Hashable] = set()

    async def lines(
        self,
        tenant: Hashable,
        kind: str,
        item: type[Model],
        page: Callable[[PageQuery], Awaitable[Page[Any]]],
        query: PageQuery,
    ) -> AsyncGenerator[bytes]:
        """The whole list in pieces, one for each page, some of them empty; `page` answers a page.

        Raises: Problem (503) when the tenant has one, or too many run, before the first piece.
        """
        if tenant in self._running:
            raise unavailable("You have an export that is running: wait for its end.", 10)
        if len(self._running) >= EXPORTS_MAX:
            raise unavailable(f"{EXPORTS_MAX} exports are running: try again later.", 10)
        self._running.add(tenant)
        try:
            write = _ndjson if kind == NDJSON else _csv(item)
            query = query.model_copy(update={"limit": EXPORT_PAGE_ROWS})
            clock = asyncio.get_running_loop().time
            if kind == CSV:
                yield write(())
            while True:
                began = clock()
                found = await page(query)
                yield write(tuple(found.data)) if found.data else b""
                if found.next_cursor is None:
                    return
                query = query.model_copy(update={"cursor": found.next_cursor})
                due = began + EXPORT_PAGE_ROWS / EXPORT_ROWS_PER_S
                await asyncio.sleep(max(due - clock(), 0))
        finally:
            self._running.discard(tenant)


def _ndjson(rows: tuple[Model, ...]) -> bytes:
    return b"".join(row.model_dump_json().encode() + b"\n" for row in rows)


def _csv(item: type[Model]) -> Callable[[tuple[Model, ...]], bytes]:
    """Writes rows; without any, the line of titles."""
    fields = item.model_fields.items()
    columns = [field.serialization_alias or name for name, field in fields]

    def write(rows: tuple[Model, ...]) -> bytes:
        buffer = io.StringIO(newline="")
        out = csv.writer(buffer)
        if not rows:
            out.writerow(columns)
        for row in rows:
            document = row.model_dump(mode="json")
            out.writerow([_cell(document[name]) for name in columns])
        return buffer.getvalue().encode()

    return write


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        return orjson.dumps(value).decode()
    harmful = value.startswith(_FORMULA_STARTS) and not _NUMBER.fullmatch(value)
    return f"'{value}" if harmful else value


def not_exported() -> Problem:
    """Somebody asks for a stream of what is no list."""
    return Problem(406, "not_acceptable", "This is answered as application/json only.")
