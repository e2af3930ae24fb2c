"""The schema, its migrations, the queries that rely on it, and its partitions."""

from __future__ import annotations

import asyncio
import datetime as dt
import re
import sys
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest

import gateway.ledger
from gateway.embedded.postgres import POSTGRES_VERSION, binaries
from gateway.jobs.partitions import MONTHS_AHEAD, Partitions
from gateway.ledger import Ledger, LedgerUnavailable, MigrationError, migrate
from gateway.ledger.migrate import migrations
from gateway.ledger.periods import AccountChange
from gateway.ledger.queries import load_queries
from tests.support.settlements import new_call_id, settlement

PACKAGE = Path(gateway.ledger.__file__).parent


async def dumped(url: str) -> str:
    """The schema as statements in pg_dump's own order, without what differs by the day."""
    options = ["--schema-only", "--no-owner", "--exclude-table=migrations"]
    options += ["--exclude-table=settlements_2*"]
    child = await asyncio.create_subprocess_exec(
        binaries(POSTGRES_VERSION) / "pg_dump", *options, url, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await child.communicate()
    assert child.returncode == 0
    lines = output.decode().splitlines()
    return "\n".join(line for line in lines if not re.match(r"--|\\(un)?restrict|$", line))


async def query(url: str, text: str) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetch(text)
    finally:
        await connection.close()


async def test_the_migrations_make_the_schema_that_is_written_down(
    blank_postgres_url: str, postgres_url: str
) -> None:
    await query(blank_postgres_url, "SELECT 1")
    connection = await asyncpg.connect(blank_postgres_url)
    for part in ("schema.sql", "schema_people.sql", "schema_money.sql", "schema_queue.sql"):
        await connection.execute((PACKAGE / part).read_text())
    await connection.close()

    assert await dumped(blank_postgres_url) == await dumped(postgres_url)


def test_migrations_are_numbered_without_a_gap() -> None:
    names = sorted(path.stem for path in (PACKAGE / "migrations").glob("*.sql"))
    assert [name for name, _ in migrations().values()] == names
    assert [name[:5] for name in names] == [f"{number:04}_" for number in range(1, len(names) + 1)]


async def test_migrating_is_done_once_however_many_begin_it(blank_postgres_url: str) -> None:
    applied = await asyncio.gather(*(migrate(blank_postgres_url) for _ in range(4)))

    assert sorted(map(len, applied)) == [0, 0, 0, len(migrations())]
    assert await migrate(blank_postgres_url) == []


async def test_books_of_the_first_version_are_carried_over_with_all_their_partitions(
    blank_postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = dict([next(iter(migrations().items()))])
    monkeypatch.setattr(sys.modules[migrate.__module__], "migrations", lambda: first)
    await migrate(blank_postgres_url)
    monkeypatch.undo()
    call_id = new_call_id()
    connection = await asyncpg.connect(blank_postgres_url)
    await connection.execute(
        "INSERT INTO platforms (slug, name) VALUES ('demo', 'Demo');"
        "INSERT INTO plans (platform_id, slug, spec) VALUES (1, 'pro', '"
        '{"credits_microcredits": "100", "period": "month", "requests_per_minute": 7,'
        ' "requests_per_month": 0, "concurrency": 0}'
        "');"
        "INSERT INTO accounts (platform_id, name, plan_id) VALUES (1, 'alice', 1);"
        "INSERT INTO grants (platform_id, account_id, source, amount_microcredits, effective_at,"
        " priority, settled_microcredits) VALUES (1, 1, 'plan', 100, now(), 0, 30);"
        f"INSERT INTO settlements VALUES ('{call_id}', 1, 1, 5, 7, 9, now(), now(), 'completed',"
        " 200, '', '', 30, 30, 0);"
        "INSERT INTO ledger_entries (platform_id, account_id, grant_id, kind, microcredits,"
        " call_id, created_at) SELECT 1, 1, 1, kind, amount, call, settled_at FROM settlements,"
        f" (VALUES ('grant', 100, NULL), ('settle', -30, '{call_id}'::uuid))"
        " AS entry (kind, amount, call)"
    )

    assert await migrate(blank_postgres_url) == [name for name, _ in migrations().values()][1:]

    async with Ledger(blank_postgres_url) as ledger:
        state = await ledger.account_state(1)
        assert state is not None
        assert (state["rpm"], state["rules"], state["a:1"], state["s:1"]) == (7, "", 70, 30)
        found = await ledger.settlement_of(call_id)
        assert found is not None
        assert found.postings == ((1, 30),)
        assert await ledger.change_account(1, 1, AccountChange(plan_slug="pro")), (
            "its first period begins"
        )
        assert len(await ledger.grants(1)) == 2
        call = settlement(((1, 5),), session="s-1")
        await ledger.record_settlements([call])
        assert await ledger.audit_grants() == []
    without = await connection.fetch(
        "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'settlements'::regclass"
        " AND NOT EXISTS (SELECT FROM pg_indexes WHERE tablename = inhrelid::regclass::text"
        " AND indexdef LIKE '%session <> %')"
    )
    await connection.close()
    assert without == []


async def test_coarser_rollups_begin_as_the_sums_of_the_hours_there_are(
    blank_postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {version: text for version, text in migrations().items() if version < 8}
    monkeypatch.setattr(sys.modules[migrate.__module__], "migrations", lambda: before)
    await migrate(blank_postgres_url)
    monkeypatch.undo()
    await query(
        blank_postgres_url,
        "INSERT INTO usage_hourly SELECT platform, account,"
        " '2026-11-20 22:00Z'::timestamptz + hour * interval '1 hour', route, key, 3, 2, 70, 50, 1"
        " FROM generate_series(1, 2) platform, generate_series(1, 3) account,"
        " generate_series(0, 4) hour, generate_series(1, 2) route, generate_series(1, 2) key",
    )

    await migrate(blank_postgres_url)

    sums = {
        table: [tuple(row) for row in await query(blank_postgres_url, text)]
        for table, text in {
            name: f"SELECT count(*), sum(calls), sum(charged_microcredits) FROM {name}"
            for name in (
                "usage_routes_hourly",
                "usage_routes_daily",
                "usage_accounts_daily",
                "usage_parts_daily",
            )
        }.items()
    }
    assert sums == {
        "usage_routes_hourly": [(2 * 5 * 2, 360, 6_000)],
        "usage_routes_daily": [(2 * 2 * 2, 360, 6_000)],
        "usage_accounts_daily": [(2 * 2 * 3, 360, 6_000)],
        "usage_parts_daily": [(2 * 2 * 3 * (2 + 2), 2 * 360, 2 * 6_000)],
    }
    async with Ledger(blank_postgres_url) as ledger:
        assert await ledger.audit_rollups() == []


async def test_a_failing_migration_leaves_nothing_behind(
    blank_postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = {1: ("0001_broken", "CREATE TABLE half (); SELECT 1/0")}
    monkeypatch.setattr(sys.modules[migrate.__module__], "migrations", lambda: broken)
    with pytest.raises(Exception, match="division by zero"):
        await migrate(blank_postgres_url)
    monkeypatch.undo()
    assert await migrate(blank_postgres_url) == [name for name, _ in migrations().values()]


async def test_a_database_of_a_newer_version_is_left_alone(postgres_url: str) -> None:
    await query(postgres_url, "INSERT INTO migrations (version, name) VALUES (9999, '9999_later')")
    with pytest.raises(MigrationError, match=r"newer version of Tollkeeper \(9999_later\)"):
        await migrate(postgres_url)


async def test_without_a_server_it_is_said_in_our_words() -> None:
    with pytest.raises(LedgerUnavailable):
        await migrate("postgresql://nobody@127.0.0.1:1/none")


async def test_every_query_says_why_and_fits_the_schema(postgres_url: str) -> None:
    connection = await asyncpg.connect(postgres_url)
    try:
        for name, text in load_queries().items():
            assert re.fullmatch(r"[a-z]+(_[a-z]+)+", name)
            assert len(text.splitlines()[0]) > len("-- why"), name
            await connection.prepare(text)
    finally:
        await connection.close()


def test_every_query_is_asked_by_somebody() -> None:
    code = "\n".join(path.read_text() for path in PACKAGE.glob("*.py"))
    assert [name for name in load_queries() if f'"{name}"' not in code] == []


async def partition_of(url: str, call_id: str) -> str:
    (row,) = await query(
        url, f"SELECT tableoid::regclass::text FROM settlements WHERE call_id = '{call_id}'"
    )
    return str(row[0])


def months(count: int) -> list[tuple[int, int]]:
    """(year, month) of this month in UTC and the following."""
    today = dt.datetime.now(dt.UTC)
    return [divmod(today.year * 12 + today.month - 1 + ahead, 12) for ahead in range(count)]


async def test_calls_are_kept_by_the_month_of_their_id(ledger: Ledger, postgres_url: str) -> None:
    edges = [
        int(dt.datetime(year, month + 1, 1, tzinfo=dt.UTC).timestamp() * 1000)
        for year, month in months(MONTHS_AHEAD + 1)
    ]
    names = [f"settlements_{year}_{month + 1:02}" for year, month in months(MONTHS_AHEAD + 1)]
    firsts = [f"{edge:012x}70008{0:015x}" for edge in edges]
    lasts = [f"{edge - 1:012x}7fffbfffffffffffffff" for edge in edges[1:]]
    early = new_call_id(edges[0] - 1)

    await ledger.record_settlements([settlement(call_id=one) for one in [*firsts, *lasts, early]])

    assert [await partition_of(postgres_url, one) for one in firsts] == names
    assert [await partition_of(postgres_url, one) for one in lasts] == names[:-1]
    assert await partition_of(postgres_url, early) == "settlements_default"
    assert UUID(firsts[0]).version == 7


async def test_missing_partitions_are_made_once(ledger: Ledger, postgres_url: str) -> None:
    year, month = months(MONTHS_AHEAD + 1)[-1]
    name = f"settlements_{year}_{month + 1:02}"
    assert await Partitions(ledger).ensure() == []
    await query(postgres_url, f"DROP TABLE {name}")

    made = await asyncio.gather(Partitions(ledger).ensure(), Partitions(ledger).ensure())

    assert sorted(made) == [[], [name]]


async def test_a_month_that_began_without_a_partition_stays_where_it_is(
    ledger: Ledger, postgres_url: str
) -> None:
    (this_year, this_month), (year, month) = months(2)
    await query(postgres_url, f"DROP TABLE settlements_{this_year}_{this_month + 1:02}")
    await query(postgres_url, f"DROP TABLE settlements_{year}_{month + 1:02}")
    call = settlement()
    await ledger.record_settlements([call])

    assert await Partitions(ledger).ensure() == [f"settlements_{year}_{month + 1:02}"]
    assert await partition_of(postgres_url, call.call_id) == "settlements_default"
