"""The books as the audit and reconciliation hold them against a picture of Redis."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from gateway.ledger.database import Database, rows

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

WAITING_ROWS_MAX = 1_000


class LotBooks(NamedTuple):
    """The sums of a lot, and when it may pay; `expires_ms` 0 for never."""

    grant_id: int
    account_id: int
    source: str
    amount_microcredits: int
    credited_microcredits: int
    settled_microcredits: int
    expired_microcredits: int
    revoked_microcredits: int
    effective_ms: int
    expires_ms: int

    @property
    def given(self) -> int:
        """All that was ever given to it."""
        return self.amount_microcredits + self.credited_microcredits

    @property
    def withdrawn(self) -> int:
        """What left it otherwise than by settling."""
        return self.expired_microcredits + self.revoked_microcredits


class CallBooks(NamedTuple):
    """What Postgres has of a call that Redis knows."""

    call_id: str
    account_id: int
    charged_microcredits: int
    uncollected_microcredits: int
    settled_ms: int


class ChangeBooks(NamedTuple):
    """What Postgres has of a change that Redis knows."""

    change_id: str
    account_id: int
    kind: str
    taken_microcredits: int


class Taken(NamedTuple):
    """Microcredits that left a lot, by what they count as."""

    grant_id: int
    settled: int
    withdrawn: int


class Spent(NamedTuple):
    """What was charged for a key on a route, today and this month (UTC) and in total.

    What a closed key was charged counts as that of the open one which it was a part of.
    """

    account_id: int
    key_id: int
    route_id: int
    day: int
    month: int
    total: int


class Waiting(NamedTuple):
    """A late settlement: a call that ended and is not charged in Redis yet."""

    call_id: str
    account_id: int
    ended_ms: int
    ending: str
    held_microcredits: int
    owed_microcredits: int


class MadeLot(NamedTuple):
    """A lot that was made; `is_settled`: long ago enough that none with a smaller id can come."""

    grant_id: int
    account_id: int
    is_settled: bool


class CreditedLot(NamedTuple):
    """A lot that was added to, and all that was ever given to it."""

    grant_id: int
    account_id: int
    total_microcredits: int


class ShardBooks(NamedTuple):
    """What Postgres has of some accounts of a shard, all as of one instant."""

    lots: Mapping[int, LotBooks]
    calls: Mapping[str, CallBooks]
    changes: Mapping[str, ChangeBooks]
    late: Mapping[int, Taken]
    waiting: Sequence[Waiting]
    spent: Sequence[Spent]
    closed: Mapping[int, int]  # closed keys that were asked for, and the open ones they are part of


class Reconciling(Database):
    """For the audit and for reconciliation; only reads."""

    async def shard_books(
        self,
        shard: int,
        account_ids: Sequence[int],
        *,
        since_ms: int,
        done: Sequence[str],
        running: Sequence[str],
        changes: Sequence[str],
        capped: Sequence[int] = (),
        keys: Sequence[int] = (),
    ) -> ShardBooks:
        """The books to hold against a picture of the shard taken at `since_ms` (by Redis' clock).

        `done` are calls that the picture knows as settled, `running` those that hold, `changes` the
        ids of other changes that it knows. `late` is per lot what was taken after that moment by
        calls and changes not known as done then. What was spent is read for the accounts in
        `capped`, whether they are closed for `keys`, and late settlements of the whole shard, at
        most WAITING_ROWS_MAX.
        """
        async with self.transaction(snapshot=True) as session:
            lots = rows(LotBooks, await session.all("reconcile_lots", list(account_ids)))
            named = [*done, *running]
            calls = rows(CallBooks, await session.all("reconcile_calls", named)) if named else []
            known = (
                rows(ChangeBooks, await session.all("reconcile_changes", list(changes)))
                if changes
                else []
            )
            late = rows(
                Taken,
                await session.all(
                    "reconcile_late",
                    since_ms,
                    [lot.grant_id for lot in lots],
                    list(done),
                    list(changes),
                ),
            )
            waiting = rows(Waiting, await session.all("reconcile_waiting", shard, WAITING_ROWS_MAX))
            spent = (
                rows(Spent, await session.all("reconcile_spent", list(capped), since_ms))
                if capped
                else []
            )
            closed = await session.all("reconcile_closed", list(keys)) if keys else []
        return ShardBooks(
            {lot.grant_id: lot for lot in lots},
            {call.call_id: call for call in calls},
            {change.change_id: change for change in known},
            {taken.grant_id: taken for taken in late},
            waiting,
            spent,
            {row["key_id"]: row["counts_as"] for row in closed},
        )

    async def account_ids(self, after: int, limit: int) -> list[int]:
        """Ids of accounts of every platform behind this one, in order."""
        return [row["id"] for row in await self._session.all("account_id_page", after, limit)]

    async def waiting_settlements(self) -> int:
        """How many late settlements wait, of all shards."""
        return int(await self._session.value("late_settlement_count"))

    async def rebuilds(self) -> int:
        """How often shards were closed to be rebuilt, of all shards and times."""
        return int(await self._session.value("shard_rebuilds"))

    async def made_lots(
        self, after: int, limit: int, *, look_back_ms: int, settled_ms: int
    ) -> list[MadeLot]:
        """Lots behind an id in the order of their ids, of the last `look_back_ms`.

        Without those that have ended with nothing left, of which Redis need not know.
        """
        found = await self._session.all("grant_page", after, limit, look_back_ms, settled_ms)
        return rows(MadeLot, found)

    async def credited_lots(
        self, after: int, limit: int, *, look_back_ms: int
    ) -> list[CreditedLot]:
        """Lots behind an id that got credits back, or were added to, in the last `look_back_ms`."""
        found = await self._session.all("grant_credited", look_back_ms, after, limit)
        return rows(CreditedLot, found)
