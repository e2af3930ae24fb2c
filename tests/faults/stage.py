"""A whole deployment to be hurt: processes, accounts, clients, and the witnesses to ask afterwards.

stage.redis, .postgres, .gateway   can be killed, frozen, restarted
stage.quiet()                      returns when nothing is under way any more, anywhere
stage.verdict(calls)               what the witnesses disagree about; empty is the promise kept
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import time
from typing import TYPE_CHECKING, NamedTuple

import asyncpg
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff

from gateway.counters import Counters, CountersUnavailable
from gateway.ledger import Ledger
from gateway.operations.accounts import create_account
from gateway.operations.audit import audit
from gateway.operations.keys import KeyMaker, create_key
from tests.faults.clients import Caller
from tests.faults.judge import Charge, Journal, Violation, judge
from tests.faults.kinds import COUNTED_PLAN, CREDIT, config_text
from tests.faults.processes import (
    PEPPER,
    BackendProcess,
    GatewayProcess,
    PostgresProcess,
    RedisProcess,
)
from tests.faults.wires import RedisWire, black_hole
from tests.support.ports import free_port
from tests.support.postgres_gate import postgres_gate
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from pathlib import Path

    from tests.faults.clients import Seen
    from tests.support.postgres_gate import PostgresGate

SHARDS = 4
LEASE_S = 3
# A lease, the reaper's second, the sweeper's age of 5 s and its interval, and a busy machine.
QUIET_DEADLINE_S = LEASE_S + 40.0
CHARGES = """
SELECT s.call_id, s.account_id, s.ending, s.flags, s.charged_microcredits AS charged,
       s.uncollected_microcredits AS uncollected,
       (SELECT count(*) FROM settlements AS t WHERE t.call_id = s.call_id) AS rows,
       coalesce(e.taken, 0)::bigint AS net
FROM settlements AS s
LEFT JOIN (
    SELECT call_id, -sum(microcredits) AS taken FROM ledger_entries
    WHERE call_id >= $1 GROUP BY call_id
) AS e ON e.call_id = s.call_id
WHERE s.call_id >= $1
"""
AWAY = (CountersUnavailable, redis.RedisError, OSError, asyncpg.PostgresError)
LATE = "SELECT count(*) FROM late_settlements"


class Left(NamedTuple):
    """What is still under way."""

    holds: int
    outbox: int
    late: int


class Stage:
    """A running deployment. Its gateway may reach the servers through a wire and a gate."""

    def __init__(self, folder: Path, *, wired: bool) -> None:
        folder.chmod(0o755)  # Postgres may run as another user
        self.redis = RedisProcess(folder / "redis")
        self.postgres = PostgresProcess(folder / "postgres")
        self.backend = BackendProcess(folder)
        self.gateway = GatewayProcess(folder / "config.toml")
        self.lease_s = LEASE_S
        self._folder = folder
        self._wired = wired
        self._stack = contextlib.AsyncExitStack()
        self._names = itertools.count(1)
        self._journal = Journal()
        self._journal_read = 0
        self._since_s = time.time()
        self.wire: RedisWire
        self.gate: PostgresGate

    async def open(self, *, workers: int, **settings: object) -> None:
        """Start everything; `settings` are further ones of the [gateway] table."""
        stack = self._stack
        for process in (self.redis, self.postgres, self.backend, self.gateway):
            stack.push_async_callback(process.kill)
        await asyncio.gather(self.redis.start(), self.postgres.start(), self.backend.start())
        redis_url, postgres_url = self.redis.url, self.postgres.url
        if self._wired:
            self.wire = await stack.enter_async_context(RedisWire(*self.redis.address))
            redis_url = self.redis.url_through(self.wire.port)
            self.gate, postgres_url = await stack.enter_async_context(postgres_gate(postgres_url))
        hole = stack.enter_context(black_hole())
        addresses = {
            "backend": self.backend.url,
            "nobody": f"http://127.0.0.1:{free_port()}",
            "black_hole": hole,
        }
        text = config_text(
            addresses,
            proxy_port=free_port(),
            control_port=free_port(),
            redis_url=redis_url,
            postgres_url=postgres_url,
            workers=workers,
            lease_s=self.lease_s,
            more="\n".join(f"{name} = {value}" for name, value in settings.items()),
        )
        (self._folder / "config.toml").write_text(text)
        await self.gateway.start()
        self.ledger = await stack.enter_async_context(Ledger(self.postgres.url))
        self.counters = await stack.enter_async_context(
            Counters(self.redis.url, shards=SHARDS, deadline_ms=10_000)
        )
        # Only reads, and what can be done twice.
        again = Retry(ConstantBackoff(0.1), 50)
        self.client = redis.asyncio.from_url(self.redis.url, retry=again)
        stack.push_async_callback(self.client.aclose)
        platform = await self.ledger.find_platform("demo")
        assert platform is not None
        self.platform_id = platform.platform_id

    async def close(self) -> None:
        """Stop the gateway in order, then end everything."""
        try:
            with contextlib.suppress(AssertionError, TimeoutError):
                await self.gateway.stop()
        finally:
            await self._stack.aclose()

    async def caller(
        self, credits_granted: int = 100_000, *, plan: str | None = COUNTED_PLAN
    ) -> Caller:
        """A new account with credits and a key."""
        name = f"a{next(self._names)}"
        made = await create_account(
            self.ledger, self.platform_id, name, plan=plan, microcredits=credits_granted * CREDIT
        )
        maker = KeyMaker("live", PEPPER.encode())
        key = await create_key(self.ledger, self.counters, made.account, maker)
        account_id = made.account.account_id
        grants = [grant.grant_id for grant in await self.ledger.grants(account_id)]
        return Caller(account_id, name, key.text, tuple(grants), lambda: self.gateway.proxy_url)

    async def account(self, caller: Caller) -> Mapping[str, str]:
        """The fields of an account in Redis."""
        return (await self.counters.inspect(self.counters.keys(caller.account_id))).fields

    async def holds(self, account_id: int | None = None) -> dict[str, str]:
        """The text of every hold that is open, by call id."""
        found = {}
        for shard in range(SHARDS):
            for call, text in (await self.client.hgetall(f"tk:{{s{shard:03d}}}:holds")).items():
                if text.startswith(b"h|"):
                    found[call.decode()] = text.decode()
        if account_id is None:
            return found
        return {call: text for call, text in found.items() if text.split("|")[1] == str(account_id)}

    async def held(self, account_id: int, count: int = 1) -> dict[str, str]:
        """The account's holds, once there are `count`."""

        async def enough() -> dict[str, str] | None:
            found = await self.holds(account_id)
            return found if len(found) == count else None

        found = await eventually(enough)
        assert found is not None
        return found

    async def left(self) -> Left:
        """What is not at its end yet. Raises: what we ask is not there yet."""
        await self.counters.command("PING")
        # In the order in which calls come to their end: what goes on meanwhile is still to be seen.
        holds = len(await self.holds())
        async with self._connected() as connection:
            late = await connection.fetchval(LATE)
        outbox = 0
        for shard in range(SHARDS):
            outbox += await self.client.xlen(f"tk:{{s{shard:03d}}}:outbox")
        return Left(holds, outbox, late)

    async def quiet(self) -> None:
        """Wait until every hold has ended and every settlement is in Postgres, and only there."""
        left = None
        try:
            async with asyncio.timeout(QUIET_DEADLINE_S):
                while True:
                    with contextlib.suppress(*AWAY):
                        left = await self.left()
                        if left == (0, 0, 0):
                            return
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise AssertionError(f"not quiet after {QUIET_DEADLINE_S} s: {left}") from None

    async def arrived(self, seen: Seen) -> str:
        """Wait until the agent has this call; its id."""

        def look() -> str | None:
            self._read_journal()
            ids = [one.call_id for one in self._journal.arrivals if one.nonce == seen.nonce]
            return ids[0] if ids else None

        call_id = await eventually(look)
        assert call_id is not None
        return call_id

    async def charges(self) -> dict[str, Charge]:
        """Every call that began since the stage was opened, as Postgres has it."""
        first = f"{int(self._since_s * 1000):012x}{'0' * 20}"
        async with self._connected() as connection:
            rows = await connection.fetch(CHARGES, first)
        return {
            row["call_id"].hex: Charge(
                row["call_id"].hex,
                *(row["account_id"], row["ending"], row["flags"], row["rows"]),
                *(row["charged"], row["uncollected"], row["net"]),
            )
            for row in rows
        }

    async def charge(self, call_id: str) -> Charge | None:
        """What is recorded of one call."""
        return (await self.charges()).get(call_id)

    async def verdict(self, calls: Sequence[Seen]) -> list[Violation]:
        """Wait until all is quiet; every broken promise about these calls, and about the books.

        Calls of these accounts must all be given, since the last verdict about them.
        """
        await self.quiet()
        self._read_journal()
        accounts = {seen.account_id for seen in calls}
        ours = [one for one in (await self.charges()).values() if one.account_id in accounts]
        return judge(calls, self._journal, ours, lease_s=self.lease_s) + await self.audit()

    async def audit(self) -> list[Violation]:
        """What `tollkeeper audit` finds."""
        report = await audit(self.ledger, self.counters)
        return [Violation("audit", str(finding)) for finding in report.findings]

    def forget(self) -> None:
        """Begin a new chapter: calls until now were judged."""
        self._since_s = time.time()
        self._journal.arrivals.clear()
        self._journal.usage.clear()

    def _read_journal(self) -> None:
        with self.backend.journal.open("rb") as file:
            file.seek(self._journal_read)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._journal_read += len(whole)
        self._journal.take(json.loads(line) for line in whole.splitlines())

    @contextlib.asynccontextmanager
    async def _connected(self) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
        connection = await asyncpg.connect(self.postgres.url)
        try:
            yield connection
        finally:
            await connection.close()


@contextlib.asynccontextmanager
async def running_stage(
    folder: Path, *, workers: int = 2, wired: bool = True, **settings: object
) -> AsyncIterator[Stage]:
    """A deployment of its own, in this folder."""
    stage = Stage(folder, wired=wired)
    try:
        await stage.open(workers=workers, **settings)
        yield stage
    finally:
        await stage.close()
