"""Gives what delegated keys have not used back to the keys they were carved out of.

What a key is, where it stands, and who moves it on:

    state     Postgres               Redis                            next
    --------  ---------------------  -------------------------------  ------------------------------
    row       active                 nothing                          carved (operations), or over
    carved    active                 k:, K.ct, p: "<parent>:<budget>" over: expired or revoked, by
                                                                      itself or with an ancestor
    over      revoked, or expired    the same                         ending, by this job
    ending    the same               p: "<parent>:<budget>:<used>"    closed, once no call of it
                                                                      runs and nothing below is open
    closed    closed                 nothing                          -

The whole budget counts in the parent's cap while the key is carved, and what it has used from then
on. From the first giving back no call with the key is admitted or raised again, whatever clocks and
caches say, so its use only falls, as its calls end for less than they held. Which calls run, Redis
knows from their holds: each names the counters that it is in. A counter alone can't tell, because
it has in one sum what was charged and what is held; nor does a time after which surely nothing
runs, for tasks hold their credits for up to a week. Of an ending key nothing new is held, so "no
hold names it" stays true until it is closed.

A round for one key, step by step, and what a death after each step leaves:

    step                               after a death there
    ---------------------------------  -------------------------------------------------------------
    1 give back                        the key is ending; the next round does the same in vain
    2 look whether a call holds        the same
    3 give back with `last`            Redis has forgotten the key, Postgres not: telling Redis of
                                       the account brings back a key that is over, and the next
                                       round does all of this again
    4 close the row                    what is told to Redis from now on is without the key
    5 give back with `last`            done: what was told between 3 and 4 is forgotten again

One hole is left: an account that Redis did not have, loaded between 3 and 4, and a death before 5.
What the key has not used then counts in its parent until the account is loaded anew, so that the
parent may spend too little and never too much; the audit reports it (`redis_share_of_closed_key`).

An account that Redis does not have counts from Postgres when it is loaded, so that nothing is to be
given back: its keys are only closed. Of several nodes, whoever comes second finds nothing to do.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NoReturn, Protocol

from gateway.counters import CountersUnavailable
from gateway.jobs.rounds import repeat
from policies.decision import GivenBack, KeyAlive, NotLoaded, ShardLost
from policies.rebuild import parse_hold

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from gateway.counters import Counters
    from gateway.jobs.reaper import LostShards
    from gateway.ledger.delegations import EndedDelegation

INTERVAL_S = 30.0
PAGE_KEYS_MAX = 200

log = logging.getLogger("tollkeeper.jobs")


class EndedKeys(Protocol):
    """Which keys are over: `Ledger`."""

    async def ended_delegations(
        self, limit: int, *, before_id: int | None = None
    ) -> Sequence[EndedDelegation]:
        """Delegated keys that are over and not closed, before an id, leaves first."""

    async def close_delegation(self, key_id: int) -> bool:
        """Forget a key; False while something below it is open."""


class Delegations:
    """Ends delegated keys that are over. `publish` tells Redis of an account."""

    def __init__(
        self,
        counters: Counters,
        ledger: EndedKeys,
        lost_shards: LostShards,
        publish: Callable[[int], Awaitable[None]],
    ) -> None:
        self._counters = counters
        self._ledger = ledger
        self._lost_shards = lost_shards
        self._publish = publish

    async def run(self) -> NoReturn:
        """Do it until cancelled."""
        await repeat("delegations", self.end, INTERVAL_S)

    async def end(self) -> int:
        """One round; how many keys were closed.

        Raises: LedgerUnavailable, CountersUnavailable; a shard that does not answer does not keep
        the others' keys from being seen to.
        """
        closed = 0
        failure: CountersUnavailable | None = None
        before: int | None = None
        while page := await self._ledger.ended_delegations(PAGE_KEYS_MAX, before_id=before):
            by_account: dict[int, list[EndedDelegation]] = {}
            for key in page:
                by_account.setdefault(key.account_id, []).append(key)
            for account_id, keys in by_account.items():
                try:
                    closed += await self._end(account_id, keys)
                except CountersUnavailable as error:
                    failure = error
            before = page[-1].key_id
        if closed:
            log.info("%d delegated keys were closed", closed)
        if failure is not None:
            raise failure
        return closed

    async def _end(self, account_id: int, ended: Sequence[EndedDelegation]) -> int:
        """Steps 1 to 5 for keys of one account, leaves first."""
        ending = [key for key in ended if await self._give_back(key)]
        leaves = [key for key in ending if not key.has_open_children]
        if not leaves:
            return 0
        held = await self._scopes_held(account_id)
        if held is None:
            return 0
        closed = 0
        for key in leaves:
            if f"K{key.key_id}" not in held and await self._give_back(key, last=True):
                if await self._ledger.close_delegation(key.key_id):
                    closed += 1
                await self._give_back(key, last=True)
        return closed

    async def _give_back(self, key: EndedDelegation, *, last: bool = False) -> bool:
        """Whether Redis counts the key as over, or does not know the account."""
        keys = self._counters.keys(key.account_id)
        answer = await self._counters.give_back(keys, key.key_id, last=last)
        match answer:
            case KeyAlive():
                # Whoever revoked it could not tell Redis, or its clock is behind.
                await self._publish(key.account_id)
            case ShardLost():
                self._lost_shards.begin(answer, keys.shard)
        return isinstance(answer, (GivenBack, NotLoaded))

    async def _scopes_held(self, account_id: int) -> set[str] | None:
        """Whose counters running calls and tasks of an account are in: "K19" of a key.

        None: that can't be told, because the shard is being rebuilt, or has a hold that no script
        wrote, which the audit will report.
        """
        seen = await self._counters.inspect(self._counters.keys(account_id))
        if not seen.seq:  # where a key was just given back, an open shard has written something
            return None
        try:
            holds = [parse_hold(text) for text in seen.holds.values()]
        except ValueError:
            return None
        return {token.partition(".")[0] for hold in holds for token in hold.counted.split()}
