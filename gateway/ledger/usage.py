"""What was used over a time, from the roll-ups alone: no question here reads a settlement.

Five tables of sums are kept by the statement that inserts settlements. Each question goes to the
coarsest of them that can answer it:

    usage_routes_daily     platform, day, route            what a platform sold, by day or month
    usage_routes_hourly    platform, hour, route           the same by the hour
    usage_accounts_daily   platform, day, account          what accounts used, by day or month
    usage_parts_daily      account, day, route or key      the same of one, by its routes or keys
    usage_hourly           account, hour, route and key    everything else, of one account

An account with many keys has nearly as many rows in the last one as it made calls: `usage_size`
says how many before they are read.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from gateway.ledger.database import Database

if TYPE_CHECKING:
    from collections.abc import Collection


class UsageQuery(NamedTuple):
    """Usage of the whole hours, days or months (`unit`, UTC) from `from_ms` to before `until_ms`.

    Both times are where such units begin. The booleans say what is told apart, the ids what is
    asked for alone.
    """

    unit: str  # hour | day | month
    from_ms: int
    until_ms: int
    by_account: bool = False
    by_route: bool = False
    by_key: bool = False
    account_id: int | None = None
    route_id: int | None = None
    key_id: int | None = None


class UsagePoint(NamedTuple):
    """The sums of one hour, day or month. None: not told apart."""

    since_ms: int
    account_id: int | None
    route_id: int | None
    key_id: int | None
    calls: int
    calls_completed: int
    held_microcredits: int
    charged_microcredits: int
    uncollected_microcredits: int


class UsageTotal(NamedTuple):
    """Sums over all of a time."""

    calls: int
    charged_microcredits: int


class UsageSource(Enum):
    """Which sums answer a question, by the name of the query."""

    ACCOUNT_HOURS = "usage_account"
    ACCOUNT_DAYS = "usage_account_days"
    ACCOUNT_PARTS = "usage_account_parts"
    ACCOUNTS_DAYS = "usage_accounts"
    ROUTES_HOURS = "usage_routes_hours"
    ROUTES_DAYS = "usage_routes_days"


def usage_source(query: UsageQuery) -> UsageSource | None:
    """The coarsest sums that answer a question; None: only those of one account at a time do."""
    routes = query.by_route or query.route_id is not None
    keys = query.by_key or query.key_id is not None
    if query.account_id is not None:
        if query.unit == "hour" or (routes and keys):
            return UsageSource.ACCOUNT_HOURS
        return UsageSource.ACCOUNT_PARTS if routes or keys else UsageSource.ACCOUNT_DAYS
    if keys:
        return None
    if query.by_account:
        return None if query.unit == "hour" or routes else UsageSource.ACCOUNTS_DAYS
    return UsageSource.ROUTES_HOURS if query.unit == "hour" else UsageSource.ROUTES_DAYS


class Usage(Database):
    """Sums over calls."""

    async def usage_series(
        self, platform_id: int, query: UsageQuery, source: UsageSource, *, limit: int
    ) -> list[UsagePoint]:
        """What there is of a platform, in the order of time; nothing for a time without calls.

        `source` is what `usage_source` says.
        """
        common = (platform_id, query.from_ms, query.until_ms, limit, query.unit)
        routes = (query.by_route, query.route_id)
        more: tuple[object, ...] = {
            UsageSource.ACCOUNT_HOURS: (
                query.by_route,
                query.by_key,
                query.route_id,
                query.key_id,
                query.account_id,
            ),
            UsageSource.ACCOUNT_DAYS: (query.account_id,),
            UsageSource.ACCOUNT_PARTS: (
                query.by_key or query.key_id is not None,
                query.route_id if query.key_id is None else query.key_id,
                query.by_key or query.by_route,
                query.account_id,
            ),
            UsageSource.ACCOUNTS_DAYS: (),
            UsageSource.ROUTES_HOURS: routes,
            UsageSource.ROUTES_DAYS: routes,
        }[source]
        # Thousands of them; the queries have the columns in this order.
        return list(map(UsagePoint._make, await self._session.all(source.value, *common, *more)))

    async def usage_size(self, platform_id: int, query: UsageQuery, *, limit: int) -> int:
        """How many sums UsageSource.ACCOUNT_HOURS has to read; not counted any further."""
        account = (platform_id, query.account_id)
        return int(
            await self._session.value(
                "usage_account_size", *account, query.from_ms, query.until_ms, limit
            )
        )

    async def account_names(self, platform_id: int, ids: Collection[int]) -> dict[int, str]:
        """Names of the platform's accounts of these ids."""
        found = await self._session.all("account_names", platform_id, list(ids))
        return {row["id"]: row["name"] for row in found}

    async def route_names(self, platform_id: int) -> dict[int, str]:
        """Names of all the platform's routes, those out of service too."""
        found = await self._session.all("route_names", platform_id)
        return {row["id"]: row["name"] for row in found}

    async def usage_of_account(
        self, platform_id: int, account_id: int, since_ms: int, now_ms: int
    ) -> UsageTotal:
        """What an account used since a moment, whose hour counts as a whole, until now."""
        record = await self._session.one(
            "usage_total_account", platform_id, account_id, since_ms, now_ms
        )
        return UsageTotal(**record) if record else UsageTotal(0, 0)

    async def usage_of_platform(self, platform_id: int, since_ms: int) -> UsageTotal:
        """What a platform sold since the begin of a day."""
        record = await self._session.one("usage_total_platform", platform_id, since_ms)
        return UsageTotal(**record) if record else UsageTotal(0, 0)

    async def account_period(self, platform_id: int, account_id: int) -> tuple[int, int] | None:
        """Start and end of an account's billing period, 0 and 0 if it has none.

        None without such an account here. The period may be over and not renewed yet.
        """
        record = await self._session.one("account_period", platform_id, account_id)
        return (record["start_ms"], record["end_ms"]) if record else None
