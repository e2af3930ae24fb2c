"""Accounts, keys and grants: what people change.

Postgres is told first, Redis afterwards; that second half is in gateway/operations.
"""

from __future__ import annotations

from gateway.ledger.database import Database, rows
from gateway.ledger.rows import AccountRow, GrantRow, KeyListRow


class Accounts(Database):
    """Customers of platforms, their keys and their credits."""

    async def create_account(
        self, platform_id: int, name: str, plan_slug: str | None = None
    ) -> int | None:
        """A new account's id; None when the name is taken or there is no such plan."""
        account_id = await self._session.value("account_insert", platform_id, name, plan_slug)
        return None if account_id is None else int(account_id)

    async def accounts(self, platform_id: int) -> list[AccountRow]:
        """Every account of a platform by name."""
        return rows(AccountRow, await self._session.all("account_list", platform_id, None))

    async def find_account(self, platform_id: int, name: str) -> AccountRow | None:
        """The platform's account of this name."""
        record = await self._session.one("account_list", platform_id, name)
        return AccountRow(**record) if record else None

    async def set_account_status(self, account_id: int, status: str) -> bool:
        """`active` or `suspended`; False without such an account."""
        return await self._session.value("account_status_set", account_id, status) is not None

    async def set_account_plan(self, account_id: int, plan_slug: str) -> bool:
        """False when the account, or the plan on its platform, does not exist."""
        return await self._session.value("account_plan_set", account_id, plan_slug) is not None

    async def account_ids_of_plan(self, platform_id: int, plan_slug: str) -> list[int]:
        """Whose limits change when this plan changes."""
        records = await self._session.all("account_ids_of_plan", platform_id, plan_slug)
        return [row["account_id"] for row in records]

    async def create_key(
        self,
        account_id: int,
        *,
        name: str,
        prefix: str,
        last4: str,
        pepper_version: int,
        digest: bytes,
        expires_ms: int | None = None,
    ) -> int | None:
        """A new key's id, None without such an account. An expiry of 0 or None is never.

        The key itself never comes here, only its digest and what is shown.

        Raises: LedgerRejected when the digest is there already.
        """
        key_id = await self._session.value(
            "key_insert",
            account_id,
            name,
            prefix,
            last4,
            pepper_version,
            digest,
            expires_ms or None,
        )
        return None if key_id is None else int(key_id)

    async def keys(self, platform_id: int, account_id: int | None = None) -> list[KeyListRow]:
        """Keys of an account, or of all accounts of the platform, oldest first."""
        return rows(KeyListRow, await self._session.all("key_list", platform_id, account_id))

    async def revoke_key(self, platform_id: int, key_id: int) -> int | None:
        """End a key for ever; answers whose it was, None without such a key here. Idempotent."""
        account_id = await self._session.value("key_revoke", platform_id, key_id)
        return None if account_id is None else int(account_id)

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
    ) -> int | None:
        """A new lot's id, None without such an account; its ledger entry is written with it.

        Effective now unless said otherwise; an expiry of 0 or None is never. Lower priorities pay
        first.

        Raises: LedgerRejected for a source or amount that is not allowed, or an expiry before the
        beginning.
        """
        grant_id = await self._session.value(
            "grant_insert",
            account_id,
            source,
            amount_microcredits,
            effective_ms,
            expires_ms or None,
            priority,
            note,
        )
        return None if grant_id is None else int(grant_id)

    async def grants(self, account_id: int) -> list[GrantRow]:
        """Every lot the account ever had, in burn-down order."""
        return rows(GrantRow, await self._session.all("grant_list", account_id))
