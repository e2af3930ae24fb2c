"""Accounts and keys: what people change.

Postgres is told first, Redis afterwards; that second half is in gateway/operations.
"""

from __future__ import annotations

import json

from gateway.ledger.database import Database, rows
from gateway.ledger.rows import AccountRow, KeyListRow
from gateway.ledger.specs import key_from_spec, key_to_spec
from policies.catalog import Caps, Limits

NO_LIMITS, NO_CAPS = Limits(), Caps()


class Accounts(Database):
    """Customers of platforms, and their keys."""

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

    async def set_account_discount(self, account_id: int, basis_points: int | None) -> bool:
        """What an account gets off every price, None: what its plan says; False without it."""
        done = await self._session.value("account_discount_set", account_id, basis_points)
        return done is not None

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
        limits: Limits = NO_LIMITS,
        caps: Caps = NO_CAPS,
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
            json.dumps(key_to_spec(limits, caps)),
        )
        return None if key_id is None else int(key_id)

    async def set_key_limits(
        self, platform_id: int, key_id: int, limits: Limits, caps: Caps
    ) -> int | None:
        """Give a key other limits and caps; answers whose it is, None without such a key here."""
        spec = json.dumps(key_to_spec(limits, caps))
        account_id = await self._session.value("key_limits_set", platform_id, key_id, spec)
        return None if account_id is None else int(account_id)

    async def keys(self, platform_id: int, account_id: int | None = None) -> list[KeyListRow]:
        """Keys of an account, or of all accounts of the platform, oldest first."""
        found = []
        for record in await self._session.all("key_list", platform_id, account_id):
            fields = dict(record)
            limits, caps = key_from_spec(json.loads(fields.pop("spec")))
            found.append(KeyListRow(**fields, limits=limits, caps=caps))
        return found

    async def revoke_key(self, platform_id: int, key_id: int) -> int | None:
        """End a key for ever; answers whose it was, None without such a key here. Idempotent."""
        account_id = await self._session.value("key_revoke", platform_id, key_id)
        return None if account_id is None else int(account_id)
