"""Grants: lots of credits, given, listed, revoked, and found when they have ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from gateway.ledger.database import Database, Session, rows
from gateway.ledger.rows import GrantRow

if TYPE_CHECKING:
    from collections.abc import Sequence


class EndedLot(NamedTuple):
    """A lot that has ended and by Postgres' account has something left, held or not.

    `kind` is that of the change which withdraws it: "expire" or "revoke".
    """

    grant_id: int
    platform_id: int
    account_id: int
    source: str
    kind: str
    left_microcredits: int


class NewLot(NamedTuple):
    """What a lot is made of. Effective now and for ever where the times are None."""

    source: str
    amount_microcredits: int
    priority: int
    effective_ms: int | None = None
    expires_ms: int | None = None
    note: str = ""
    business_key: str | None = None
    rollovers: int = 0


class Lots(Database):
    """Grants."""

    async def add_grant(
        self,
        account_id: int,
        amount_microcredits: int,
        *,
        source: str = "manual",
        effective_ms: int | None = None,
        expires_ms: int | None = None,
        priority: int,
        note: str = "",
        business_key: str | None = None,
    ) -> int | None:
        """A new lot's id, None without such an account; its ledger entry is written with it.

        Effective now unless said otherwise; an expiry of 0 or None is never. Lower priorities pay
        first. A business key names what the lot is given for, once in the deployment: given again,
        the answer is the lot that there is.

        Raises: LedgerRejected for a source or amount that is not allowed, or an expiry before the
        beginning.
        """
        return await insert_lot(
            self._session,
            account_id,
            NewLot(
                source,
                amount_microcredits,
                priority,
                effective_ms,
                expires_ms or None,
                note,
                business_key,
            ),
        )

    async def grants(self, account_id: int) -> list[GrantRow]:
        """Every lot the account ever had, in burn-down order."""
        return rows(GrantRow, await self._session.all("grant_list", account_id))

    async def grant(self, platform_id: int, grant_id: int) -> GrantRow | None:
        """One lot, None when the platform has no such."""
        record = await self._session.one("grant_get", platform_id, grant_id)
        return GrantRow(**record) if record else None

    async def some_grants(self, account_id: int, grant_ids: Sequence[int]) -> list[GrantRow]:
        """Those of these lots that are the account's, by id."""
        return rows(GrantRow, await self._session.all("grant_some", account_id, grant_ids))

    async def revoke_grant(self, grant_id: int) -> int | None:
        """End a lot now; answers whose it was, None without such a lot. Idempotent.

        What it has left is withdrawn in Redis afterwards; what it holds is still settled.
        """
        account_id = await self._session.value("grant_revoke", grant_id)
        return None if account_id is None else int(account_id)

    async def lots_to_withdraw(self, limit: int, *, after: int = 0) -> list[EndedLot]:
        """Lots that have ended with something left, by id, those after one; at most `limit`.

        A lot is named again until Postgres has all of it accounted for. Naming the ids after the
        last one lets a round pass those whose rest is held.
        """
        return rows(EndedLot, await self._session.all("grant_ended", limit, after))


async def insert_lot(session: Session, account_id: int, lot: NewLot) -> int | None:
    """As `Lots.add_grant`, wherever the session is."""
    for _ in range(2):  # a second look sees what another transaction gave during the first
        grant_id = await session.value(
            "grant_insert",
            account_id,
            lot.source,
            lot.amount_microcredits,
            lot.effective_ms,
            lot.expires_ms,
            lot.priority,
            lot.note,
            lot.business_key,
            lot.rollovers,
        )
        if grant_id is not None:
            return int(grant_id)
        if lot.business_key is None:
            break
    return None
