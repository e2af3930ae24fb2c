"""A whole gateway in the test's own process: one worker on real Redis and Postgres.

A node's jobs do not run beside it: a test asks for a round of them (`apply_late`, `reap`).
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import aiohttp
from yarl import URL

from gateway.app import Worker, WorkerSettings, run_worker
from gateway.config import GatewayConfig
from gateway.counters import Counters, CountersUnavailable
from gateway.jobs.reaper import Reaper
from gateway.ledger import Ledger
from gateway.operations.accounts import create_account
from gateway.operations.keys import KeyMaker, create_key
from gateway.operations.publish import publish_account
from gateway.recovery.carry import Carrier
from gateway.recovery.late import LateApplier
from gateway.recovery.rebuild import Rebuilder
from policies.catalog import MeterSpec, Platform, Price, Route, Source
from policies.rebuild import parse_hold
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from gateway.ledger import AccountRow, SettlementRow
    from gateway.operations.keys import NewKey
    from policies.decision import ShardLost
    from policies.rebuild import HoldText
    from policies.settlement import LateSettlement

CREDIT = 1_000_000
PEPPER = b"pepper of the tests"
TOKENS = MeterSpec(
    "token",
    (
        Source("response.json", "/usage/total_tokens"),
        Source("response.sse", "/usage/total_tokens"),
    ),
    picocredits_per_unit=10**9,  # 0.001 credits
    reserve_units=1_000,
)
# Holds 1.1 credits; 30 tokens cost 0.13.
CHAT_PRICE = Price(per_request_microcredits=CREDIT // 10, meters=(TOKENS,))
CREDIT_PRICE = Price(per_request_microcredits=CREDIT)


def chat_route(upstream: str, **changes: object) -> Route:
    """POST /chat to an upstream, metered."""
    fields = {"methods": ("POST",), "pattern": "/chat", "price": CHAT_PRICE, **changes}
    return Route(name="chat", upstream=upstream, **fields)  # type: ignore[arg-type]


def open_route(upstream: str, **changes: object) -> Route:
    """Anything below /any, one credit each."""
    fields = {"methods": (), "pattern": "/any/**", "price": CREDIT_PRICE, **changes}
    return Route(name="any", upstream=upstream, **fields)  # type: ignore[arg-type]


@dataclass
class Reply:
    """An answer as a client sees it."""

    status: int
    headers: aiohttp.typedefs.CIMultiDictProxy[str]  # type: ignore[name-defined]
    body: bytes

    @property
    def request_id(self) -> str:
        return str(self.headers["X-Request-Id"])


class _Ignored:
    def begin(self, _lost: ShardLost, _shard: int) -> None:
        """Lost shards are left to the worker."""


class Gateway:
    """A running worker with a platform `demo` and an account with a key."""

    def __init__(
        self, worker: Worker, ledger: Ledger, counters: Counters, account: AccountRow, key: NewKey
    ) -> None:
        self.worker = worker
        self.ledger = ledger
        self.counters = counters
        self.account = account
        self.key = key
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def authorization(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key.text}"}

    async def call(
        self,
        path: str = "/chat",
        *,
        method: str = "POST",
        headers: dict[str, str] | None = None,
        data: object = b"{}",
    ) -> Reply:
        """One call with the account's key, unless `headers` say otherwise."""
        async with (
            aiohttp.ClientSession(auto_decompress=False) as session,
            session.request(
                method,
                URL(self.url + path, encoded=True),
                headers={**self.authorization, **(headers or {})},
                data=data if method in {"POST", "PUT"} else None,
            ) as answer,
        ):
            return Reply(answer.status, answer.headers, await answer.read())

    async def settlements(self, count: int) -> list[SettlementRow]:
        """The account's settlements, newest first, once there are `count` in Postgres."""

        async def enough() -> list[SettlementRow] | None:
            rows = await self.ledger.settlements(self.account.account_id, limit=count + 1)
            return rows if len(rows) >= count else None

        rows = await eventually(enough)
        assert rows is not None
        return rows

    async def settlement(self) -> SettlementRow:
        """The account's only settlement."""
        rows = await self.settlements(1)
        assert len(rows) == 1
        return rows[0]

    async def balance(self) -> tuple[int, int]:
        """Available and held microcredits in Redis, over all lots."""
        fields = (await self.counters.inspect(self.counters.keys(self.account.account_id))).fields
        return (
            sum(int(value) for name, value in fields.items() if name.startswith("a:")),
            sum(int(value) for name, value in fields.items() if name.startswith("h:")),
        )

    async def holds(self) -> list[tuple[HoldText, int]]:
        """The account's live holds in Redis, each with its stage (1: dispatched)."""
        keys = self.counters.keys(self.account.account_id)
        live = await self.counters.live_holds(keys.shard)
        return [(parse_hold(text), stage) for text, stage in live.values()]

    async def late_settlements(self) -> list[LateSettlement]:
        """The account's settlements that wait for Redis in Postgres."""
        return await self.ledger.late_settlements_of_accounts([self.account.account_id])

    async def apply_late(self) -> int:
        """Tell Redis of late settlements, as a node's jobs do; answers how many they could.

        A shard that was lost, as by any restart of Redis, is rebuilt first.
        """
        lost: list[tuple[int, ShardLost]] = []

        async def publish(account_id: int) -> None:
            await publish_account(self.ledger, self.counters, account_id, "demo")

        carrier = Carrier(self.counters, self.ledger)
        applier = LateApplier(self.counters, self.ledger, carrier, publish)
        applied = await applier.apply(lambda shard, loss: lost.append((shard, loss)))
        for shard, loss in lost:
            await Rebuilder(self.counters, self.ledger, carrier, applier).rebuild(shard, loss)
        return applied

    async def settled_late(self, count: int = 1) -> list[SettlementRow]:
        """The account's settlements, newest first, once the late ones are applied too."""

        async def applied() -> bool:
            await self.apply_late()
            return not await self.late_settlements()

        await eventually(applied, unless=(CountersUnavailable,))
        return await self.settlements(count)

    async def reap(self) -> int:
        """End holds whose lease is over, as the jobs do, and carry what that writes."""
        ended = await Reaper(self.counters, _Ignored()).reap()
        shard = self.counters.keys(self.account.account_id).shard
        await Carrier(self.counters, self.ledger).carry(shard)
        return ended

    async def amend(self, **fields: str | int) -> None:
        """Change fields of the account in Redis, such as its rules, behind Postgres' back."""
        keys = self.counters.keys(self.account.account_id)
        assert await self.counters.amend(keys, fields)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A raw connection, for what no client library would send."""
        return await asyncio.open_connection("127.0.0.1", self.port)

    def head(self, start: str, *lines: str) -> bytes:
        """A raw request head with the account's key."""
        own = (f"Authorization: Bearer {self.key.text}", "Host: gateway")
        return "\r\n".join([start, *own, *lines, "", ""]).encode()


@asynccontextmanager
async def running_gateway(
    redis_url: str,
    postgres_url: str,
    routes: Sequence[Route],
    *,
    microcredits: int = 100 * CREDIT,
    upgrade_url: str | None = None,
    **config: object,
) -> AsyncIterator[Gateway]:
    """On an empty Redis and a migrated, empty database."""
    settings = WorkerSettings(
        GatewayConfig(redis_url=redis_url, postgres_url=postgres_url, **config),  # type: ignore[arg-type]
        PEPPER,
    )
    async with (
        Ledger(postgres_url) as ledger,
        Counters(redis_url, shards=settings.gateway.shards, deadline_ms=10_000) as counters,
    ):
        report = await ledger.apply_catalog(Platform("demo", upgrade_url=upgrade_url), [], routes)
        made = await create_account(ledger, report.platform_id, "demo", microcredits=microcredits)
        key = await create_key(ledger, counters, made.account, KeyMaker("dev", PEPPER))
        async with run_worker(settings) as worker:
            loop = asyncio.get_running_loop()
            listening = await loop.create_server(worker.server, "127.0.0.1", 0)
            gateway = Gateway(worker, ledger, counters, made.account, key)
            gateway.port = listening.sockets[0].getsockname()[1]
            yield gateway
            listening.close()
