"""Accounts whose lots and periods end when a test wants, and the jobs that go by the calendar."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from gateway.jobs.expiry import Expiry
from gateway.jobs.renewal import Renewal
from gateway.jobs.telling import Telling
from gateway.operations.audit import audit
from gateway.operations.keys import create_key
from gateway.operations.publish import publish_account
from gateway.recovery.carry import Carrier
from policies.catalog import Plan, Platform
from tests.support.deployment import CREDIT, SHARDS, Caller, Deployment

if TYPE_CHECKING:
    from policies.decision import ShardLost

ENDED = -1  # seconds from now
PLANS = [
    Plan("none", credits_microcredits=100 * CREDIT),
    Plan("all", credits_microcredits=100 * CREDIT, rollover_microcredits_max=None),
    Plan("some", credits_microcredits=100 * CREDIT, rollover_microcredits_max=30 * CREDIT),
    Plan("over", credits_microcredits=100 * CREDIT, overage_cap_microcredits=50 * CREDIT),
    Plan("low", credits_microcredits=100 * CREDIT, low_credits_microcredits=20 * CREDIT),
]


class Died(Exception):  # noqa: N818 -- it is no error
    """A process dies here."""


class DiesAfter:
    """An object whose user dies right after it has called a method for the first time."""

    def __init__(self, target: Any, method: str) -> None:
        self._target = target
        self._method = method

    def __getattr__(self, name: str) -> Any:
        whole = getattr(self._target, name)
        if name != self._method:
            return whole

        async def last(*arguments: Any, **options: Any) -> Any:
            await whole(*arguments, **options)
            raise Died

        return last


class LostShards:
    """Notes which shards it is told to see to."""

    def __init__(self) -> None:
        self.told: list[tuple[str, int]] = []

    def begin(self, lost: ShardLost, shard: int) -> None:
        self.told.append((lost.kind, shard))


class Calendar:
    """A deployment with plans; its jobs are those of a node, in any number."""

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment
        self.sql = deployment.sql
        self.ledger = deployment.ledger
        self.counters = deployment.counters
        self.lost_shards = LostShards()
        self.published: list[int] = []

    async def caller(self, plan: str, name: str = "alice", *, loaded: bool = True) -> Caller:
        """An account on a plan, with a key, that has made no call."""
        await self.ledger.apply_catalog(Platform("demo"), PLANS, [])
        await self.ledger.create_account(self.deployment.platform_id, name, plan)
        account = await self.ledger.find_account(self.deployment.platform_id, name)
        assert account is not None
        key = await create_key(self.ledger, self.counters, account, self.deployment.maker)
        caller = Caller(account, key.key_id, self.counters.keys(account.account_id))
        await self.deployment.open_shard(caller.keys.shard)
        if loaded:
            state = await self.ledger.account_state(account.account_id)
            assert state is not None
            assert await self.counters.load(caller.keys, state)
        return caller

    async def publish(self, account_id: int) -> None:
        self.published.append(account_id)
        await publish_account(self.ledger, self.counters, account_id, "alice")

    def expiry(self, **parts: Any) -> Expiry:
        """The job; `parts` stand in for what it is made of."""
        return Expiry(
            parts.get("counters", self.counters),
            parts.get("ledger", self.ledger),
            parts.get("carrier", Carrier(self.counters, self.ledger)),
            self.lost_shards,
            parts.get("publish", self.publish),
        )

    def renewal(self, **parts: Any) -> Renewal:
        return Renewal(parts.get("ledger", self.ledger), parts.get("publish", self.publish))

    def telling(self) -> Telling:
        return Telling(self.counters, self.ledger, self.publish)

    async def sweep(self) -> int:
        carry = partial(Carrier(self.counters, self.ledger).carry, older_than_ms=0)
        return sum([await carry(shard) for shard in range(SHARDS)])

    async def end_period(self, caller: Caller, seconds: int = ENDED) -> int:
        """Let the account's period, and what it gave, end so many seconds from now; that moment."""
        account_id = caller.account.account_id
        end_ms = await self.sql(
            "UPDATE accounts SET period_anchor_at = moment - interval '1 month',"
            " period_start_at = moment - interval '1 month', period_end_at = moment"
            " FROM (SELECT date_trunc('second', now()) + $2 * interval '1 s' AS moment) AS chosen"
            " WHERE id = $1 RETURNING to_ms(period_end_at)",
            account_id,
            seconds,
        )
        await self.sql(
            "UPDATE grants SET effective_at = period_start_at, expires_at = period_end_at,"
            " business_key = source || ':' || accounts.id || ':' || to_ms(period_start_at)"
            " FROM accounts WHERE accounts.id = $1 AND account_id = accounts.id"
            " AND business_key IS NOT NULL",
            account_id,
        )
        await publish_account(self.ledger, self.counters, account_id, "alice")
        return int(end_ms)

    async def fields(self, caller: Caller) -> dict[str, str]:
        """The account in Redis."""
        return (await self.counters.inspect(caller.keys)).fields

    async def lot(self, caller: Caller, grant_id: int) -> tuple[int, int, int, int]:
        """Available, held, settled, withdrawn of a lot in Redis."""
        fields = await self.fields(caller)
        available, held, settled, withdrawn = (int(fields[f"{kind}:{grant_id}"]) for kind in "ahsw")
        return available, held, settled, withdrawn

    async def sources(self, caller: Caller) -> list[str]:
        """Sources of the account's lots, in the order in which they were made."""
        grants = await self.ledger.grants(caller.account.account_id)
        return [grant.source for grant in sorted(grants, key=lambda grant: grant.grant_id)]

    async def findings(self) -> list[str]:
        """What an audit says now."""
        report = await audit(self.ledger, self.counters, looks_max=1)
        return [f"{finding.check}: {finding}" for finding in report.findings]
