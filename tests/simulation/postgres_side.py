"""A real Postgres behind connections that the simulation controls, statement by statement.

`connect` and `create_pool` stand in for asyncpg's. A statement is kept until the simulation
executes it on a real connection (`PostgresSide.execute`). One that waits for a lock stays where it
is, and is looked at again after every other statement: whether it waits is asked of Postgres, not
of a clock.

`now()` is the simulation's time: a function of that name stands before pg_catalog's in the search
path, and column defaults are changed to it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import asyncpg

from tests.simulation.postgres_doubles import Connection, Pool, Statement
from tests.simulation.virtual_loop import PROCESS, Process, VirtualLoop

if TYPE_CHECKING:
    from collections.abc import Callable

# How long a statement may take before it is asked whether it waits for a lock.
SUSPECT_AFTER_S = 0.02
STUCK_AFTER_S = 20.0
# How long a transaction may be idle: as the ledger sets it for a session, and for a shard's lock.
IDLE_SETTING = "idle_in_transaction_session_timeout"
IDLE_US_MAX = 60_000_000
IDLE_US_MIN = 15_000_000
# Time limits of the real server would go by the real clock.
TIMELESS = {IDLE_SETTING: "0", "statement_timeout": "0", "lock_timeout": "0"}
VIRTUAL_NOW = """
CREATE SCHEMA IF NOT EXISTS sim;
CREATE OR REPLACE FUNCTION sim.now() RETURNS timestamptz LANGUAGE sql STABLE AS
    $$ SELECT 'epoch'::timestamptz + current_setting('sim.now_us')::bigint * interval '1 us' $$;
DO $$
DECLARE each record;
BEGIN
    FOR each IN SELECT table_name, column_name FROM information_schema.columns
        WHERE table_schema = 'public' AND column_default LIKE '%now()%'
    LOOP
        EXECUTE format('ALTER TABLE %I ALTER COLUMN %I SET DEFAULT sim.now()',
            each.table_name, each.column_name);
    END LOOP;
END $$;
"""
SEARCH_PATH = "sim, pg_catalog, public"


class PostgresSide:
    """The server: executes statements, and can be cut off."""

    def __init__(self, url: str, loop: VirtualLoop) -> None:
        self._url = url
        self._loop = loop
        self._io = asyncio.new_event_loop()
        self._idle: dict[tuple[tuple[str, str], ...], list[asyncpg.Connection[Any]]] = {}
        self._watch = self.run(asyncpg.connect(url))
        self._heard: list[tuple[str, str]] = []
        self._listened: set[str] = set()
        self.own = self.run(asyncpg.connect(url))
        self.run(self.own.execute(VIRTUAL_NOW))
        self.away: str = ""  # "", "refuses"
        self.waiting: list[Statement] = []
        self.blocked: list[Statement] = []
        self.connections: list[Connection] = []
        self.notifications: list[tuple[Connection, Callable[..., object], str, str]] = []

    def run(self, work: Any) -> Any:
        """Do something on the real event loop, for ourselves; the other loop stands still."""
        process = PROCESS.set(None)
        virtual = asyncio.events._get_running_loop()
        asyncio.events._set_running_loop(None)
        try:
            return self._io.run_until_complete(work)
        finally:
            asyncio.events._set_running_loop(virtual)
            PROCESS.reset(process)

    def fetch(self, text: str, *arguments: Any) -> list[Any]:
        """Ask for ourselves: not a step."""
        return list(self.run(self.own.fetch(text, *arguments)))

    # Steps.

    def execute(self, statement: Statement) -> bool:
        """Execute a statement; False when it waits for a lock."""
        self.waiting.remove(statement)
        statement.running = self._io.create_task(self._perform(statement))
        if not self._wait(statement, SUSPECT_AFTER_S) and self._waits(statement):
            statement.blocked_us = self._loop.now_us
            self.blocked.append(statement)
            return False
        self._finish(statement)
        return True

    def look_again(self) -> None:
        """Finish the statements that wait for a lock no longer."""
        while True:
            freed = [one for one in self.blocked if self._wait(one, 0) or not self._waits(one)]
            for statement in freed:
                self.blocked.remove(statement)
                self._finish(statement)
            if not freed:
                return

    def _wait(self, statement: Statement, seconds: float) -> bool:
        running = statement.running
        assert running is not None
        if not running.done():
            self.run(asyncio.wait([running], timeout=seconds))
        return running.done()

    def _waits(self, statement: Statement) -> bool:
        asked = "SELECT cardinality(pg_blocking_pids($1)) > 0"
        while not self._wait(statement, SUSPECT_AFTER_S):
            real = statement.connection.real
            if real is not None and self.run(self._watch.fetchval(asked, real.get_server_pid())):
                return True
        return False

    async def _perform(self, statement: Statement) -> Any:
        connection = statement.connection
        if connection.real is None:
            connection.real = await self._open(connection.settings)
        real = connection.real
        if not real.is_in_transaction() and not connection.in_transaction:
            await real.execute(f"SET sim.now_us = {self._loop.now_us}")
            connection.idle_us_max = IDLE_US_MAX
        arguments = statement.arguments
        if statement.waits_ms is not None:
            arguments = (*arguments[:-1], "0")
        answer = await getattr(real, statement.verb)(statement.text, *arguments)
        if IDLE_SETTING in statement.text:
            connection.idle_us_max = IDLE_US_MIN
            await real.execute(f"SET LOCAL {IDLE_SETTING} = 0")
        return answer

    def _finish(self, statement: Statement) -> None:
        assert statement.running is not None
        if not self._wait(statement, STUCK_AFTER_S):
            raise AssertionError(f"Postgres does not end: {statement.name}")
        connection = statement.connection
        connection.note(statement.text)
        error = statement.running.exception()
        answer = statement.answer
        if statement.cut_after:
            error = asyncpg.ConnectionDoesNotExistError("connection was closed in mid-operation")
            connection.lose()
        if answer is not None and not answer.done() and statement.process.alive:
            if error is None:
                answer.set_result(statement.running.result())
            else:
                answer.set_exception(error)
        if connection.closed:
            connection.hang_up()
        self._hear()

    def _hear(self) -> None:
        """Notifications of what was committed are on their way to every listener."""
        if not self._listened:
            return
        self.run(self._watch.execute("SELECT 1"))
        for channel, payload in self._heard:
            for connection in self.connections:
                for callback in connection.listeners.get(channel, ()):
                    self.notifications.append((connection, callback, channel, payload))
        self._heard.clear()

    def notify(self, index: int) -> None:
        """One notification arrives."""
        connection, callback, channel, payload = self.notifications.pop(index)
        if not connection.closed and connection.process.alive:
            self._loop.call_in(connection.process, callback, connection, 0, channel, payload)

    def listen(self, channel: str) -> None:
        """Hear what is notified on a channel."""
        if channel not in self._listened:
            self._listened.add(channel)
            self.run(
                self._watch.add_listener(
                    channel, lambda _, __, name, text: self._heard.append((name, text))
                )
            )

    # Faults.

    def cut_all(self) -> None:
        """Every connection ends; transactions are rolled back."""
        for connection in list(self.connections):
            connection.lose()

    def end_idle(self) -> None:
        """Cut off who leaves a transaction open; refuse who waits for a lock for too long.

        The server's own time limits are put out of its reach: they go by the real clock.
        """
        asked = {one.connection for one in self.waiting + self.blocked}
        for connection in [one for one in self.connections if one.in_transaction]:
            idle_us = self._loop.now_us - connection.spoke_us
            if connection not in asked and idle_us > connection.idle_us_max:
                connection.lose()
                self.look_again()
        for statement in [one for one in self.blocked if one.waits_ms is not None]:
            if self._loop.now_us > statement.blocked_us + (statement.waits_ms or 0) * 1_000:
                self.give_back(statement.connection)
                statement.connection.closed = True
                statement.fail(asyncpg.LockNotAvailableError("canceling statement: lock timeout"))

    def reap(self, process: Process) -> list[Statement]:
        """The connections of a process that died; its statements that were not executed."""
        left = [one for one in self.waiting if one.process is process]
        for connection in [one for one in self.connections if one.process is process]:
            mine = [one for one in left if one.connection is connection]
            connection.closed = True
            if not mine and not connection.busy:
                connection.hang_up()
        self.notifications = [one for one in self.notifications if one[0].process is not process]
        return left

    # What stands in for asyncpg.

    async def connect(self, _url: str, **options: Any) -> Connection:
        """As asyncpg.connect."""
        return self._connected(options)

    def create_pool(self, _url: str, **options: Any) -> Pool:
        """As asyncpg.create_pool."""
        return Pool(self, options)

    def _connected(self, options: dict[str, Any]) -> Connection:
        process = PROCESS.get()
        assert process is not None
        if self.away:
            raise ConnectionRefusedError("Postgres is away")
        settings = {**options.get("server_settings", {}), **TIMELESS, "search_path": SEARCH_PATH}
        key = tuple(sorted(settings.items()))
        connection = Connection(self, process, key, options.get("command_timeout"))
        self.connections.append(connection)
        return connection

    async def _open(self, settings: tuple[tuple[str, str], ...]) -> asyncpg.Connection[Any]:
        idle = self._idle.setdefault(settings, [])
        if idle:
            return idle.pop()
        return await asyncpg.connect(self._url, server_settings=dict(settings))

    def give_back(self, connection: Connection) -> None:
        """End a real connection's session: its transaction, its locks. It is used again."""
        real, connection.real = connection.real, None
        if real is None:
            return
        busy = [one for one in self.blocked if one.connection is connection]
        for statement in busy:
            self.blocked.remove(statement)
            self.fetch("SELECT pg_cancel_backend($1)", real.get_server_pid())
            self._wait(statement, STUCK_AFTER_S)
            assert statement.running is not None
            statement.running.exception()
        self.run(real.execute("ROLLBACK"))
        self.run(real.execute("SELECT pg_advisory_unlock_all()"))
        self._idle.setdefault(connection.settings, []).append(real)

    def close(self) -> None:
        """End the real connections."""
        for connection in list(self.connections):
            connection.closed = True
            connection.hang_up()
        for idle in self._idle.values():
            for real in idle:
                self.run(real.close())
        self.run(self.own.close())
        self.run(self._watch.close())
        self._io.close()
