"""From a principal and an offer to a hold, also when Redis does not know the account yet.

States of an account as one worker sees it, and the write that leaves each:

    shard lost ──open_shard──► not loaded ──load──► loaded ──admit──► held

`load` seeds from Postgres absolutely and only if nobody has loaded since, so two workers that
race load once. It names the seq that was seen before Postgres was read: if people have changed
the account in between, `load` refuses and the next attempt reads again. If the process dies
between any two steps, the next call of any worker begins where it stopped: every step is
idempotent.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Protocol

from policies.decision import NotLoaded, ShardLost

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable, Mapping

    from gateway.counters import AccountKeys, Counters
    from gateway.proxy.authenticate import Principal
    from gateway.proxy.offers import Offer
    from policies.decision import Admission as Decision

# Open the shard, load the account, admit: three; the rest for races with other workers.
ADMIT_ATTEMPTS_MAX = 8

log = logging.getLogger("tollkeeper.proxy")


class AccountSource(Protocol):
    """Where accounts and epochs come from when Redis does not have them."""

    async def account_state(self, account_id: int) -> Mapping[str, str | int] | None:
        """The fields of the account hash, or None if there is no such account."""

    async def next_epoch(self, shard: int) -> int:
        """A number greater than any epoch this shard ever had."""


class Admission:
    """Reserves credits for calls; loads accounts and opens shards on the way."""

    def __init__(
        self,
        counters: Counters,
        source: AccountSource,
        flush: Callable[[], Awaitable[None]],
    ) -> None:
        """Take what admits.

        `flush` writes this worker's pending settlements to Postgres, before balances are read
        from there.
        """
        self._counters = counters
        self._source = source
        self._flush = flush
        self._under_way: dict[Hashable, asyncio.Task[None]] = {}

    def admit(self, principal: Principal, offer: Offer, call_id: str) -> Awaitable[Decision]:
        """Hold the offer's ceiling, or say why not: one call of the script.

        Raises: CountersUnavailable when Redis can't be asked in time.
        """
        return self._counters.admit(
            principal.keys,
            call_id,
            principal.key_id,
            offer.ceiling,
            offer.lease_ms,
            offer.floor,
            principal.contexts + offer.context_suffix,
        )

    async def admit_again(
        self, principal: Principal, offer: Offer, call_id: str, decision: Decision
    ) -> Decision:
        """After a decision that is no answer yet: make Redis ready, and ask it again.

        Raises: CountersUnavailable, and the ledger's errors when Postgres has to be asked and
        can't be.
        """
        for _ in range(ADMIT_ATTEMPTS_MAX):
            if isinstance(decision, NotLoaded):
                await self._shared(principal.account_id, self._load, principal.keys, decision)
            elif isinstance(decision, ShardLost):
                await self._shared(("shard", principal.keys.shard), self._open, decision, principal)
            else:
                break
            decision = await self.admit(principal, offer, call_id)
        return decision

    async def _shared(
        self, name: Hashable, work: Callable[..., Awaitable[None]], *args: object
    ) -> None:
        """Do work that many calls wait for once.

        The first caller's leaving does not stop it for the others.
        """
        task = self._under_way.get(name)
        if task is None:
            task = asyncio.ensure_future(work(*args))
            self._under_way[name] = task
            task.add_done_callback(lambda _: self._under_way.pop(name, None))
        await asyncio.shield(task)

    async def _load(self, keys: AccountKeys, asked: NotLoaded) -> None:
        """Seed the account from Postgres.

        A no-op when it is gone, or when somebody else was faster.
        """
        state = await self._source.account_state(keys.account_id)
        if state is not None:
            await self._counters.load(keys, state, asked)

    async def _open(self, lost: ShardLost, principal: Principal) -> None:
        """Open a shard that Redis does not have, or has only in an older state.

        Balances are then read from Postgres again, account by account; so what this worker has not
        written yet goes there first, also when another worker was faster to open it.
        """
        shard = principal.keys.shard
        if self._counters.knows(shard):
            log.error("shard %d lost data in Redis: reading it from Postgres again", shard)
        await self._flush()
        if lost.kind == "STALE" and lost.epoch:
            self._counters.adopt(shard, lost.epoch)
            return
        epoch = await self._source.next_epoch(shard)
        await self._counters.open_shard(shard, epoch, lost.epoch)
