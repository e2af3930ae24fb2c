"""The pool of connections, and asking a named query on it. The ledger's classes build on it."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from copy import copy
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypeVar

import asyncpg

from gateway.ledger.errors import translated
from gateway.ledger.queries import load_queries

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping

    from asyncpg import Record

R = TypeVar("R")

CONNECTIONS_MAX = 4
# Of the connections outside the pool, how many are kept for the next who needs one.
SPARE_CONNECTIONS_MAX = 2
COMMAND_TIMEOUT_S = 10.0
CONNECT_TIMEOUT_S = 5.0
RELISTEN_PAUSE_S = 1.0
# Statements are few and known: their plans are kept, and times are read and written in UTC.
SESSION_SETTINGS = {
    "application_name": "tollkeeper",
    "timezone": "UTC",
    "jit": "off",
    "default_transaction_isolation": "read committed",
    "idle_in_transaction_session_timeout": "60s",
}


log = logging.getLogger("tollkeeper.ledger")


class Scope(NamedTuple):
    """For whom transactions work, and who is behind them.

    `account_id` None: for all accounts of the platform. Row-level security binds the API by the
    first two (migrations/0007); the others are what the audit log says of a change: `actor` as in
    "token:7", the client's address, and the request's id.
    """

    platform_id: int
    account_id: int | None
    actor: str
    address: str = ""
    request_id: str = ""


class Session:
    """One place to ask queries: the pool, or one connection inside a transaction."""

    def __init__(
        self,
        runner: asyncpg.Pool[Record] | asyncpg.Connection[Record],
        queries: dict[str, str],
        timeout_s: float | None = None,
    ) -> None:
        """`timeout_s` of each query; None: that of the connection."""
        self._runner = runner
        self._queries = queries
        self._timeout_s = timeout_s

    async def all(self, query: str, *arguments: object) -> list[Record]:
        """Every row."""
        with translated():
            return await self._runner.fetch(
                self._queries[query], *arguments, timeout=self._timeout_s
            )

    async def one(self, query: str, *arguments: object) -> Record | None:
        """The first row, if there is one."""
        with translated():
            return await self._runner.fetchrow(
                self._queries[query], *arguments, timeout=self._timeout_s
            )

    async def value(self, query: str, *arguments: object) -> Any:
        """The first column of the first row, or None."""
        with translated():
            return await self._runner.fetchval(
                self._queries[query], *arguments, timeout=self._timeout_s
            )


class ScopedSession(Session):
    """A place to ask queries of which each is a transaction of its own, in the database's scope."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def all(self, query: str, *arguments: object) -> list[Record]:
        """Every row."""
        async with self._database.transaction() as session:
            return await session.all(query, *arguments)

    async def one(self, query: str, *arguments: object) -> Record | None:
        """The first row, if there is one."""
        async with self._database.transaction() as session:
            return await session.one(query, *arguments)

    async def value(self, query: str, *arguments: object) -> Any:
        """The first column of the first row, or None."""
        async with self._database.transaction() as session:
            return await session.value(query, *arguments)


class Database:
    """Connections to one Postgres. Opens without it: each query then says `LedgerUnavailable`."""

    _session: Session

    def __init__(
        self,
        url: str,
        *,
        connections_max: int = CONNECTIONS_MAX,
        command_timeout_s: float = COMMAND_TIMEOUT_S,
        settings: Mapping[str, str] = SESSION_SETTINGS,
    ) -> None:
        """Take the address; `settings` are those of each connection."""
        self._url = url
        self._settings = dict(settings)
        self._scope: Scope | None = None
        self._connections_max = connections_max
        self._command_timeout_s = command_timeout_s
        self._queries = load_queries()
        self._listeners: list[asyncio.Task[None]] = []
        self._spare: list[asyncpg.Connection[Record]] = []

    async def __aenter__(self) -> Self:
        with translated():
            self._pool = await asyncpg.create_pool(
                self._url,
                min_size=0,
                max_size=self._connections_max,
                timeout=CONNECT_TIMEOUT_S,
                command_timeout=self._command_timeout_s,
                max_cached_statement_lifetime=0,
                server_settings=self._settings,
            )
        self._session = Session(self._pool, self._queries)
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._listeners:
            task.cancel()
        await asyncio.gather(*self._listeners, return_exceptions=True)
        while self._spare:
            self._spare.pop().terminate()
        try:
            await asyncio.wait_for(self._pool.close(), CONNECT_TIMEOUT_S)
        except TimeoutError:
            self._pool.terminate()

    def scoped(self, scope: Scope) -> Self:
        """The same connections, for whose every transaction the scope is told to Postgres."""
        other = copy(self)
        other._scope, other._session = scope, ScopedSession(other)  # noqa: SLF001 - of this class
        return other

    @asynccontextmanager
    async def transaction(self, *, snapshot: bool = False) -> AsyncIterator[Session]:
        """Queries that take effect together; with `snapshot` they only read, as of one instant."""
        with translated():
            async with (
                self._pool.acquire() as connection,
                connection.transaction(
                    isolation="repeatable_read" if snapshot else "read_committed", readonly=snapshot
                ),
            ):
                session = Session(connection, self._queries)  # type: ignore[arg-type] # a proxy of one
                await self._enter_scope(session)
                yield session

    @asynccontextmanager
    async def transaction_apart(
        self, timeout_s: float = COMMAND_TIMEOUT_S
    ) -> AsyncIterator[Session]:
        """A transaction whose holder asks other things meanwhile, on a connection outside the pool.

        In the pool, as many holders as it has connections would wait for each other for ever. What
        its holder raises undoes it, and passes as it is.
        """
        with translated():
            connection = await self._apart()
        try:
            transaction = connection.transaction()
            with translated():
                await transaction.start()
            session = Session(connection, self._queries, timeout_s)
            await self._enter_scope(session)
            yield session
            with translated():
                await transaction.commit()
        except BaseException:
            connection.terminate()
            raise
        if len(self._spare) < SPARE_CONNECTIONS_MAX:
            self._spare.append(connection)
        else:
            connection.terminate()

    async def _enter_scope(self, session: Session) -> None:
        if self._scope is not None:
            platform_id, account_id, *behind = self._scope
            account = "" if account_id is None else str(account_id)
            await session.value("scope_enter", str(platform_id), account, *behind)

    async def _apart(self) -> asyncpg.Connection[Record]:
        while self._spare:
            connection = self._spare.pop()
            if not connection.is_closed():
                return connection
        return await asyncpg.connect(
            self._url, timeout=CONNECT_TIMEOUT_S, server_settings=self._settings
        )

    async def listen(self, channel: str, callback: Callable[[str], None]) -> None:
        """Call back with the payload of each notification from now on, until the ledger is closed.

        Also called, with "", whenever listening begins, first and after a lost connection: what
        was notified before is not known then.
        """
        self._keep_listening(channel, callback)

    def _keep_listening(
        self, channel: str, callback: Callable[[str], None], *first: object
    ) -> None:
        """As `listen`; `first` is a query, and its arguments, that each new connection is asked."""
        self._listeners.append(
            asyncio.create_task(self._listen_for_ever(channel, callback, *first))
        )

    async def _listen_for_ever(
        self, channel: str, callback: Callable[[str], None], *first: object
    ) -> None:
        while True:
            try:
                await self._listen_once(channel, callback, *first)
            except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                log.warning("not listening to %s: %s", channel, error)
            await asyncio.sleep(RELISTEN_PAUSE_S)

    async def _listen_once(
        self, channel: str, callback: Callable[[str], None], *first: object
    ) -> None:
        connection = await asyncpg.connect(
            self._url, timeout=CONNECT_TIMEOUT_S, server_settings=self._settings
        )
        ended = asyncio.Event()
        try:
            connection.add_termination_listener(lambda _: ended.set())
            await connection.add_listener(channel, lambda *event: callback(str(event[3])))
            if first:
                query, *arguments = first
                await connection.fetchval(
                    self._queries[str(query)], *arguments, timeout=CONNECT_TIMEOUT_S
                )
            callback("")
            await ended.wait()
        finally:
            connection.terminate()


def rows(kind: Callable[..., R], records: Iterable[Record]) -> list[R]:
    """Records as values; the query's columns and the value's fields have the same names."""
    return [kind(**record) for record in records]
