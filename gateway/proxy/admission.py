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
import logging
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from gateway import errors
from gateway.counters import CountersUnavailable
from gateway.errors import Refusal
from gateway.proxy.call_terms import call_terms, free_terms
from policies.decision import GuardChanged, KeyRefused, NotLoaded, ShardLost, TermsChanged

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable, Mapping

    from gateway.counters import AccountKeys, Counters
    from gateway.proxy.authenticate import Principal
    from gateway.proxy.guards import Guards
    from gateway.proxy.offers import Offer, PlatformOffers
    from gateway.proxy.server import Call
    from gateway.proxy.settle import Shards
    from policies.decision import Admission as Decision
    from policies.meters.facts import RequestFacts
    from policies.terms import Terms

T = TypeVar("T")

# Wait for the shard, load the account, other terms, admit: four; the rest for races with others.
ADMIT_ATTEMPTS_MAX = 8


_UNDECIDED: Mapping[type, str] = {
    ShardLost: "Credits are being restored after a loss of data.",
    NotLoaded: "The account can't be loaded at the moment.",
    TermsChanged: "The account's prices are changing at this moment.",
    GuardChanged: "What this API key is for is changing at this moment.",
}

log = logging.getLogger("tollkeeper.proxy")


class Quest(NamedTuple):
    """A request that may become a call: who asks for what, and at what price at most."""

    call_id: str
    principal: Principal
    platform: PlatformOffers
    offer: Offer
    session: bytes
    credits_max: int | None  # microcredits
    call: Call | None = None  # says where it comes from, for keys that name networks
    free: bool = False  # it belongs to a task that is paid for, or asks for nothing that costs


def quest_terms(quest: Quest, facts: RequestFacts | None) -> Terms | Refusal:
    """The terms of a request, or why it can't be sold."""
    if quest.free:
        return free_terms(quest.offer, quest.principal.discount)
    return call_terms(quest.offer, facts, quest.principal.discount, quest.credits_max)


class AccountSource(Protocol):
    """Where accounts come from when Redis does not have them."""

    async def account_state(self, account_id: int) -> Mapping[str, str | int] | None:
        """The fields of the account hash, or None if there is no such account."""


class Admission:
    """Reserves credits for calls; loads accounts on the way."""

    def __init__(
        self,
        counters: Counters,
        source: AccountSource,
        shards: Shards,
        guards: Guards,
        lease_ms: int,
    ) -> None:
        """`lease_ms` is what a hold is given until its first renewal."""
        self._counters = counters
        self._guards = guards
        self._source = source
        self._shards = shards
        self._lease_ms = lease_ms
        self._under_way: dict[Hashable, asyncio.Task[Any]] = {}

    def admit(self, quest: Quest, terms: Terms) -> Awaitable[Decision]:
        """Hold the ceiling of a call's terms, or say why not: one call of the script.

        Raises: CountersUnavailable when Redis can't be asked in time.
        """
        call_id, principal, _, offer, session, _, _, _ = quest
        context = principal.contexts + offer.context_suffix
        return self._counters.admit(
            principal.keys,
            call_id,
            principal.key_id,
            terms.ceiling,
            self._lease_ms,
            terms.due,
            context + session if session else context,
            offer.rules,
            session,
            terms.discount,
            principal.guard_version,
        )

    def ask(self, quest: Quest, terms: Terms) -> Awaitable[Decision]:
        """What `admit` would say now; nothing is held."""
        principal = quest.principal
        return self._counters.ask(
            principal.keys,
            quest.call_id,
            principal.key_id,
            terms.ceiling,
            quest.offer.rules,
            quest.session,
            terms.discount,
            principal.guard_version,
        )

    async def quote(
        self, quest: Quest, facts: RequestFacts | None, terms: Terms
    ) -> tuple[Terms, Decision] | Refusal:
        """What admitting the call would be answered, and at which terms; nothing is held."""
        try:
            decision = await self.ask(quest, terms)
        except CountersUnavailable:
            return errors.NOT_RESERVED
        return await self.again(self.ask, quest, facts, terms, decision)

    async def again(
        self,
        asked: Callable[[Quest, Terms], Awaitable[Decision]],
        quest: Quest,
        facts: RequestFacts | None,
        terms: Terms,
        decision: Decision,
    ) -> tuple[Terms, Decision] | Refusal:
        """After a decision that is no answer yet: make Redis ready, and ask again.

        `asked` is `admit` or `ask`. The terms are new ones when the account's discount has changed.
        """
        try:
            for _ in range(ADMIT_ATTEMPTS_MAX):
                if type(decision) not in _UNDECIDED:
                    break
                anew = await self._prepare(quest, facts, terms, decision)
                if isinstance(anew, Refusal):
                    return anew
                if anew is None:
                    break
                terms = anew
                decision = await asked(quest, terms)
        except CountersUnavailable:
            return errors.NOT_RESERVED
        except Exception:
            log.exception("call %s: its account could not be loaded", quest.call_id)
            return errors.unavailable("The account can't be loaded at the moment.")
        if type(decision) in _UNDECIDED:
            log.warning("call %s: not admitted, %r", quest.call_id, decision)
            return errors.unavailable(_UNDECIDED[type(decision)])
        return terms, decision

    async def _prepare(
        self, quest: Quest, facts: RequestFacts | None, terms: Terms, decision: Decision
    ) -> Terms | Refusal | None:
        """See to what was missing; the terms to ask again with, or None: it is of no use.

        Raises: as `make_ready`.
        """
        if isinstance(decision, TermsChanged):
            quest.principal.discount = decision.discount
            return quest_terms(quest, facts)
        if isinstance(decision, GuardChanged):
            return await self.guard_again(quest, decision) or terms
        if isinstance(decision, NotLoaded | ShardLost):
            if not await self.make_ready(quest.principal, decision):
                return None
            return errors.UNAUTHENTICATED if quest.principal.closed else terms
        return terms

    async def barred(self, quest: Quest) -> Refusal | None:
        """Why a call is not what its key is for, as far as this worker knows.

        Only who is admitted is told of a change (GUARD), so before a refusal it is asked for: what
        was forbidden may be allowed by now. While Redis is away, what is known counts.
        """
        principal, offer = quest.principal, quest.offer
        refusal = self._guards.refusal(principal, offer, quest.call)
        if refusal is None:
            return None
        nothing = quest._replace(free=True)
        terms = free_terms(offer, principal.discount)
        try:
            decision = await self.ask(nothing, terms)
        except CountersUnavailable:
            return refusal
        said = await self.again(self.ask, nothing, None, terms, decision)
        if isinstance(said, Refusal):
            return said
        if isinstance(said[1], KeyRefused):
            principal.usable_until_ms = 0
            return errors.UNAUTHENTICATED
        return self._guards.refusal(principal, offer, quest.call)

    async def guard_again(self, quest: Quest, changed: GuardChanged) -> Refusal | None:
        """Read what the key may be used for, as it is now, and check the call once more.

        Raises: the ledger's errors when Postgres can't be asked.
        """
        principal = quest.principal
        await self._shared(principal, self._guards.renew, principal, changed)
        return self._guards.refusal(principal, quest.offer, quest.call)

    async def make_ready(self, principal: Principal, asked: NotLoaded | ShardLost) -> bool:
        """Load the account, or wait for its shard; False: it is of no use to ask again.

        An account is loaded without keys that are closed: such a principal is marked, for Redis
        would ask for it for ever.

        Raises: CountersUnavailable, and the ledger's errors when Postgres can't be asked.
        """
        if isinstance(asked, ShardLost):
            return await self._shards.ready(asked, principal.keys.shard)
        state = await self._shared(principal.account_id, self._load, principal.keys, asked)
        if state is not None and f"k:{principal.key_number}" not in state:
            # Or it was made while others were waiting for the account already.
            principal.closed = await self._guards.is_closed(principal)
            if principal.closed:
                principal.usable_until_ms = 0
        return True

    async def _shared(self, name: Hashable, work: Callable[..., Awaitable[T]], *args: object) -> T:
        """Do work that many calls wait for once.

        The first caller's leaving does not stop it for the others.
        """
        task = self._under_way.get(name)
        if task is None:
            task = asyncio.ensure_future(work(*args))
            self._under_way[name] = task
            task.add_done_callback(lambda _: self._under_way.pop(name, None))
        done: T = await asyncio.shield(task)
        return done

    async def _load(self, keys: AccountKeys, asked: NotLoaded) -> Mapping[str, str | int] | None:
        """Seed the account from Postgres; answers what that says of it.

        A no-op when it is gone, or when somebody else was faster.
        """
        state = await self._source.account_state(keys.account_id)
        if state is not None:
            await self._counters.load(keys, state, asked)
        return state
