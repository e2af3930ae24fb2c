"""Delegated keys of a deployment: made and looked at by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.operations.audit import audit
from gateway.operations.delegations import delegate
from gateway.operations.keys import KeyChanges, change_key
from gateway.operations.publish import publish_account
from tests.support.deployment import CREDIT, PEPPER, Caller

if TYPE_CHECKING:
    from gateway.ledger import KeyListRow
    from gateway.operations.delegations import Delegated
    from gateway.operations.findings import Finding
    from tests.support.deployment import Deployment

HOUR_MS = 3_600_000


class Agents:
    """What somebody does who hands parts of a key on to agents."""

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment
        self.ledger = deployment.ledger
        self.counters = deployment.counters

    async def caller(self, name: str = "alice", *, total: int = 100 * CREDIT) -> Caller:
        """An account with 1 000 credits that Redis has, and a key with a cap in total; 0: none."""
        caller = await self.deployment.caller(name, 1_000 * CREDIT)
        if total:
            await self.cap(caller, total=total)
        await self.deployment.call(caller, 0)
        return caller

    async def cap(self, caller: Caller, **caps: int) -> None:
        """Cap the caller's key."""
        changes = KeyChanges(bounds=caps)
        parts = (self.ledger, self.counters, self.deployment.platform_id)
        await change_key(*parts, caller.key_id, changes)

    async def key(self, key_id: int) -> KeyListRow:
        """A key as Postgres has it."""
        key = await self.ledger.key(self.deployment.platform_id, key_id)
        assert key is not None
        return key

    async def now_ms(self) -> int:
        """By Redis' clock."""
        seconds, microseconds = await self.counters.command("TIME")
        return int(seconds) * 1000 + int(microseconds) // 1000

    async def delegate(
        self,
        caller: Caller,
        budget: int = 10 * CREDIT,
        *,
        parent: int | None = None,
        life_ms: int = 0,
        routes: tuple[str, ...] = (),
    ) -> Delegated:
        """A part of the caller's key, or of another one of its account; for as long as can be."""
        return await delegate(
            self.ledger,
            self.counters,
            caller.account,
            await self.key(parent or caller.key_id),
            pepper=PEPPER,
            budget_microcredits=budget,
            expires_ms=await self.now_ms() + life_ms if life_ms else 0,
            routes=routes,
        )

    async def agent(
        self, caller: Caller, budget: int = 10 * CREDIT, *, parent: int | None = None
    ) -> Caller:
        """Who calls with a part of the caller's key, or of another one of its account."""
        made = await self.delegate(caller, budget, parent=parent)
        return Caller(caller.account, made.key_id, caller.keys)

    async def used(self, caller: Caller, key_id: int | None = None) -> int | None:
        """What a key's cap in total counts in Redis; None without a counter."""
        fields = (await self.counters.inspect(caller.keys)).fields
        text = fields.get(f"K{key_id or caller.key_id}.ct")
        return None if text is None else int(text.partition(":")[2])

    async def revoke(self, key_id: int) -> None:
        """End a key and all below it, and tell Redis."""
        key = await self.key(key_id)
        await self.ledger.revoke_key(self.deployment.platform_id, key_id)
        await publish_account(self.ledger, self.counters, key.account_id, key.account_name)

    async def expire(self, caller: Caller, *key_ids: int) -> None:
        """Let keys have ended a minute ago."""
        await self.deployment.damage(
            "UPDATE api_keys SET expires_at = now() - interval '1 minute' WHERE id = ANY ($1)",
            list(key_ids),
        )
        account = caller.account
        await publish_account(self.ledger, self.counters, account.account_id, account.name)

    async def findings(self) -> list[Finding]:
        """What the audit finds at one look."""
        return (await audit(self.ledger, self.counters, looks_max=1)).findings
