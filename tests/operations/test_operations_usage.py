"""Usage is exact, comes from the coarsest sums there are, and is projected in integers."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
import pytest_asyncio

from gateway.ledger import Ledger, Scope, Tenancy
from gateway.ledger.usage import UsageQuery, UsageSource, usage_source
from gateway.operations.errors import UsageError
from gateway.operations.usage import SERIES_POINTS_MAX, project_usage, usage_series
from policies.catalog import Plan, Platform
from tests.support.settlements import new_call_id, settlement

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


def ms(text: str) -> int:
    return int(dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC).timestamp() * 1000)


START_MS = ms("2026-10-31T22:00")


class Sold:
    """Two platforms; the first has two accounts of two keys each, and calls over three days."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger

    async def prepare(self) -> None:
        self.platform_id = await self._platform("one")
        self.other_id = await self._platform("two")
        self.accounts = [await self._account(name) for name in ("alice", "bob")]
        self.keys = {
            account: [await self._key(account, number) for number in range(2)]
            for account in self.accounts
        }
        self.calls = [
            settlement(
                call_id=new_call_id(START_MS),
                platform_id=self.platform_id,
                account_id=account,
                key_id=key,
                route_id=route,
                settled_ms=START_MS + 7 * HOUR_MS * step,
                charged_microcredits=10 * step + route,
                ending="completed" if step % 2 else "upstream_error",
            )
            for account in self.accounts
            for key in self.keys[account]
            for route in (1, 2)
            for step in range(8)
        ]
        foreign = settlement(platform_id=self.other_id, account_id=99, settled_ms=START_MS)
        await self.ledger.record_settlements([*self.calls, foreign])

    async def _platform(self, slug: str) -> int:
        plans = [Plan("free", 0, period="month")]
        report = await self.ledger.apply_catalog(Platform(slug, slug, None), plans, [])
        return report.platform_id

    async def _account(self, name: str) -> int:
        account_id = await self.ledger.create_account(self.platform_id, name)
        assert account_id is not None
        return account_id

    async def _key(self, account_id: int, number: int) -> int:
        key_id = await self.ledger.create_key(
            account_id,
            name="k",
            prefix="tk",
            last4="0000",
            pepper_version=1,
            digest=f"{account_id} {number}".encode(),
        )
        assert key_id is not None
        return key_id

    def expected(self, unit: str, by: list[str], **only: int) -> dict[tuple[Any, ...], list[int]]:
        """The sums over the calls themselves."""
        sums: dict[tuple[Any, ...], list[int]] = {}
        for call in self.calls:
            if any(getattr(call, name) != value for name, value in only.items()):
                continue
            parts = [getattr(call, f"{part}_id") if part in by else None for part in PARTS]
            total = sums.setdefault((since(unit, call.settled_ms), *parts), [0, 0, 0, 0])
            for place, amount in enumerate(
                (1, call.ending == "completed", call.held_microcredits, call.charged_microcredits)
            ):
                total[place] += amount
        return sums


PARTS = ("account", "route", "key")


def since(unit: str, moment_ms: int) -> int:
    moment = dt.datetime.fromtimestamp(moment_ms // 1000, dt.UTC)
    start = moment.replace(minute=0, second=0, microsecond=0)
    if unit != "hour":
        start = start.replace(hour=0)
    if unit == "month":
        start = start.replace(day=1)
    return int(start.timestamp() * 1000)


@pytest_asyncio.fixture
async def sold(postgres_url: str) -> AsyncIterator[Sold]:
    async with Ledger(postgres_url) as ledger:
        one = Sold(ledger)
        await one.prepare()
        yield one


@pytest.mark.parametrize("unit", ["hour", "day", "month"])
@pytest.mark.parametrize(
    ("by", "only"),
    [
        ([], []),
        (["route"], []),
        ([], ["route"]),
        (["account"], []),
        ([], ["account"]),
        (["account"], ["account"]),
        (["route"], ["account"]),
        (["key"], ["account"]),
        (["account", "route", "key"], ["account"]),
        (["key"], ["account", "route"]),
        ([], ["key"]),
        (["route", "key"], ["key"]),
    ],
)
async def test_series_are_the_sums_of_the_calls(
    sold: Sold, unit: str, by: list[str], only: list[str]
) -> None:
    values = {"account": sold.accounts[1], "route": 2, "key": sold.keys[sold.accounts[1]][0]}
    asked = {f"{name}_id": values[name] for name in only}

    async def series() -> dict[tuple[Any, ...], list[int]]:
        found = await usage_series(
            sold.ledger,
            sold.platform_id,
            unit=unit,
            from_ms=START_MS,
            until_ms=START_MS + 50 * HOUR_MS,
            by=by,
            **asked,
        )
        return {
            (p.since_ms, p.account_id if "account" in by else None, p.route_id, p.key_id): [
                p.calls,
                p.calls_completed,
                p.held_microcredits,
                p.charged_microcredits,
            ]
            for p in found.points
        }

    if by == ["account"] and not only and unit == "hour":
        with pytest.raises(UsageError, match="one account at a time"):
            await series()
        return
    expected = sold.expected(unit, by, **asked)
    assert await series() == dict(sorted(expected.items(), key=str))


async def test_times_are_widened_to_whole_units(sold: Sold) -> None:
    async def asked(unit: str, first: str, last: str) -> tuple[int, int, int]:
        found = await usage_series(
            sold.ledger, sold.platform_id, unit=unit, from_ms=ms(first), until_ms=ms(last)
        )
        return found.from_ms, found.until_ms, sum(point.calls for point in found.points)

    assert await asked("hour", "2026-10-31T22:59", "2026-10-31T23:00") == (
        ms("2026-10-31T22:00"),
        ms("2026-10-31T23:00"),
        8,
    )
    assert await asked("day", "2026-10-31T05:00", "2026-11-01T00:00:00.001") == (
        ms("2026-10-31T00:00"),
        ms("2026-11-02T00:00"),
        32,
    )
    assert await asked("month", "2026-11-03T05:00", "2026-11-30T05:00") == (
        ms("2026-11-01T00:00"),
        ms("2026-12-01T00:00"),
        56,
    )


@pytest.mark.parametrize(
    ("query", "source"),
    [
        ({}, UsageSource.ROUTES_DAYS),
        ({"unit": "month", "by_route": True}, UsageSource.ROUTES_DAYS),
        ({"unit": "hour", "route_id": 1}, UsageSource.ROUTES_HOURS),
        ({"by_account": True}, UsageSource.ACCOUNTS_DAYS),
        ({"account_id": 1}, UsageSource.ACCOUNT_DAYS),
        ({"account_id": 1, "unit": "hour"}, UsageSource.ACCOUNT_HOURS),
        ({"account_id": 1, "by_route": True}, UsageSource.ACCOUNT_PARTS),
        ({"account_id": 1, "key_id": 1}, UsageSource.ACCOUNT_PARTS),
        ({"account_id": 1, "key_id": 1, "by_route": True}, UsageSource.ACCOUNT_HOURS),
        ({"account_id": 1, "route_id": 1, "by_key": True}, UsageSource.ACCOUNT_HOURS),
        ({"by_key": True}, None),
        ({"by_account": True, "unit": "hour"}, None),
        ({"by_account": True, "by_route": True}, None),
        ({"by_account": True, "route_id": 1}, None),
    ],
)
def test_the_coarsest_sums_answer(query: dict[str, Any], source: UsageSource | None) -> None:
    plain = UsageQuery("day", 0, 1)
    assert usage_source(plain._replace(**query)) == source


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"by": ["key"]}, "one account at a time"),
        ({"by": ["account", "route"]}, "one account at a time"),
        ({"by": ["colour"]}, "not told apart"),
        ({"unit": "week"}, "hour, day, month"),
        ({"until_ms": 0}, "ends before it begins"),
        ({"from_ms": -1}, "1970 to 9999"),
        ({"until_ms": 2**53}, "1970 to 9999"),
    ],
)
async def test_what_can_not_be_told_is_refused_in_words(
    postgres_url: str, asked: dict[str, Any], why: str
) -> None:
    plain = {"unit": "day", "from_ms": 0, "until_ms": 1}
    async with Ledger(postgres_url) as ledger:
        with pytest.raises(UsageError, match=why):
            await usage_series(ledger, 1, **{**plain, **asked})


async def test_more_points_than_a_series_may_have_are_refused(postgres_url: str) -> None:
    connection = await asyncpg.connect(postgres_url)
    await connection.execute(
        "INSERT INTO usage_routes_hourly SELECT 1, 'epoch'::timestamptz + n * interval '1 hour',"
        " 1, 1, 1, 0, 0, 0 FROM generate_series(1, $1::bigint) n",
        SERIES_POINTS_MAX + 1,
    )
    await connection.close()
    end_ms = (SERIES_POINTS_MAX + 2) * HOUR_MS
    async with Ledger(postgres_url) as ledger:
        with pytest.raises(UsageError, match="more than 5000 points"):
            await usage_series(ledger, 1, unit="hour", from_ms=0, until_ms=end_ms)
        found = await usage_series(ledger, 1, unit="hour", from_ms=0, until_ms=end_ms - HOUR_MS)
        assert len(found.points) == SERIES_POINTS_MAX


async def test_hours_of_an_account_are_told_as_long_as_few_sums_make_them(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.operations.usage.FINE_SUMS_MAX", 20)
    connection = await asyncpg.connect(postgres_url)
    await connection.execute(
        "INSERT INTO usage_hourly SELECT 1, 1, 'epoch'::timestamptz + n * interval '1 hour',"
        " 1, key, 1, 1, 0, 0, 0 FROM generate_series(0, 20) n, generate_series(1, 2) key"
    )
    await connection.close()
    async with Ledger(postgres_url) as ledger:

        async def calls(hours: int, **asked: Any) -> int:
            found = await usage_series(
                ledger, 1, from_ms=0, until_ms=hours * HOUR_MS, account_id=1, **asked
            )
            return sum(point.calls for point in found.points)

        assert await calls(10, unit="hour") == 20
        with pytest.raises(UsageError, match="more than 20 routes and keys by the hour"):
            await calls(11, unit="hour", route_id=404)
        with pytest.raises(UsageError, match="ask for a shorter time"):
            await calls(11, unit="month", by=["route", "key"])


async def test_a_tenant_sees_its_own_usage_only(sold: Sold, postgres_url: str) -> None:
    alice, bob = sold.accounts
    time = {"from_ms": START_MS, "until_ms": START_MS + 50 * HOUR_MS}

    async def calls(ledger: Ledger, platform_id: int, unit: str = "day", **asked: Any) -> int:
        found = await usage_series(ledger, platform_id, unit=unit, **time, **asked)
        return sum(point.calls for point in found.points)

    async with Tenancy(postgres_url) as tenancy:
        owner = tenancy.ledger(Scope(sold.platform_id, None, "token:1"))
        member = tenancy.ledger(Scope(sold.platform_id, alice, "key:1"))
        foreign = tenancy.ledger(Scope(sold.other_id, None, "token:2"))
        for unit in ("hour", "day"):
            assert await calls(owner, sold.platform_id, unit) == 64
            assert await calls(member, sold.platform_id, unit) == 32, "its own, unasked"
            assert await calls(member, sold.platform_id, unit, account_id=bob) == 0
            assert await calls(foreign, sold.platform_id, unit) == 0
            assert await calls(foreign, sold.other_id, unit) == 1
            assert await calls(foreign, sold.other_id, unit, account_id=alice) == 0
        assert await calls(owner, sold.platform_id, by=["account"]) == 64
        named = await usage_series(owner, sold.platform_id, unit="day", **time, by=["account"])
        assert named.account_names == {alice: "alice", bob: "bob"}
        assert await calls(member, sold.platform_id, by=["key"]) == 32
        assert await calls(member, sold.platform_id, key_id=sold.keys[bob][0]) == 0
        assert await calls(foreign, sold.other_id, key_id=sold.keys[bob][0]) == 0

        now_ms = START_MS + 3 * DAY_MS
        own = await project_usage(member, sold.platform_id, now_ms=now_ms)
        assert own is not None
        assert own.calls == 28, "the account's, not the platform's"
        assert (
            await project_usage(member, sold.platform_id, now_ms=now_ms, account_id=bob)
        ) is None
        assert (
            await project_usage(foreign, sold.other_id, now_ms=now_ms, account_id=alice)
        ) is None


async def test_a_projection_is_linear_over_the_calendar_month(sold: Sold) -> None:
    now_ms = ms("2026-11-04T00:00")
    charged = sum(c.charged_microcredits for c in sold.calls if c.settled_ms >= ms("2026-11-01"))
    assert charged > 0

    found = await project_usage(sold.ledger, sold.platform_id, now_ms=now_ms)

    assert found is not None
    assert (found.basis, found.from_ms, found.until_ms) == (
        "calendar_month",
        ms("2026-11-01"),
        ms("2026-12-01"),
    )
    assert (found.calls, found.charged_microcredits) == (56, charged)
    assert found.projected_calls == 56 + 56 * 27 // 3
    assert found.projected_microcredits == charged + charged * 27 // 3
    for account in sold.accounts:
        one = await project_usage(sold.ledger, sold.platform_id, now_ms=now_ms, account_id=account)
        assert one is not None
        assert (one.basis, one.calls) == ("calendar_month", 28)


async def test_a_projection_follows_the_accounts_own_period(sold: Sold, postgres_url: str) -> None:
    alice = sold.accounts[0]
    start_ms, end_ms = START_MS + 10 * HOUR_MS + 20 * 60_000, START_MS + 40 * HOUR_MS
    connection = await asyncpg.connect(postgres_url)
    await connection.execute(
        "UPDATE accounts SET period_anchor_at = from_ms($2), period_start_at = from_ms($2),"
        " period_end_at = from_ms($3) WHERE id = $1",
        alice,
        start_ms,
        end_ms,
    )
    await connection.close()

    async def projected(now_ms: int) -> Any:
        return await project_usage(sold.ledger, sold.platform_id, now_ms=now_ms, account_id=alice)

    counted_ms = START_MS + 10 * HOUR_MS
    mine = [c for c in sold.calls if c.account_id == alice and c.settled_ms >= counted_ms]
    found = await projected(START_MS + 36 * HOUR_MS)
    used = sum(c.charged_microcredits for c in mine if c.settled_ms < START_MS + 36 * HOUR_MS)
    assert (found.basis, found.from_ms, found.until_ms) == ("billing_period", start_ms, end_ms)
    assert found.counted_from_ms == counted_ms
    later = sum(c.charged_microcredits for c in mine) - used
    assert found.charged_microcredits == used + later, "all that is there: now is now"
    total = used + later
    assert found.projected_microcredits == total + total * 4 // 26

    begun = await projected(start_ms + 60_000)
    assert (begun.basis, begun.projected_microcredits) == ("billing_period", None)
    over = await projected(end_ms)
    assert over.basis == "calendar_month"
    assert (await projected(start_ms - 1)).basis == "calendar_month"


async def test_at_the_first_moment_of_a_month_nothing_is_projected(sold: Sold) -> None:
    first = await project_usage(sold.ledger, sold.platform_id, now_ms=ms("2026-12-01"))
    assert first is not None
    assert (first.calls, first.projected_calls, first.projected_microcredits) == (0, None, None)
    soon = await project_usage(sold.ledger, sold.platform_id, now_ms=ms("2026-12-01T01:00"))
    assert soon is not None
    assert soon.projected_microcredits == 0
    assert await project_usage(sold.ledger, sold.platform_id, now_ms=0, account_id=404) is None
