"""From a principal and an offer to a hold, also when Redis does not know the account yet.

States of an account as one worker sees it, and the write that leaves each:

    shard lost ──rebuilt──► not loaded ──load──► loaded ──admit──► held

Who rebuilds a lost shard is settled in gateway/recovery; here it is only waited for. `load` seeds
from Postgres absolutely and only if nobody has loaded since, so two workers that race load once. It
names the seq that was seen before Postgres was read: if people have changed the account in between,
`load` refuses and the next attempt reads again. If the process dies between any two steps, the next
call of any worker begins where it stopped: every step is idempotent.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from policies.decision import NotLoaded, ShardLost

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable, Mapping

    from gateway.counters import AccountKeys, Counters
    from gateway.proxy.authenticate import Principal
    from gateway.proxy.offers import Offer
    from gateway.proxy.settle import Shards
    from policies.decision import Admission as Decision

# Wait for the shard, load the account, admit: three; the rest for races with other workers.
ADMIT_ATTEMPTS_MAX = 8


class AccountSource(Protocol):
    """Where accounts come from when Redis does not have them."""

    async def account_state(self, account_id: int) -> Mapping[str, str | int] | None:
        """The fields of the account hash, or None if there is no such account."""


class Admission:
    """Reserves credits for calls; loads accounts on the way."""

    def __init__(
        self, counters: Counters, source: AccountSource, shards: Shards, lease_ms: int
    ) -> None:
        """`lease_ms` is what a hold is given until its first renewal."""
        self._counters = counters
        self._source = source
        self._shards = shards
        self._lease_ms = lease_ms
        self._under_way: dict[Hashable, asyncio.Task[None]] = {}

    def admit(
        self, principal: Principal, offer: Offer, call_id: str, session: bytes
    ) -> Awaitable[Decision]:
        """Hold the offer's ceiling, or say why not: one call of the script.

        Raises: CountersUnavailable when Redis can't be asked in time.
        """
        context = principal.contexts + offer.context_suffix
        return self._counters.admit(
            principal.keys,
            call_id,
            principal.key_id,
            offer.ceiling,
            self._lease_ms,
            offer.due,
            context + session if session else context,
            offer.rules,
            session,
        )

    async def admit_again(
        self,
        principal: Principal,
        offer: Offer,
        call_id: str,
        session: bytes,
        decision: Decision,
    ) -> Decision:
        """After a decision that is no answer yet: make Redis ready, and ask it again.

        A ShardLost is answered when the shard is not open after all that one can wait.

        Raises: CountersUnavailable, and the ledger's errors when Postgres has to be asked and
        can't be.
        """
        for _ in range(ADMIT_ATTEMPTS_MAX):
            if isinstance(decision, NotLoaded):
                await self._shared(principal.account_id, self._load, principal.keys, decision)
            elif isinstance(decision, ShardLost):
                if not await self._shards.ready(decision, principal.keys.shard):
                    break
            else:
                break
            decision = await self.admit(principal, offer, call_id, session)
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
