"""An account with one of everything that the audit compares, for tests that damage it."""

from __future__ import annotations

from policies.decision import Withdrawn
from policies.settlement import LateSettlement
from tests.support.deployment import CREDIT, PRICE_VERSION, ROUTE_ID, Caller, Deployment
from tests.support.settlements import new_call_id

OVERAGE_PRIORITY = 1_000_000
RULES = "cc:9 cd:90000000 ct:90000000"


class Scene:
    """Account alice after some calls: one running, one in the outbox, the rest in Postgres.

    Of her first grant some was withdrawn: a change in the outbox, another in Postgres. Her key has
    caps, and she has overage that no call has used.
    """

    grant_id: int
    overage_id: int
    running: str
    waiting: str
    written: str
    change_waiting: str
    change_written: str

    def __init__(self, deployment: Deployment, caller: Caller) -> None:
        self.deployment = deployment
        self.caller = caller

    async def command(self, *parts: str | int) -> object:
        """A command to Redis, behind everybody's back."""
        return await self.deployment.counters.command(*parts)

    async def add(self, field: str, difference: int) -> None:
        """Change a number of the account's hash."""
        await self.command("HINCRBY", self.caller.keys.name, field, difference)

    async def set(self, field: str, value: str | int) -> None:
        """Change any field of the account's hash."""
        await self.command("HSET", self.caller.keys.name, field, value)

    async def fields(self) -> dict[str, str]:
        """The account's hash."""
        return (await self.deployment.counters.inspect(self.caller.keys)).fields

    async def withdraw(self, microcredits: int, kind: str = "adjust") -> str:
        """Take from the grant in Redis; the change's id."""
        change_id = new_call_id()
        done = await self.deployment.counters.withdraw(
            self.caller.keys,
            change_id,
            kind,
            self.grant_id,
            microcredits,
            platform_id=self.caller.account.platform_id,
        )
        assert isinstance(done, Withdrawn)
        assert done.taken == microcredits
        return change_id

    async def late(self, call_id: str, ended_ms: int, owed: int = CREDIT) -> None:
        """A late settlement that waits for Redis."""
        account = self.caller.account
        await self.deployment.ledger.add_late_settlement(
            LateSettlement(
                call_id=call_id,
                shard=self.caller.keys.shard,
                platform_id=account.platform_id,
                account_id=account.account_id,
                key_id=self.caller.key_id,
                route_id=ROUTE_ID,
                price_version=PRICE_VERSION,
                session="",
                admitted_ms=ended_ms,
                ended_ms=ended_ms,
                ending="completed",
                status=200,
                units="",
                flags="",
                held_microcredits=owed,
                owed_microcredits=owed,
            )
        )


async def scene_of(deployment: Deployment, caller: Caller) -> Scene:
    """Play the scene for an account that has made no call yet."""
    scene = Scene(deployment, caller)
    scene.written = await deployment.call(caller, 3 * CREDIT)
    (grant,) = await deployment.ledger.grants(caller.account.account_id)
    scene.grant_id = grant.grant_id
    scene.overage_id = await _overage(scene)
    await deployment.counters.amend(caller.keys, {f"k:{caller.key_id}": f"0 {RULES}"})
    await deployment.call(caller, 2 * CREDIT)
    scene.change_written = await scene.withdraw(2 * CREDIT)
    await deployment.carry()
    scene.waiting = await deployment.call(caller, CREDIT)
    scene.change_waiting = await scene.withdraw(CREDIT)
    scene.running = await deployment.hold(caller, 5 * CREDIT)
    return scene


async def _overage(scene: Scene) -> int:
    """A lot of overage, in Postgres and in Redis."""
    ledger, keys = scene.deployment.ledger, scene.caller.keys
    overage_id = await ledger.add_grant(
        keys.account_id, 50 * CREDIT, source="overage", priority=OVERAGE_PRIORITY
    )
    assert overage_id is not None
    (made,) = [row for row in await ledger.grants(keys.account_id) if row.grant_id == overage_id]
    assert await scene.deployment.counters.credit(
        keys,
        overage_id,
        total=50 * CREDIT,
        settled=0,
        withdrawn=0,
        expires_ms=0,
        effective_ms=made.effective_ms,
        lots=f"{scene.grant_id} {overage_id}o",
    )
    return overage_id
