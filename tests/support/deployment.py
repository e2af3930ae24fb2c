"""A deployment without its proxy: Redis and Postgres, accounts, and calls made by hand."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import asyncpg

from gateway.counters import Counters
from gateway.ledger import Ledger
from gateway.operations.accounts import create_account
from gateway.operations.audit import audit
from gateway.operations.keys import KeyMaker, create_key
from policies.catalog import Plan, Platform
from policies.decision import Admitted, NotLoaded, Settled, ShardLost
from policies.settlement import LedgerChange, Settlement, parse_entry
from tests.support.settlements import new_call_id

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.counters import AccountKeys
    from gateway.ledger import AccountRow

SHARDS = 4
CREDIT = 1_000_000
PEPPER = b"pepper of the tests"
ROUTE_ID, PRICE_VERSION = 2, 9
PLAN = Plan("free", credits_microcredits=7 * CREDIT, requests_per_minute=5)


class Caller:
    """An account with a key, as a worker knows it."""

    def __init__(self, account: AccountRow, key_id: int, keys: AccountKeys) -> None:
        self.account = account
        self.key_id = key_id
        self.keys = keys
        self.context = b"%d,%d,%d,%d,%d," % (
            account.platform_id,
            account.account_id,
            key_id,
            ROUTE_ID,
            PRICE_VERSION,
        )


class Deployment:
    """Redis and Postgres with a platform; does by hand what workers and jobs do."""

    def __init__(self, ledger: Ledger, counters: Counters, postgres_url: str) -> None:
        self.ledger = ledger
        self.counters = counters
        self.postgres_url = postgres_url
        self.maker = KeyMaker("dev", PEPPER)
        self.platform_id = 0
        self._opening = asyncio.Lock()

    async def caller(self, name: str = "alice", microcredits: int = 100 * CREDIT) -> Caller:
        """A new account with credits and a key."""
        made = await create_account(self.ledger, self.platform_id, name, microcredits=microcredits)
        key = await create_key(self.ledger, self.counters, made.account, self.maker)
        return Caller(made.account, key.key_id, self.counters.keys(made.account.account_id))

    async def admit(
        self,
        caller: Caller,
        amount: int = CREDIT,
        *,
        key_id: int | None = None,
        lease_ms: int = 60_000,
    ) -> object:
        """The decision on a call, after loading the account where that is asked for."""
        call_id = new_call_id()
        key = b"%d" % (key_id or caller.key_id)
        while True:
            decision = await self.counters.admit(
                caller.keys, call_id, key, amount, lease_ms, 0, caller.context
            )
            if isinstance(decision, ShardLost):
                await self.open_shard(caller.keys.shard)
            elif isinstance(decision, NotLoaded):
                state = await self.ledger.account_state(caller.account.account_id)
                assert state is not None
                await self.counters.load(caller.keys, state, decision)
            else:
                return decision

    async def open_shard(self, shard: int) -> None:
        """Open a shard for the first time, once."""
        async with self._opening:
            if not self.counters.knows(shard):
                epoch = await self.ledger.next_epoch(shard)
                await self.counters.close_shard(shard, epoch, 0)
                await self.counters.open_shard(shard, epoch)

    async def hold(self, caller: Caller, amount: int = CREDIT, *, lease_ms: int = 60_000) -> str:
        """The id of a call that is running."""
        decision = await self.admit(caller, amount, lease_ms=lease_ms)
        assert isinstance(decision, Admitted), decision
        return decision.call_id

    async def settle(self, caller: Caller, call_id: str, owed: int = CREDIT) -> None:
        """Charge a running call; its settlement waits in the outbox."""
        ended = await self.counters.settle(caller.keys, call_id, owed, b"completed,200,,")
        assert isinstance(ended, Settled), ended

    async def call(self, caller: Caller, amount: int = CREDIT) -> str:
        """A call from its hold to the outbox."""
        call_id = await self.hold(caller, amount)
        await self.settle(caller, call_id, amount)
        return call_id

    async def carry(self) -> int:
        """Carry the outboxes to Postgres, as the sweeper does; how many entries there were."""
        carried = 0
        for shard in range(SHARDS):
            page = await self.counters.outbox_page(shard, 0, 1_000)
            entries = [parse_entry(shard, entry_id, fields) for entry_id, fields in page]
            settlements = [entry for entry in entries if isinstance(entry, Settlement)]
            changes = [entry for entry in entries if isinstance(entry, LedgerChange)]
            await self.ledger.record_settlements(settlements)
            await self.ledger.record_changes(changes)
            await self.counters.acknowledge(entries)
            carried += len(entries)
        return carried

    async def damage(self, statement: str, *arguments: object) -> None:
        """Change Postgres behind everybody's back, append-only tables too."""
        connection = await asyncpg.connect(self.postgres_url)
        try:
            await connection.execute("SET session_replication_role = replica")
            await connection.execute(statement, *arguments)
        finally:
            await connection.close()

    async def sql(self, statement: str, *arguments: object) -> Any:
        """The first value that a statement answers, as who owns the tables."""
        connection = await asyncpg.connect(self.postgres_url)
        try:
            return await connection.fetchval(statement, *arguments)
        finally:
            await connection.close()

    async def findings(self) -> list[str]:
        """What an audit says, once Postgres has everything."""
        await self.carry()
        report = await audit(self.ledger, self.counters, looks_max=1)
        return [f"{finding.check}: {finding}" for finding in report.findings]

    async def lot(self, caller: Caller, grant_id: int) -> tuple[int, int, int]:
        """Available, held, settled of a lot in Redis."""
        fields = (await self.counters.inspect(caller.keys)).fields
        return tuple(int(fields[f"{kind}:{grant_id}"]) for kind in "ahs")  # type: ignore[return-value]

    async def traffic(self, caller: Caller, until: asyncio.Event) -> int:
        """Calls without a pause, some running, some on their way, until told; how many."""
        calls = 0
        while not until.is_set():
            await asyncio.gather(*(self.call(caller, 1_000 + calls) for _ in range(4)))
            calls += 4
            if calls % 12 == 0:
                await self.carry()
        return calls


@asynccontextmanager
async def running_deployment(redis_url: str, postgres_url: str) -> AsyncIterator[Deployment]:
    """On an empty Redis and a migrated, empty database."""
    async with (
        Ledger(postgres_url) as ledger,
        Counters(redis_url, shards=SHARDS, deadline_ms=10_000) as counters,
    ):
        deployment = Deployment(ledger, counters, postgres_url)
        report = await ledger.apply_catalog(Platform("demo"), [PLAN], [])
        deployment.platform_id = report.platform_id
        yield deployment
