"""What stands in for asyncpg's connections, transactions and pools, as far as the ledger uses them.

A statement waits until the simulation executes it (postgres_side.py).
"""

# ruff: noqa: ASYNC109 -- the time limits are parameters of asyncpg's methods

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import asyncpg

from gateway.ledger.queries import load_queries

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tests.simulation.postgres_side import PostgresSide
    from tests.simulation.virtual_loop import Process

QUERY_NAMES = {text: name for name, text in load_queries().items()}


class Statement:
    """Something to be executed: on which connection, and who waits for it."""

    def __init__(
        self, connection: Connection, verb: str, text: str, arguments: tuple[Any, ...]
    ) -> None:
        self.connection = connection
        self.verb = verb  # fetch, fetchrow, fetchval, execute
        self.text = text
        self.arguments = arguments
        self.process = connection.process
        self.answer: asyncio.Future[Any] | None = None
        self.running: asyncio.Task[Any] | None = None  # while it waits for a lock
        self.cut_after = False  # the connection is cut before the answer arrives
        self.blocked_us = 0  # since when it waits for a lock
        # How long it may, where the statement itself says so.
        name = QUERY_NAMES.get(text)
        self.waits_ms = int(arguments[-1].removesuffix("ms")) if name == "shard_lock" else None

    def fail(self, error: Exception) -> None:
        """Tell who waits."""
        if self.answer is not None and not self.answer.done() and self.process.alive:
            self.answer.set_exception(error)

    @property
    def name(self) -> str:
        """The file it is from, and what it is asked with."""
        name = QUERY_NAMES.get(self.text, self.text[:60])
        return f"{name} {self.arguments}"[:260] if self.arguments else name


class Connection:
    """As asyncpg.Connection, as far as the ledger uses it."""

    def __init__(
        self,
        side: PostgresSide,
        process: Process,
        settings: tuple[tuple[str, str], ...],
        command_timeout: float | None,
    ) -> None:
        self._side = side
        self._command_timeout = command_timeout
        self.process = process
        self.settings = settings
        self.real: asyncpg.Connection[Any] | None = None
        self.closed = False
        self.in_transaction = False
        self.spoke_us = 0  # when a statement of it last ended
        self.idle_us_max = 0
        self.listeners: dict[str, list[Callable[..., object]]] = {}
        self._terminated: list[Callable[..., object]] = []

    async def fetch(self, text: str, *arguments: Any, timeout: float | None = None) -> Any:
        return await self._ask("fetch", text, arguments, timeout)

    async def fetchrow(self, text: str, *arguments: Any, timeout: float | None = None) -> Any:
        return await self._ask("fetchrow", text, arguments, timeout)

    async def fetchval(self, text: str, *arguments: Any, timeout: float | None = None) -> Any:
        return await self._ask("fetchval", text, arguments, timeout)

    async def execute(self, text: str, *arguments: Any, timeout: float | None = None) -> Any:
        return await self._ask("execute", text, arguments, timeout)

    async def _ask(
        self, verb: str, text: str, arguments: tuple[Any, ...], timeout: float | None
    ) -> Any:
        if self.closed:
            raise asyncpg.InterfaceError("connection is closed")
        side = self._side
        statement = Statement(self, verb, text, arguments)
        statement.answer = asyncio.get_running_loop().create_future()
        side.waiting.append(statement)
        try:
            async with asyncio.timeout(timeout or self._command_timeout):
                return await statement.answer
        except (TimeoutError, asyncio.CancelledError):
            if statement in side.waiting:
                side.waiting.remove(statement)  # the cancel request was faster
            elif statement in side.blocked:
                side.give_back(self)
                self.closed = True
            raise

    def transaction(
        self, *, isolation: str | None = None, readonly: bool = False, deferrable: bool = False
    ) -> Transaction:
        """BEGIN and COMMIT are steps of their own; so is ROLLBACK after a failure."""
        words = ["BEGIN"]
        if isolation:
            words.append("ISOLATION LEVEL " + isolation.replace("_", " ").upper())
        words += ["READ ONLY"] * readonly + ["DEFERRABLE"] * deferrable
        return Transaction(self, " ".join(words))

    def note(self, text: str) -> None:
        """What was executed decides whether a transaction is open."""
        self.spoke_us = self._side._loop.now_us
        word = text.split(None, 1)[0] if text.strip() else ""
        if word == "BEGIN":
            self.in_transaction = True
        elif word in {"COMMIT", "ROLLBACK"}:
            self.in_transaction = False

    @property
    def busy(self) -> bool:
        """Whether a statement of it waits for a lock."""
        return any(one.connection is self for one in self._side.blocked)

    async def add_listener(self, channel: str, callback: Callable[..., object]) -> None:
        self._side.listen(channel)
        self.listeners.setdefault(channel, []).append(callback)

    async def remove_listener(self, channel: str, callback: Callable[..., object]) -> None:
        self.listeners[channel].remove(callback)

    def add_termination_listener(self, callback: Callable[..., object]) -> None:
        self._terminated.append(callback)

    def is_closed(self) -> bool:
        return self.closed

    def is_in_transaction(self) -> bool:
        return self.in_transaction

    def terminate(self) -> None:
        self.closed = True
        self.hang_up()

    async def close(self, *, timeout: float | None = None) -> None:
        self.terminate()

    def lose(self) -> None:
        """The connection is cut: whoever waits is told, what was open is rolled back."""
        side = self._side
        self.closed = True
        mine = [one for one in side.waiting + side.blocked if one.connection is self]
        for statement in mine:
            if statement in side.waiting:
                side.waiting.remove(statement)
            if statement.answer is not None and not statement.answer.done():
                statement.answer.set_exception(
                    asyncpg.ConnectionDoesNotExistError(
                        "the connection was closed in mid-operation"
                    )
                )
        self.hang_up()

    def hang_up(self) -> None:
        """Let the real session end."""
        side = self._side
        side.give_back(self)
        self.in_transaction = False
        if self in side.connections:
            side.connections.remove(self)
            for callback in self._terminated:
                if self.process.alive:
                    side._loop.call_in(self.process, callback, self)


class Transaction:
    """As asyncpg.transaction.Transaction."""

    def __init__(self, connection: Connection, begin: str) -> None:
        self._connection = connection
        self._begin = begin

    async def start(self) -> None:
        await self._connection.execute(self._begin)

    async def commit(self) -> None:
        await self._connection.execute("COMMIT")

    async def rollback(self) -> None:
        if not self._connection.closed:
            await self._connection.execute("ROLLBACK")

    async def __aenter__(self) -> None:
        await self.start()

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        await (self.commit() if kind is None else self.rollback())


class Pool:
    """As asyncpg.Pool: at most `max_size` connections, each made when first needed."""

    def __init__(self, side: PostgresSide, options: dict[str, Any]) -> None:
        self._side = side
        self._options = options
        self._free: list[Connection] = []
        self._slots = asyncio.Semaphore(options.get("max_size", 10))

    def __await__(self) -> Any:
        yield from ()
        return self

    def acquire(self, *, timeout: float | None = None) -> Any:
        return self._acquire()

    @asynccontextmanager
    async def _acquire(self) -> AsyncIterator[Connection]:
        async with self._slots:
            connection = self._free.pop() if self._free else None
            if connection is None or connection.closed:
                connection = self._side._connected(self._options)
            try:
                yield connection
            finally:
                if connection.in_transaction and not connection.closed:
                    connection.terminate()
                if not connection.closed:
                    self._free.append(connection)

    async def fetch(self, text: str, *arguments: Any, timeout: float | None = None) -> Any:
        async with self._acquire() as connection:
            return await connection.fetch(text, *arguments, timeout=timeout)

    async def fetchrow(self, text: str, *arguments: Any, timeout: float | None = None) -> Any:
        async with self._acquire() as connection:
            return await connection.fetchrow(text, *arguments, timeout=timeout)

    async def fetchval(self, text: str, *arguments: Any, timeout: float | None = None) -> Any:
        async with self._acquire() as connection:
            return await connection.fetchval(text, *arguments, timeout=timeout)

    async def execute(self, text: str, *arguments: Any, timeout: float | None = None) -> Any:
        async with self._acquire() as connection:
            return await connection.execute(text, *arguments, timeout=timeout)

    async def close(self) -> None:
        self.terminate()

    def terminate(self) -> None:
        for connection in self._free:
            connection.terminate()
        self._free.clear()
