"""What people do meanwhile: give, take and adjust lots, refund, change keys, suspend accounts.

An operator's command is a process of its own: it may die between any two steps, and the next one
knows nothing of it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from gateway.counters import Counters, CountersUnavailable
from gateway.ledger import Ledger, LedgerUnavailable
from gateway.ledger.periods import AccountChange
from gateway.operations.accounts import change_account, find_account
from gateway.operations.calls import refund_call
from gateway.operations.errors import OperationError
from gateway.operations.grants import add_grant, adjust_grant, find_grant, revoke_grant
from gateway.operations.keys import KeyChanges, change_key

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.simulation.cast import Stage
    from tests.simulation.model import Account
    from tests.simulation.virtual_loop import Process

CREDIT = 1_000_000
AMOUNTS = (50_000, CREDIT, 3 * CREDIT, 7_654_321)
# When a lot begins and how long it lasts, ms; 0: at once, for ever.
BEGINS_MS = (0, 0, 0, 4_000)
LASTS_MS = (0, 1_500, 6_000, 30_000, 600_000, 40 * 86_400_000)
PAUSES_S = (0.0, 0.01, 0.1, 0.5)
KEY_CAPS = (0, CREDIT, 4 * CREDIT, 40 * CREDIT)
REFUNDABLE_MAX = 200
# Where a lot to change is chosen from.
LOTS = "SELECT id FROM grants WHERE account_id = $1 ORDER BY id"
LOTS_MAX = 6


class Desk:
    """Commands, one after the other."""

    def __init__(self, stage: Stage, process: Process) -> None:
        self.ready = False
        self.stage = stage
        self.world = stage.world
        self.random = stage.world.random
        self.process = process
        self.idle = True
        self._ledger: Ledger
        self._counters: Counters
        self._commands: tuple[tuple[Callable[[Account], Awaitable[object]], int], ...] = (
            (self._grant, 5),
            (self._revoke, 2),
            (self._adjust, 4),
            (self._refund, 5),
            (self._limit_key, 2),
            (self._suspend, 1),
        )

    async def run(self) -> None:
        """Work until killed."""
        config = self.stage.config
        while True:
            try:
                async with (
                    Ledger(config.postgres_url) as self._ledger,
                    Counters(config.redis_url, shards=config.shards) as self._counters,
                ):
                    self.ready = True
                    while True:
                        await asyncio.sleep(self.random.choice(PAUSES_S))
                        if not self.world.resting:
                            await self._command()
            except CountersUnavailable:
                await asyncio.sleep(1)

    async def sync(self) -> None:
        """What people do after commands that failed or died: "accounts resume", "accounts sync"."""
        for account in self.world.model.accounts.values():
            row = await find_account(self._ledger, account.platform_id, account.name)
            await change_account(self._ledger, self._counters, row, AccountChange(status="active"))

    async def _command(self) -> None:
        commands, odds = zip(*self._commands, strict=True)
        (command,) = self.random.choices(commands, odds)
        account = self.random.choice(list(self.world.model.accounts.values()))
        name = command.__name__.strip("_")
        self.world.say(f"{self.process} begins: {name} of account {account.account_id}")
        self.idle = False
        try:
            outcome = await command(account)
        except (OperationError, CountersUnavailable, LedgerUnavailable) as failure:
            outcome = repr(failure)
            self.world.model.note(f"people {name} refused")
        else:
            self.world.model.note(f"people {name}")
        self.idle = True
        self.world.say(f"{self.process} ends: {name}: {outcome}")

    async def _grant(self, account: Account) -> object:
        now_ms, begins, lasts = (
            self.world.now_ms(),
            self.random.choice(BEGINS_MS),
            self.random.choice(LASTS_MS),
        )
        return await add_grant(
            self._ledger,
            self._counters,
            await find_account(self._ledger, account.platform_id, account.name),
            self.random.choice(AMOUNTS),
            effective_ms=now_ms + begins if begins else 0,
            expires_ms=now_ms + begins + lasts if lasts else 0,
            priority=self.random.randint(0, 3),
        )

    async def _revoke(self, account: Account) -> object:
        owned = await find_grant(self._ledger, account.platform_id, self._lot(account))
        return await revoke_grant(self._ledger, self._counters, owned)

    async def _adjust(self, account: Account) -> object:
        owned = await find_grant(self._ledger, account.platform_id, self._lot(account))
        amount = self.random.choice(AMOUNTS) * self.random.choice((1, -1))
        return await adjust_grant(self._ledger, self._counters, owned, amount)

    def _lot(self, account: Account) -> int:
        """Any lot of the account, but not what makes a rich one rich."""
        found = self.world.postgres.fetch(LOTS, account.account_id)
        lots = [row["id"] for row in found[1 if account.rich else 0 :]][-LOTS_MAX:]
        if not lots:
            raise OperationError("there is no lot")
        return int(self.random.choice(lots))

    async def _refund(self, account: Account) -> object:
        calls = list(self.world.model.calls.values())[-REFUNDABLE_MAX:]
        call = self.random.choice([one for one in calls if one.told_charged] or [None])
        if call is None:
            raise OperationError("there is no call")
        call.refunds += 1
        refund = await refund_call(self._ledger, self._counters, account.platform_id, call.call_id)
        if call.refunded:
            self.world.loop.problems.append(f"{call.call_id} was refunded twice")
        call.refunded = True
        return refund

    async def _limit_key(self, account: Account) -> object:
        key_id = self.random.choice(list(account.key_caps))
        total, day = self.random.choice(KEY_CAPS), self.random.choice(KEY_CAPS)
        # Until it is known to be told, the old or the new caps hold.
        account.key_caps[key_id].append((total, day))
        known = len(account.key_caps[key_id])
        changes = KeyChanges(bounds={"total": total, "day": day})
        parts = (self._ledger, self._counters, account.platform_id)
        outcome = await change_key(*parts, key_id, changes)
        if len(account.key_caps[key_id]) == known:
            del account.key_caps[key_id][:-1]
        # A new cap begins with what Postgres knows: what is under way is not in it.
        account.key_caps_ms[key_id] = self.world.now_ms() + 1
        return outcome

    async def _suspend(self, account: Account) -> object:
        row = await find_account(self._ledger, account.platform_id, account.name)
        await change_account(self._ledger, self._counters, row, AccountChange(status="suspended"))
        await asyncio.sleep(self.random.choice(PAUSES_S))
        return await change_account(
            self._ledger, self._counters, row, AccountChange(status="active")
        )
