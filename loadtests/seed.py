"""Fills a database with accounts, keys and settled calls, as if it had been in use for a month.

All in one transaction, by COPY; the books agree with themselves afterwards (`tollkeeper audit` is
clean), and reads.py has something to read. The keys are none that anybody has.

    python loadtests/seed.py postgresql://... --settlements 10000000
    python loadtests/seed.py --config config.toml --data-dir .tollkeeper
"""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import asyncpg
from seed_calls import Account, Calls, Chunk, SoldRoute, columns, moment

from gateway.cli.session import find_servers, read_config
from gateway.ledger import Ledger, migrate
from gateway.operations.errors import OperationError
from policies.catalog import MeterSpec, Plan, Platform, Price, Route, Source
from policies.periods import months_after_ms
from policies.spans import DAY_MS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence

    from asyncpg import Connection, Record

LOTS = ("plan", "pack")
LOT_MICROCREDITS = 10**15
PROGRESS_CHUNKS = 10
ROLLUPS = ("usage_hourly", "usage_routes_hourly", "usage_parts_daily")


class Size(NamedTuple):
    """How much of everything."""

    accounts: int = 1_000
    keys: int = 100_000
    settlements: int = 10_000_000
    routes: int = 12
    days: int = 30


def main() -> int:
    """Fill it and print how fast; the exit code is 0 when all is there."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("url", nargs="?", help="the database; without it that of the config")
    parser.add_argument("--config", type=Path, help="a config, for its database")
    parser.add_argument("--data-dir", type=Path, default=Path(".tollkeeper"))
    parser.add_argument("--platform", default="scale", help="slug of a new platform (scale)")
    parser.add_argument("--seed", type=int, default=1, help="of chance (1)")
    plain = Size()
    for name, value in plain._asdict().items():
        parser.add_argument(f"--{name}", type=int, default=value, help=f"how many ({value})")
    options = parser.parse_args()
    size = Size(*(getattr(options, name) for name in Size._fields))
    if min(size) < 1 or size.keys < size.accounts:
        parser.error("there must be one of each at least, and a key for each account")
    try:
        done = asyncio.run(_run(options, size))
    except (OperationError, asyncpg.PostgresError) as problem:
        print(problem, file=sys.stderr)
        return 1
    print(json.dumps(done))
    return 0


async def _run(options: argparse.Namespace, size: Size) -> dict[str, object]:
    async with AsyncExitStack() as stack:
        url = options.url
        if url is None:
            config = read_config(options.config)
            found = await stack.enter_async_context(
                find_servers(config, options.data_dir, redis=False)
            )
            url = found.postgres_url
        await migrate(url)
        return await seed(url, options.platform, size, options.seed)


async def seed(url: str, slug: str, size: Size, chance_seed: int) -> dict[str, object]:
    """Fill the database; answers what was made and the rate.

    Raises: OperationError when it can't be, or the platform is there already.
    """
    started = time.monotonic()
    async with Ledger(url) as ledger:
        if await ledger.find_platform(slug) is not None:
            raise OperationError(f'there is a platform "{slug}" already: name a new one')
        platform_id, routes = await _sell(ledger, slug, size.routes)
    until_ms = time.time_ns() // 1_000_000
    from_ms = until_ms - size.days * DAY_MS
    connection = await asyncpg.connect(url)
    try:
        if not await connection.fetchval(
            "SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user"
        ):
            raise OperationError("COPY needs a role that row-level security does not bind")
        async with connection.transaction():
            accounts = await _accounts(connection, platform_id, size, (from_ms, until_ms))
            await _months(connection, from_ms)
            calls = Calls(
                platform_id,
                accounts,
                routes,
                count=size.settlements,
                from_ms=from_ms,
                until_ms=until_ms,
                seed=chance_seed,
            )
            await _write(connection, calls, size.settlements)
            await _sum_up(connection, platform_id, calls)
        print("vacuum and analyze", flush=True)
        await connection.execute("VACUUM (ANALYZE)")
    finally:
        await connection.close()
    seconds = time.monotonic() - started
    return {
        "platform": slug,
        "platform_id": platform_id,
        **size._asdict(),
        "seconds": round(seconds, 1),
        "settlements_per_s": round(size.settlements / seconds),
    }


async def _sell(ledger: Ledger, slug: str, count: int) -> tuple[int, list[SoldRoute]]:
    """A platform with a plan and routes of which each has a price."""
    tokens = MeterSpec(
        "token", (Source("response.json", "/usage/total_tokens"),), 10_000_000, 4_000
    )
    routes = [
        Route(
            f"route-{number}",
            ("POST",),
            f"/v1/route-{number}",
            "http://127.0.0.1:9",
            Price(meters=(tokens,)),
        )
        for number in range(count)
    ]
    plan = Plan("scale", LOT_MICROCREDITS)
    report = await ledger.apply_catalog(Platform(slug, slug, None), [plan], routes)
    stored = await ledger.routes(report.platform_id)
    found = [(row.route.id, row.route.price) for row in stored]
    return report.platform_id, [SoldRoute(id_, price.version) for id_, price in found if price]


async def _accounts(
    connection: Connection[Record], platform_id: int, size: Size, span_ms: tuple[int, int]
) -> list[Account]:
    """Accounts with keys, lots and an audit log of all that."""
    from_ms, until_ms = span_ms
    plan_id = await connection.fetchval("SELECT id FROM plans WHERE platform_id = $1", platform_id)
    lines = []
    for number in range(size.accounts):
        start_ms = until_ms - (number % 27) * DAY_MS
        end_ms = months_after_ms(start_ms, 1)
        lines.append(
            f"{platform_id}\tcustomer-{number:06}\t{plan_id}\t{moment(from_ms)}\t"
            f"{moment(start_ms)}\t{moment(start_ms)}\t{moment(end_ms)}"
        )
    names = ("platform_id", "name", "plan_id", "created_at")
    periods = ("period_anchor_at", "period_start_at", "period_end_at")
    await _copy(connection, "accounts", lines, (*names, *periods))
    ids = await _ids(connection, "accounts", platform_id)
    await _keys(connection, platform_id, ids, size.keys, from_ms)
    for source in LOTS:
        lines = [
            f"{platform_id}\t{id_}\t{source}\t{LOT_MICROCREDITS}\t{moment(from_ms)}\t100\t"
            f"{moment(from_ms)}"
            for id_ in ids
        ]
        names = ("platform_id", "account_id", "source", "amount_microcredits", "effective_at")
        await _copy(connection, "grants", lines, (*names, "priority", "created_at"))
    await connection.execute(
        "INSERT INTO ledger_entries"
        " (platform_id, account_id, grant_id, kind, microcredits, created_at)"
        " SELECT platform_id, account_id, id, 'grant', amount_microcredits, created_at"
        " FROM grants WHERE platform_id = $1 ORDER BY id",
        platform_id,
    )
    keys = await _owned(connection, "api_keys", platform_id)
    lots = await _owned(connection, "grants", platform_id)
    return [Account(id_, keys[id_], lots[id_]) for id_ in ids]


async def _keys(
    connection: Connection[Record], platform_id: int, accounts: list[int], count: int, from_ms: int
) -> None:
    """Keys of nobody, and an entry of the audit log for each, as if somebody had made them."""
    lines = (
        f"{platform_id}\t{accounts[number % len(accounts)]}\tkey {number}\t"
        f"tk_live_{secrets.token_hex(3)}\t{secrets.token_hex(2)}\t1\t\\\\x{secrets.token_hex(32)}\t"
        f"{moment(from_ms + number)}"
        for number in range(count)
    )
    names = ("platform_id", "account_id", "name", "prefix", "last4", "pepper_version", "digest")
    await _copy(connection, "api_keys", lines, (*names, "created_at"))
    await connection.execute(
        "INSERT INTO audit_log (platform_id, account_id, at, actor, address, request_id, action,"
        " resource, resource_id, before, after)"
        " SELECT platform_id, account_id, created_at, 'token:' || id % 20, '192.0.2.7',"
        " 'seed-' || id, 'create', 'key', id::text, '{}', jsonb_build_object('name', name)"
        " FROM api_keys WHERE platform_id = $1 ORDER BY id",
        platform_id,
    )


async def _months(connection: Connection[Record], from_ms: int) -> None:
    """Partitions of the months before this one, which are made ahead of time in a real life."""
    await connection.execute(
        "DO $$ DECLARE month timestamp; BEGIN"
        f" FOR month IN SELECT generate_series(date_trunc('month', from_ms({from_ms})"
        " AT TIME ZONE 'UTC'), date_trunc('month', now() AT TIME ZONE 'UTC'), '1 month') LOOP"
        " BEGIN EXECUTE format('CREATE TABLE IF NOT EXISTS %I PARTITION OF settlements"
        " FOR VALUES FROM (%L) TO (%L)', 'settlements_' || to_char(month, 'YYYY_MM'),"
        " first_call_id(month), first_call_id(month + interval '1 month'));"
        " EXCEPTION WHEN check_violation THEN"
        " RAISE WARNING 'calls of % stay in settlements_default', month; END;"
        " END LOOP; END $$"
    )


async def _write(connection: Connection[Record], calls: Calls, count: int) -> None:
    """Make the next chunk while Postgres takes this one."""
    chunks = calls.chunks()
    started, written = time.monotonic(), 0
    chunk: Chunk | None = next(chunks)
    for number in range(sys.maxsize):
        if chunk is None:
            return
        _, following = await asyncio.gather(
            _copy_chunk(connection, chunk), asyncio.to_thread(next, chunks, None)
        )
        written += chunk.calls
        if number % PROGRESS_CHUNKS == 0 or following is None:
            rate = round(written / (time.monotonic() - started))
            print(f"{written:>12,} of {count:,} settlements, {rate:,} per second", flush=True)
        chunk = following


async def _copy_chunk(connection: Connection[Record], chunk: Chunk) -> None:
    entry = ("platform_id", "account_id", "grant_id", "call_id", "kind", "microcredits")
    await _copy_lines(connection, "settlements", chunk.settlements)
    await _copy_lines(connection, "ledger_entries", chunk.ledger_entries, (*entry, "created_at"))
    for table in ROLLUPS:
        await _copy_lines(connection, table, getattr(chunk, table))


async def _sum_up(connection: Connection[Record], platform_id: int, calls: Calls) -> None:
    """What is known when all calls are there: the sums of lots and of days."""
    for table, sums in (
        ("usage_accounts_daily", calls.accounts_daily),
        ("usage_routes_daily", calls.routes_daily),
    ):
        lines = (
            f"{platform_id}\t{moment(day * DAY_MS)}\t{id_}\t{columns(total)}"
            for (day, id_), total in sums.items()
        )
        await _copy(connection, table, lines)
    await connection.execute("CREATE TEMPORARY TABLE settled (id bigint, sum bigint)")
    lots = (f"{lot}\t{settled}" for lot, settled in calls.settled_of_lot.items())
    await _copy(connection, "settled", lots)
    await connection.execute(
        "UPDATE grants SET settled_microcredits = settled.sum FROM settled"
        " WHERE grants.id = settled.id"
    )


async def _ids(connection: Connection[Record], table: str, platform_id: int) -> list[int]:
    found = await connection.fetch(
        f"SELECT id FROM {table} WHERE platform_id = $1 ORDER BY id", platform_id
    )
    return [row["id"] for row in found]


async def _owned(
    connection: Connection[Record], table: str, platform_id: int
) -> dict[int, Sequence[int]]:
    found = await connection.fetch(
        f"SELECT account_id, array_agg(id ORDER BY id) AS ids FROM {table}"
        " WHERE platform_id = $1 GROUP BY account_id",
        platform_id,
    )
    return {row["account_id"]: row["ids"] for row in found}


async def _copy(
    connection: Connection[Record],
    table: str,
    lines: Iterable[str],
    names: Sequence[str] | None = None,
) -> None:
    await _copy_lines(connection, table, "".join(f"{line}\n" for line in lines).encode(), names)


async def _copy_lines(
    connection: Connection[Record], table: str, text: bytes, names: Sequence[str] | None = None
) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield text

    await connection.copy_to_table(table, source=pieces(), columns=names, format="text")


if __name__ == "__main__":
    sys.exit(main())
