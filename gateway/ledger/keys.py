"""API keys: what people make, change, list and end.

Postgres is told first, Redis afterwards; that second half is in gateway/operations. Whoever changes
a key that others may descend from locks its account's row first, so that no key is delegated from
what another transaction is ending or narrowing.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from gateway.ledger.database import Database, Session
from gateway.ledger.rows import KeyFacts, KeyListRow
from gateway.ledger.searching import SCAN_ROWS_MAX, Page
from gateway.ledger.specs import NO_GUARDS, guards_from_spec, key_from_spec, key_to_spec
from policies.catalog import Caps, Limits

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from asyncpg import Record

    from gateway.ledger.rows import Guards

NO_LIMITS, NO_CAPS = Limits(), Caps()
NO_METADATA: Mapping[str, str] = {}
# Of keys that are alike in what a person can name, how many are told.
ALIKE_KEYS_MAX = 20


class Keys(Database):
    """The keys of accounts."""

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
        guards: Guards = NO_GUARDS,
        metadata: Mapping[str, str] = NO_METADATA,
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
            json.dumps(key_to_spec(limits, caps, guards)),
            json.dumps(dict(metadata)),
            int(guards != NO_GUARDS),
        )
        return None if key_id is None else int(key_id)

    async def count_keys(self, account_id: int) -> int:
        """How many keys an account has that are secrets and not revoked."""
        return int(await self._session.value("key_count", account_id))

    async def change_key(
        self, platform_id: int, key_id: int, change: Callable[[KeyListRow], KeyFacts]
    ) -> KeyListRow | None:
        """Give a key other facts; the key as it is then, None without such a key here.

        `change` is asked while nobody else can change the key; what it raises leaves all as it was.
        With other guards, those of keys delegated from it are of another version, too.
        """
        async with self.transaction() as session:
            await session.value("key_lock", platform_id, key_id)
            before = await listed_keys(session, platform_id, [key_id])
            if not before:
                return None
            facts = change(before[0])
            if facts == before[0].facts:
                return before[0]
            await session.value(
                "key_change",
                platform_id,
                key_id,
                facts.name,
                facts.expires_ms or None,
                json.dumps(key_to_spec(facts.limits, facts.caps, facts.guards)),
                json.dumps(dict(facts.metadata)),
            )
            if facts.guards != before[0].guards:
                await session.value("key_guards_renew", key_id)
            return (await listed_keys(session, platform_id, [key_id]))[0]

    async def keys_page(
        self,
        platform_id: int,
        *,
        account_id: int | None = None,
        after: int | None = None,
        limit: int,
        status: str | None = None,
        kind: str | None = None,
        scan_rows_max: int = SCAN_ROWS_MAX,
    ) -> Page[KeyListRow, int]:
        """Keys of the whole platform or of one account in the order in which they were made.

        All, or those that are "active", "expired" or "revoked", and of one kind.
        """
        asked = (platform_id, after or 0, scan_rows_max, limit + 1, status, kind)
        if account_id is None:
            records = await self._session.all("key_page", *asked)
        else:
            records = await self._session.all("key_page_of_account", *asked, account_id)
        key_ids = [row["key_id"] for row in records if row["matches"]]
        last: int | None = None
        if len(key_ids) > limit:
            del key_ids[limit:]
            last = key_ids[-1]
        elif records and records[-1]["place"] == scan_rows_max:
            last = records[-1]["key_id"]
        return Page(await listed_keys(self._session, platform_id, key_ids), last)

    async def key(self, platform_id: int, key_id: int) -> KeyListRow | None:
        """One key, None when the platform has no such."""
        found = await listed_keys(self._session, platform_id, [key_id])
        return found[0] if found else None

    async def keys_alike(
        self, platform_id: int, prefix: str, last4: str | None = None
    ) -> list[KeyListRow]:
        """Keys that are shown with this beginning and, if told, end: ALIKE_KEYS_MAX at most."""
        records = await self._session.all("key_alike", platform_id, prefix, last4, ALIKE_KEYS_MAX)
        return await listed_keys(self._session, platform_id, [row["key_id"] for row in records])

    async def expire_key(self, platform_id: int, key_id: int, expires_ms: int) -> int | None:
        """Let a key end at a time, or sooner if it would have; answers whose it was."""
        async with self.transaction() as session:
            await session.value("key_lock", platform_id, key_id)
            account_id = await session.value("key_expire", platform_id, key_id, expires_ms)
        return None if account_id is None else int(account_id)

    async def revoke_key(self, platform_id: int, key_id: int) -> int | None:
        """End a key for ever, with all that are delegated from it.

        Answers whose it was, None without such a key here. Idempotent.
        """
        async with self.transaction() as session:
            account_id = await session.value("key_lock", platform_id, key_id)
            if account_id is None:
                return None
            await session.value("key_revoke", key_id)
        return int(account_id)


async def listed_keys(
    session: Session, platform_id: int, key_ids: Sequence[int]
) -> list[KeyListRow]:
    """Those of these keys that the platform has, by id."""
    if not key_ids:
        return []
    return [listed(record) for record in await session.all("key_list", platform_id, key_ids)]


def listed(record: Record) -> KeyListRow:
    """A key of `key_list.sql`."""
    fields = dict(record)
    spec = json.loads(fields.pop("spec"))
    limits, caps = key_from_spec(spec)
    fields["metadata"] = json.loads(fields["metadata"])
    return KeyListRow(**fields, limits=limits, caps=caps, guards=guards_from_spec(spec))
