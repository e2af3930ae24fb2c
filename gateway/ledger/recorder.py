"""Settlements into Postgres, exactly once: a batch, a statement (settlement_record.sql), a commit.

Runs on a connection of its own: a page of look-ups can't make settlements wait, and its planner
settings are not for other queries. Every failure leaves the batch as it was, so the caller sends it
again; what was committed after all is then found there and not counted twice.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import asyncpg

from gateway.ledger.database import CONNECT_TIMEOUT_S, SESSION_SETTINGS
from gateway.ledger.errors import LedgerRejected, LedgerUnavailable, translated
from policies.settlement import Posting, Settlement

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from asyncpg import Record

R = TypeVar("R", bound=tuple[object, ...])

RECORD_TIMEOUT_S = 30.0
# One plan for all batches, small or large: grants are found by their index, never by reading the
# whole table. The server gives up shortly before we do, so that a cut connection's statement does
# not hold its locks for long.
RECORDER_SETTINGS = {
    **SESSION_SETTINGS,
    "application_name": "tollkeeper recorder",
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "statement_timeout": "25s",
}
NO_POSTING = Posting(0, 0)

log = logging.getLogger("tollkeeper.ledger")


class Recorded(NamedTuple):
    """What became of a batch: how many rows are new, what is in Postgres now, what it refuses."""

    inserted: int
    durable: Sequence[Settlement]
    refused: Sequence[Settlement]


class Recorder:
    """The connection that settlements go through, one batch at a time; made when first needed."""

    def __init__(self, url: str, statement: str) -> None:
        self._url = url
        self._statement = statement
        self._connection: asyncpg.Connection[Record] | None = None
        self._one_at_a_time = asyncio.Lock()

    async def record(self, settlements: Sequence[Settlement]) -> Recorded:
        """Write a batch. A row that Postgres refuses is found by halving and left out.

        Of several settlements of one call the first counts, also if an earlier batch brought it.

        Raises: LedgerUnavailable; part of the batch may be written. Send all of it again.
        """
        rows = list(settlements)
        if len({row[0] for row in rows}) != len(rows):
            rows = list({row[0]: row for row in reversed(rows)}.values())
        async with self._one_at_a_time:
            inserted, refused = await in_halves(rows, self._send, "call")
        if not refused:
            return Recorded(inserted, settlements, ())
        refused_ids = {row.call_id for row in refused}
        durable = [row for row in settlements if row.call_id not in refused_ids]
        return Recorded(inserted, durable, refused)

    async def close(self) -> None:
        """Drop the connection. The next batch makes a new one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()

    async def _send(self, rows: Sequence[Settlement]) -> int:
        columns = encode(rows)
        try:
            with translated():
                connection = self._connection
                if connection is None or connection.is_closed():
                    connection = self._connection = await self._connect()
                answer = await connection.fetchrow(
                    self._statement, *columns, timeout=RECORD_TIMEOUT_S
                )
        except LedgerRejected:
            raise
        except BaseException:
            # Also when cancelled: a connection in an unknown state is not used again.
            await self.close()
            raise
        if answer is None:
            raise LedgerUnavailable("the statement answered nothing")
        if answer["grants_missing"]:
            log.error("%d grants that calls drew on do not exist", answer["grants_missing"])
        return int(answer["inserted"])

    async def _connect(self) -> asyncpg.Connection[Record]:
        return await asyncpg.connect(
            self._url,
            timeout=CONNECT_TIMEOUT_S,
            max_cached_statement_lifetime=0,
            max_cacheable_statement_size=0,
            server_settings=RECORDER_SETTINGS,
        )


async def in_halves(
    rows: Sequence[R], send: Callable[[Sequence[R]], Awaitable[int]], noun: str
) -> tuple[int, list[R]]:
    """Send rows; find those that Postgres refuses by halving, log them and leave them out.

    `send` answers how many were new; a row's first field is its id. Answers the sum, and the
    refused.
    """
    if not rows:
        return 0, []
    try:
        return await send(rows), []
    except LedgerRejected as error:
        if len(rows) == 1:
            log.error(  # noqa: TRY400 -- the text says it all
                "%s %s can't be recorded, Postgres refuses it: %s", noun, rows[0][0], error
            )
            return 0, [rows[0]]
    half = len(rows) // 2
    first = await in_halves(rows[:half], send, noun)
    second = await in_halves(rows[half:], send, noun)
    return first[0] + second[0], first[1] + second[1]


def encode(rows: Sequence[Settlement]) -> tuple[str, ...]:
    """The columns of `settlement_record.sql` as array literals. Hot: no loop runs per value.

    Raises: LedgerRejected when a row is no settlement.
    """
    try:
        columns = list(zip(*rows, strict=True))
        pairs = [postings[0] if postings else NO_POSTING for postings in columns[-1]]
        if max(map(len, columns[-1])) > 1:
            extra = [(row, posting) for row in rows for posting in row.postings[1:]]
            columns = list(zip(*rows, *(row for row, _ in extra), strict=True))
            pairs += [posting for _, posting in extra]
        call_ids, _, _, *numbers, ending, status, units, flags, session = columns[:-4]
        return (
            _texts(call_ids),
            *map(_integers, numbers),
            _texts(ending),
            _integers(status),
            _texts(units),
            _texts(flags),
            _texts(session),
            *map(_integers, (*columns[-4:-1], *zip(*pairs, strict=True))),
        )
    except (TypeError, ValueError) as error:
        raise LedgerRejected(f"not a settlement: {error}") from error


def _integers(column: Iterable[int]) -> str:
    return "{" + ",".join(map(str, column)) + "}"


def _texts(column: Sequence[str]) -> str:
    body = '","'.join(column)
    if "\\" in body or body.count('"') != 2 * (len(column) - 1):
        escaped = [text.replace("\\", "\\\\").replace('"', '\\"') for text in column]
        body = '","'.join(escaped)
    return '{"' + body + '"}'
