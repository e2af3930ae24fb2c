"""Delegated keys: parts of other keys, each with a budget, for agents.

The tree of one account changes under the lock of its row, so that bounds on it hold and nothing is
delegated from what another transaction is ending (keys.py). What Redis is told, and when a key is
closed: gateway/operations/delegations.py, gateway/jobs/delegations.py.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

from gateway.ledger.database import Database, rows
from gateway.ledger.keys import listed_keys
from gateway.ledger.rows import Guards
from gateway.ledger.specs import key_to_spec
from policies.catalog import Caps, Limits

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gateway.ledger.rows import KeyListRow

NO_LIMITS, NO_CAPS = Limits(), Caps()


class Family(NamedTuple):
    """What a new key would be a part of: its parent, the parent's parent, and so on."""

    lineage: tuple[KeyListRow, ...]
    open_keys: int  # delegated keys of the account whose budgets may still count
    now_ms: int


class NewDelegation(NamedTuple):
    """What a delegated key is made of."""

    name: str
    prefix: str
    last4: str
    pepper_version: int
    digest: bytes
    budget_microcredits: int
    expires_ms: int
    routes: tuple[str, ...]
    guarded: bool  # by routes of its own, or by what an ancestor says
    metadata: Mapping[str, str]


class EndedDelegation(NamedTuple):
    """A delegated key that is over, but not closed."""

    key_id: int
    platform_id: int
    account_id: int
    has_open_children: bool


class Delegations(Database):
    """Delegated keys."""

    async def delegate_key(
        self,
        account_id: int,
        parent_key_id: int,
        decide: Callable[[Family], NewDelegation],
    ) -> int | None:
        """A new key's id; None when the account has no such parent.

        `decide` is asked while nothing of the account's keys changes; what it raises leaves all as
        it was.
        """
        async with self.transaction() as session:
            await session.value("delegation_lock", account_id)
            records = await session.all("delegation_lineage", account_id, parent_key_id)
            if not records:
                return None
            key_ids = [record["key_id"] for record in records]
            keys = await listed_keys(session, records[0]["platform_id"], key_ids)
            by_id = {key.key_id: key for key in keys}
            new = decide(
                Family(
                    tuple(by_id[key_id] for key_id in key_ids),
                    await session.value("delegation_count", account_id),
                    records[0]["now_ms"],
                )
            )
            key_id = await session.value(
                "delegation_insert",
                parent_key_id,
                new.name,
                new.prefix,
                new.last4,
                new.pepper_version,
                new.digest,
                new.budget_microcredits,
                new.expires_ms,
                json.dumps(key_to_spec(NO_LIMITS, NO_CAPS, Guards(routes=new.routes))),
                json.dumps(dict(new.metadata)),
                int(new.guarded),
            )
        return int(key_id)

    async def child_keys(
        self, platform_id: int, key_id: int, *, after_id: int = 0, limit: int
    ) -> list[KeyListRow]:
        """At most so many keys delegated from a key, behind an id, by id."""
        records = await self._session.all("key_children", platform_id, key_id, after_id, limit)
        return await listed_keys(self._session, platform_id, [row["key_id"] for row in records])

    async def ended_delegations(
        self, limit: int, *, before_id: int | None = None
    ) -> list[EndedDelegation]:
        """Delegated keys that are over and not closed, before an id, the newest first.

        A key is newer than what it was delegated from, so that leaves come first.
        """
        records = await self._session.all("delegation_ended", before_id, limit)
        return rows(EndedDelegation, records)

    async def close_delegation(self, key_id: int) -> bool:
        """Forget a key whose rest is back with its parent. Idempotent.

        False while a key that was delegated from it is open, or it is not over.
        """
        return await self._session.value("delegation_close", key_id) is not None
