"""Pages of long lists: calls, accounts, lots. What a page costs is bounded, whatever is asked for.

A page looks along an index, at no more than SCAN_ROWS_MAX rows, and leaves out those that do not
match. So it may come back short, or empty, with a place to go on from: a list is over when there is
none. Who goes on does so behind a row, not after a number of rows: what comes meanwhile shifts
nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from gateway.ledger.database import Database, rows
from gateway.ledger.rows import AccountRow, GrantRow, SettlementRow

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from asyncpg import Record

R = TypeVar("R")
K = TypeVar("K")

# Rows of one account lie far apart: each is a page of the disk, 5 µs when the system has read it.
SCAN_ROWS_MAX = 1_000
FIRST_CALL_ID = "0" * 32
# Behind every id and every time of a call, and of the number of every row.
ID_TIME_MS_MAX = 2**48 - 1
ROW_ID_MAX = 2**63 - 1


class Page(NamedTuple, Generic[R, K]):
    """Some rows of a list, and behind what the next page begins; None: these were the last."""

    rows: list[R]
    after: K | None


class CallFilter(NamedTuple):
    """Which calls; None does not ask. `call_id` is 32 hex digits.

    `from_ms` and `until_ms` (which is not in the time any more) are about when a call came in, the
    time that its id begins with.
    """

    account_id: int | None = None
    key_id: int | None = None
    route_id: int | None = None
    ending: str | None = None
    status: int | None = None
    session: str | None = None
    from_ms: int | None = None
    until_ms: int | None = None
    call_id: str | None = None


class SettledPlace(NamedTuple):
    """A place in the order in which calls were settled: behind this one."""

    settled_ms: int
    call_id: str = FIRST_CALL_ID


ALL_CALLS = CallFilter()


def first_call_id(moment_ms: int) -> str:
    """The least id that a call of a time can have; ids begin with 48 bits of it."""
    return f"{min(max(moment_ms, 0), ID_TIME_MS_MAX):012x}".ljust(32, "0")


class Searching(Database):
    """Lists for people."""

    async def search_calls(
        self,
        platform_id: int,
        wanted: CallFilter = ALL_CALLS,
        *,
        after: str | None = None,
        limit: int,
        scan_rows_max: int = SCAN_ROWS_MAX,
    ) -> Page[SettlementRow, str]:
        """A platform's settled calls, newest first by their ids; `after` is the last one's.

        Of a time, only the partitions are read that can hold its calls.
        """
        account_id = await self._account_of(platform_id, wanted)
        if account_id == 0:
            return Page([], None)
        first, end = _id_range(wanted)
        query = "settlement_search" if account_id is None else "settlement_search_account"
        if account_id is not None and wanted.session:
            query = "settlement_search_session"
        found = await self._session.all(
            query,
            platform_id,
            first,
            end if after is None else min(end, after),
            scan_rows_max,
            limit + 1,
            *_asked_of_each(wanted),
            *(() if account_id is None else (account_id,)),
        )
        return page_of(found, SettlementRow, _call_place, limit, scan_rows_max)

    async def settled_calls(
        self,
        platform_id: int,
        after: SettledPlace,
        wanted: CallFilter = ALL_CALLS,
        *,
        limit: int,
        scan_rows_max: int = SCAN_ROWS_MAX,
    ) -> Page[SettlementRow, SettledPlace]:
        """A platform's calls in the order in which they were settled, oldest first.

        A call is settled in Redis and comes here some time later: the last page is not the last for
        ever, and between its rows others may come. `gateway/operations/settlements.py` looks back.
        The filter's times and id are not asked for. Of an account, all of the platform's calls from
        the place on are passed over in the index: a place should not lie far back.
        """
        account_id = await self._account_of(platform_id, wanted)
        if account_id == 0:
            return Page([], None)
        found = await self._session.all(
            "settlement_tail" if account_id is None else "settlement_tail_account",
            platform_id,
            *after,
            scan_rows_max,
            limit + 1,
            *_asked_of_each(wanted),
            *(() if account_id is None else (account_id,)),
        )
        return page_of(found, SettlementRow, _settled_place, limit, scan_rows_max)

    async def accounts_page(
        self,
        platform_id: int,
        *,
        status: str | None = None,
        plan_slug: str | None = None,
        name_prefix: str | None = None,
        after: int | None = None,
        limit: int,
        scan_rows_max: int = SCAN_ROWS_MAX,
    ) -> Page[AccountRow, int]:
        """A platform's accounts in the order in which they were made."""
        found = await self._session.all(
            "account_page",
            platform_id,
            after or 0,
            scan_rows_max,
            limit + 1,
            status,
            plan_slug,
            name_prefix,
        )
        return page_of(found, AccountRow, _account_place, limit, scan_rows_max)

    async def grants_page(
        self, platform_id: int, account_id: int, *, after: int | None = None, limit: int
    ) -> Page[GrantRow, int]:
        """All lots that an account of the platform ever had, the newest first."""
        found = rows(
            GrantRow,
            await self._session.all(
                "account_grants", platform_id, account_id, after or ROW_ID_MAX, limit + 1
            ),
        )
        return Page(found[:limit], found[limit - 1].grant_id if len(found) > limit else None)

    def account_in_scope(self, account_id: int | None) -> int | None:
        """The account that is asked for; if none is, the one that this ledger works for."""
        if account_id is None and self._scope is not None:
            return self._scope.account_id
        return account_id

    async def account_of_key(self, platform_id: int, key_id: int) -> int | None:
        """Whose a key of the platform is."""
        account_id = await self._session.value("key_account", platform_id, key_id)
        return None if account_id is None else int(account_id)

    async def _account_of(self, platform_id: int, wanted: CallFilter) -> int | None:
        """Whose calls are to be looked through: None, all; 0, nobody's can match.

        A tenant that is an account looks through its own, not through those it may not see.
        """
        account_id = self.account_in_scope(wanted.account_id)
        if wanted.key_id is None:
            return account_id
        owner = await self.account_of_key(platform_id, wanted.key_id)
        return owner if owner is not None and account_id in {None, owner} else 0


def _id_range(wanted: CallFilter) -> tuple[str, str]:
    """The first id that can match, and the first after it that can not any more."""
    if wanted.call_id is not None:
        return wanted.call_id, f"{int(wanted.call_id, 16) + 1:032x}"
    end_ms = ID_TIME_MS_MAX if wanted.until_ms is None else wanted.until_ms
    return first_call_id(wanted.from_ms or 0), first_call_id(end_ms)


def _asked_of_each(wanted: CallFilter) -> Sequence[object]:
    return wanted.key_id, wanted.route_id, wanted.ending, wanted.status, wanted.session


def page_of(
    found: Sequence[Record],
    row: Callable[..., R],
    place: Callable[[R], K],
    limit: int,
    scan_rows_max: int,
) -> Page[R, K]:
    """A page of a query that looked at no more than `scan_rows_max`, for one more than `limit`."""
    matching = [_row(row, record) for record in found if record["matches"]]
    if len(matching) > limit:
        return Page(matching[:limit], place(matching[limit - 1]))
    if found and found[-1]["place"] == scan_rows_max:
        return Page(matching, place(_row(row, found[-1])))
    return Page(matching, None)


def _row(kind: Callable[..., R], record: Record) -> R:
    fields = dict(record)
    del fields["matches"], fields["place"]
    return kind(**fields)


def _call_place(row: SettlementRow) -> str:
    return row.call_id


def _settled_place(row: SettlementRow) -> SettledPlace:
    return SettledPlace(row.settled_ms, row.call_id)


def _account_place(row: AccountRow) -> int:
    return row.account_id
