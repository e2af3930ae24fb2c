"""How long reading takes on a database that `seed.py` has filled: p50 and p99 of each kind of read.

Asks as the API does: as a role that row-level security binds, for the platform or for an account of
it. Reads come in random order, about random accounts, keys, calls and times; those of the largest
account are told apart. With --explain it prints the plans instead. With --control it asks a running
control plane's endpoints over HTTP.

    python loadtests/reads.py postgresql://... --requests 500
    python loadtests/reads.py postgresql://... --explain
    python loadtests/reads.py postgresql://... --control http://127.0.0.1:8081 --token tt_...
"""

from __future__ import annotations

import argparse
import asyncio
import random
import re
import sys
import time
from collections import Counter, defaultdict
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from http.client import HTTPConnection
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

import asyncpg

from gateway.ledger import Ledger, Scope, Tenancy
from gateway.ledger.audit_log import LogFilter
from gateway.ledger.searching import CallFilter, SettledPlace, first_call_id
from gateway.operations.errors import UsageError
from gateway.operations.receipts import show_receipt
from gateway.operations.settlements import follow_settlements, search_settlements
from gateway.operations.usage import project_usage, usage_series
from policies.spans import DAY_MS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from gateway.ledger.database import Session

P99_MS_MAX = 50
WARM_UP_ROUNDS = 20
PAGE_ROWS = 50
SAMPLE_CALLS = 500
HTTP_TIMEOUT_S = 30
HTTP_WARM_UP_ROUNDS = 8
# What a control plane is asked with --control; the braces are filled from the database. What waits
# by its nature is not here: traffic is looked at for a second.
ENDPOINTS = (
    "/v1/platforms",
    "/v1/routes",
    "/v1/plans",
    "/v1/accounts",
    "/v1/accounts?name=customer-0009",
    "/v1/accounts/{account}",
    "/v1/accounts/{account}/balance",
    "/v1/accounts/{account}/limits",
    "/v1/accounts/{account}/grants",
    "/v1/keys",
    "/v1/keys?account_id={account}&status=active",
    "/v1/keys/{key}",
    "/v1/settlements",
    "/v1/settlements?account_id={account}",
    "/v1/settlements?key_id={key}",
    "/v1/settlements?ending=unknown",
    "/v1/settlements?account_id={account}&status=599",
    "/v1/settlements?request_id={call}",
    "/v1/settlements?route=route-3&from={from}&until={until}",
    "/v1/receipts/{call}",
    "/v1/usage",
    "/v1/usage?interval=hour&from={from}&until={until}",
    "/v1/usage?by=route&from={from}&until={until}",
    "/v1/usage?interval=month&by=account",
    "/v1/usage?account_id={account}",
    "/v1/usage?account_id={account}&by=route",
    "/v1/usage?account_id={account}&by=key&from={from}&until={until}",
    "/v1/usage?key_id={key}",
    "/v1/audit-log",
    "/v1/audit-log?account_id={account}",
    "/v1/audit-log?resource=key&resource_id={key}",
    "/v1/audit-log?actor=nobody",
    "/v1/status",
)


class Facts(NamedTuple):
    """What there is to ask about."""

    platform_id: int
    accounts: Sequence[int]
    largest: int
    keys: Sequence[tuple[int, int]]  # and whose they are
    routes: Sequence[int]
    calls: Sequence[tuple[str, int]]  # and whose they are
    from_ms: int
    until_ms: int


class Asker:
    """Random questions about these facts; `ledger` and `of` ask for the platform or an account."""

    def __init__(self, facts: Facts, tenancy: Tenancy, chance: random.Random) -> None:
        self._tenancy, self.facts, self.chance = tenancy, facts, chance

    @property
    def ledger(self) -> Ledger:
        """As the platform."""
        return self.of(None)

    def of(self, account_id: int | None) -> Ledger:
        """As an account of it."""
        return self._tenancy.ledger(Scope(self.facts.platform_id, account_id, "load"))

    @property
    def account(self) -> int:
        """Any account."""
        return self.chance.choice(self.facts.accounts)

    @property
    def week(self) -> tuple[int, int]:
        """Some seven days."""
        start = self.chance.randrange(self.facts.from_ms, self.facts.until_ms - 7 * DAY_MS)
        return start, start + 7 * DAY_MS

    async def search(self, ledger: Ledger, **wanted: Any) -> object:
        """A page of calls."""
        after = wanted.pop("after", None)
        request_id = wanted.pop("request_id", None)
        return await search_settlements(
            ledger,
            self.facts.platform_id,
            CallFilter(**wanted),
            after=after,
            request_id=request_id,
            limit=PAGE_ROWS,
        )

    async def usage(
        self, ledger: Ledger, unit: str, *by: str, days: int = 30, **ids: int
    ) -> object:
        """A series up to now."""
        until_ms = self.facts.until_ms
        return await usage_series(
            ledger,
            self.facts.platform_id,
            unit=unit,
            from_ms=until_ms - days * DAY_MS,
            until_ms=until_ms,
            by=by,
            **ids,
        )


def searching() -> dict[str, Callable[[Asker], Awaitable[object]]]:
    """Reads of single calls."""

    def place(asker: Asker) -> str:
        return first_call_id(asker.chance.randrange(asker.facts.from_ms, asker.facts.until_ms))

    def own(asker: Asker) -> Awaitable[object]:
        return asker.search(asker.of(asker.account))

    def of_week(asker: Asker, **wanted: Any) -> Awaitable[object]:
        start, end = asker.week
        return asker.search(asker.ledger, from_ms=start, until_ms=end, **wanted)

    def receipt(asker: Asker) -> Awaitable[object]:
        call, account = asker.chance.choice(asker.facts.calls)
        return show_receipt(asker.of(account), asker.facts.platform_id, call)

    def follow(asker: Asker, account: int | None, back_ms: int) -> Awaitable[object]:
        now_ms = asker.facts.until_ms
        place = SettledPlace(now_ms - back_ms)
        return follow_settlements(
            asker.of(account), asker.facts.platform_id, place, moment_ms=now_ms
        )

    return {
        "calls, newest": lambda a: a.search(a.ledger),
        "calls, a page anywhere": lambda a: a.search(a.ledger, after=place(a)),
        "calls of an account": lambda a: a.search(a.ledger, account_id=a.account),
        "calls of an account, as itself": own,
        "calls of an account, a page anywhere": lambda a: a.search(
            a.ledger, account_id=a.account, after=place(a)
        ),
        "calls of a key": lambda a: a.search(a.ledger, key_id=a.chance.choice(a.facts.keys)[0]),
        "calls of a route, of a week": lambda a: of_week(
            a, route_id=a.chance.choice(a.facts.routes)
        ),
        "calls of a rare ending": lambda a: a.search(a.ledger, ending="unknown"),
        "calls, nothing matches": lambda a: a.search(a.ledger, ending="none", after=place(a)),
        "calls of an account, nothing matches": lambda a: a.search(
            a.ledger, ending="none", account_id=a.account
        ),
        "calls of the largest account, nothing matches": lambda a: a.search(
            a.ledger, ending="none", account_id=a.facts.largest, after=place(a)
        ),
        "calls of a session": lambda a: a.search(
            a.ledger, account_id=a.account, session=f"s-{a.chance.getrandbits(16)}"
        ),
        "call by request id": lambda a: a.search(
            a.ledger, request_id=a.chance.choice(a.facts.calls)[0]
        ),
        "receipt": receipt,
        "follow": lambda a: follow(a, None, 5_000),
        "follow an account": lambda a: follow(a, a.account, 5_000),
        "follow an account since an hour": lambda a: follow(a, a.account, 3_600_000),
    }


def summing() -> dict[str, Callable[[Asker], Awaitable[object]]]:
    """Reads of sums."""

    def projection(asker: Asker, account: int | None) -> Awaitable[object]:
        return project_usage(
            asker.of(account), asker.facts.platform_id, now_ms=asker.facts.until_ms
        )

    return {
        "usage by day, 30 days": lambda a: a.usage(a.ledger, "day"),
        "usage by hour, 30 days": lambda a: a.usage(a.ledger, "hour"),
        "usage by hour and route, 14 days": lambda a: a.usage(a.ledger, "hour", "route", days=14),
        "usage by month and route, a year": lambda a: a.usage(a.ledger, "month", "route", days=365),
        "usage by day and account, 3 days": lambda a: a.usage(a.ledger, "day", "account", days=3),
        "usage by month and account": lambda a: a.usage(a.ledger, "month", "account"),
        "usage of an account by day": lambda a: a.usage(a.of(a.account), "day"),
        "usage of an account by hour, a day": lambda a: a.usage(a.of(a.account), "hour", days=1),
        "usage of an account by day and route": lambda a: a.usage(a.of(a.account), "day", "route"),
        "usage of an account by day and key": lambda a: a.usage(a.of(a.account), "day", "key"),
        "usage of an account by route and key, 7 days": lambda a: a.usage(
            a.of(a.account), "day", "route", "key", days=7
        ),
        "usage of the largest account by hour, a day": lambda a: a.usage(
            a.of(a.facts.largest), "hour", days=1
        ),
        "usage of a key by day": lambda a: a.usage(
            a.ledger, "day", key_id=a.chance.choice(a.facts.keys)[0]
        ),
        "usage of the largest account by day": lambda a: a.usage(a.of(a.facts.largest), "day"),
        "usage of the largest account by day and route": lambda a: a.usage(
            a.of(a.facts.largest), "day", "route"
        ),
        "usage of the largest account by month and key": lambda a: a.usage(
            a.of(a.facts.largest), "month", "key"
        ),
        "projection of the platform": lambda a: projection(a, None),
        "projection of an account": lambda a: projection(a, a.account),
    }


def listing() -> dict[str, Callable[[Asker], Awaitable[object]]]:
    """Reads of lists."""

    def log(asker: Asker, **wanted: Any) -> Awaitable[object]:
        return asker.ledger.log_page(asker.facts.platform_id, LogFilter(**wanted), limit=PAGE_ROWS)

    def accounts(asker: Asker, **wanted: Any) -> Awaitable[object]:
        return asker.ledger.accounts_page(asker.facts.platform_id, limit=PAGE_ROWS, **wanted)

    return {
        "accounts": lambda a: accounts(a, after=a.account),
        "accounts by name": lambda a: accounts(a, name_prefix="customer-0009"),
        "lots of an account": lambda a: a.ledger.grants_page(
            a.facts.platform_id, a.account, limit=PAGE_ROWS
        ),
        "audit log, newest": log,
        "audit log of an account": lambda a: log(a, account_id=a.account),
        "audit log of a key": lambda a: log(
            a, resource="key", resource_id=str(a.chance.choice(a.facts.keys)[0])
        ),
        "audit log of an actor": lambda a: log(a, actor=f"token:{a.chance.randrange(20)}"),
        "audit log, nothing matches": lambda a: log(a, actor="nobody"),
    }


def main() -> int:
    """Ask and print a table; the exit code is 0 when every p99 is below P99_MS_MAX."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("url", help="the database that seed.py filled")
    parser.add_argument("--platform", default="scale", help="slug of its platform (scale)")
    parser.add_argument("--requests", type=int, default=500, help="of each kind (500)")
    parser.add_argument("--only", default="", help="kinds whose names have this in them")
    parser.add_argument("--explain", action="store_true", help="print plans")
    parser.add_argument("--control", help="a running control plane's address")
    parser.add_argument("--token", default="", help="an API token of an operator, for --control")
    parser.add_argument("--seed", type=int, default=1, help="of chance (1)")
    options = parser.parse_args()
    return asyncio.run(_run(options))


async def _run(options: argparse.Namespace) -> int:
    chance = random.Random(options.seed)
    facts = await _facts(options.url, options.platform, chance)
    if options.control:
        took, odd = await asyncio.to_thread(_ask_endpoints, options, facts, chance)
        return _tell(took, odd)
    kinds = {
        name: ask
        for name, ask in (searching() | summing() | listing()).items()
        if options.only in name
    }
    async with Tenancy(options.url) as tenancy:
        asker = Asker(facts, tenancy, chance)
        if options.explain:
            await _explain(asker, kinds)
            return 0
        for ask in list(kinds.values()) * WARM_UP_ROUNDS:
            with suppress(UsageError):
                await ask(asker)
        order = list(kinds) * options.requests
        chance.shuffle(order)
        took: dict[str, list[float]] = defaultdict(list)
        for name in order:
            started = time.perf_counter()
            with suppress(UsageError):  # too much, which takes its time to find out, too
                await kinds[name](asker)
            took[name].append(time.perf_counter() - started)
    return _tell({name: took[name] for name in kinds}, Counter())


async def _facts(url: str, slug: str, chance: random.Random) -> Facts:
    connection = await asyncpg.connect(url)
    try:
        platform_id = await connection.fetchval("SELECT id FROM platforms WHERE slug = $1", slug)
        if platform_id is None:
            raise SystemExit(f'there is no platform "{slug}": run seed.py first')

        async def numbers(text: str) -> list[int]:
            return [row[0] for row in await connection.fetch(text, platform_id)]

        accounts = await numbers("SELECT id FROM accounts WHERE platform_id = $1")
        routes = await numbers("SELECT id FROM routes WHERE platform_id = $1")
        largest = await numbers(
            "SELECT account_id FROM usage_accounts_daily WHERE platform_id = $1"
            " GROUP BY account_id ORDER BY sum(calls) DESC LIMIT 1"
        )
        keys = await connection.fetch(
            "SELECT id, account_id FROM api_keys WHERE platform_id = $1", platform_id
        )
        from_ms, until_ms = await connection.fetchrow(
            "SELECT to_ms(min(settled_at)), to_ms(max(settled_at)) FROM settlements"
            " WHERE platform_id = $1",
            platform_id,
        )
        calls = []
        for _ in range(SAMPLE_CALLS):
            row = await connection.fetchrow(
                "SELECT replace(call_id::text, '-', ''), account_id FROM settlements"
                " WHERE platform_id = $1 AND settlements.call_id >= $2"
                " ORDER BY settlements.call_id LIMIT 1",
                platform_id,
                first_call_id(chance.randrange(from_ms, until_ms)),
            )
            if row is not None:
                calls.append(tuple(row))
    finally:
        await connection.close()
    owned = [tuple(row) for row in keys]
    return Facts(platform_id, accounts, largest[0], owned, routes, calls, from_ms, until_ms)


class Explaining:
    """A session that prints the plan of what it is asked."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def all(self, query: str, *arguments: object) -> Any:
        """Every row."""
        await self._print_plan(query, arguments)
        return await self._session.all(query, *arguments)

    async def one(self, query: str, *arguments: object) -> Any:
        """The first row."""
        await self._print_plan(query, arguments)
        return await self._session.one(query, *arguments)

    async def value(self, query: str, *arguments: object) -> Any:
        """The first value."""
        return await self._session.value(query, *arguments)

    async def _print_plan(self, query: str, arguments: Sequence[object]) -> None:
        text = "EXPLAIN (ANALYZE, BUFFERS, COSTS OFF) " + self._session._queries[query]  # noqa: SLF001
        for row in await self._session._runner.fetch(text, *arguments):  # noqa: SLF001
            print(f"    {row[0]}")


async def _explain(asker: Asker, kinds: dict[str, Callable[[Asker], Awaitable[object]]]) -> None:
    """Ask each kind once; every scoped ledger prints the plans of its queries."""
    plain = asker.of

    def explaining(account_id: int | None) -> Ledger:
        ledger = plain(account_id)
        enter = ledger.transaction

        @asynccontextmanager
        async def transaction(**options: bool) -> AsyncIterator[Any]:
            async with enter(**options) as session:
                yield Explaining(session)

        ledger.transaction = transaction  # type: ignore[method-assign]
        return ledger

    asker.of = explaining  # type: ignore[method-assign]
    for name, ask in kinds.items():
        print(f"\n{name}")
        with suppress(UsageError):
            await ask(asker)


def _ask_endpoints(
    options: argparse.Namespace, facts: Facts, chance: random.Random
) -> tuple[dict[str, list[float]], Counter[str]]:
    """Times by endpoint, and how often one answered anything but 200."""
    took: dict[str, list[float]] = {path: [] for path in ENDPOINTS}
    odd: Counter[str] = Counter()
    headers = {
        "Authorization": f"Bearer {options.token}",
        "Tollkeeper-Platform": options.platform,
    }
    address = urlsplit(options.control)
    connection = HTTPConnection(address.hostname or "", address.port, timeout=HTTP_TIMEOUT_S)
    warm_up = list(ENDPOINTS) * HTTP_WARM_UP_ROUNDS
    order = list(ENDPOINTS) * options.requests
    chance.shuffle(order)
    for number, path in enumerate(warm_up + order):
        filled = _filled(path, facts, chance)
        started = time.perf_counter()
        connection.request("GET", filled, headers=headers)
        answer = connection.getresponse()
        answer.read()
        if number >= len(warm_up):
            took[path].append(time.perf_counter() - started)
        if answer.status != 200:
            odd[f"{path}: {answer.status}"] += 1
    connection.close()
    return took, odd


def _filled(path: str, facts: Facts, chance: random.Random) -> str:
    key, account = chance.choice(facts.keys)
    start_ms = chance.randrange(facts.from_ms, facts.until_ms - 7 * DAY_MS)
    values = {
        "account": str(account),
        "key": str(key),
        "call": chance.choice(facts.calls)[0],
        "from": _time(start_ms),
        "until": _time(start_ms + 7 * DAY_MS),
    }
    return re.sub(r"\{(\w+)\}", lambda match: values[match[1]], path)


def _time(moment_ms: int) -> str:
    return f"{datetime.fromtimestamp(moment_ms // 1000, UTC):%Y-%m-%dT%H:%M:%SZ}"


def _tell(took: dict[str, list[float]], odd: Counter[str]) -> int:
    """Print a table; 0 when all is as it should be."""
    print("| read | p50 ms | p99 ms | longest ms |\n| --- | --- | --- | --- |")
    slow = []
    for name, times in took.items():
        times.sort()
        p50, p99, longest = (
            1_000 * times[min(len(times) - 1, len(times) * part // 100)] for part in (50, 99, 100)
        )
        print(f"| {name} | {p50:.1f} | {p99:.1f} | {longest:.1f} |")
        if p99 >= P99_MS_MAX:
            slow.append(name)
    for answer, times_seen in sorted(odd.items()):
        print(f"not 200: {answer}, {times_seen} times")
    print(f"p99 of {P99_MS_MAX} ms and more: {', '.join(slow) or 'none'}")
    return 1 if slow or odd else 0


if __name__ == "__main__":
    sys.exit(main())
