"""Keys that are carved out of other keys, and what comes back of their budgets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.counters.base import Base
from gateway.counters.replies import lost, not_loaded
from policies.decision import (
    AccountSuspended,
    Carved,
    CarveRefused,
    ChainTooLong,
    GivenBack,
    KeyAlive,
    KeyRefused,
)

if TYPE_CHECKING:
    from gateway.counters.keys import AccountKeys
    from policies.decision import Carving, GivingBack

_REFUSALS: dict[bytes, ChainTooLong | KeyRefused | AccountSuspended] = {
    b"DEPTH": ChainTooLong(),
    b"KEY": KeyRefused(),
    b"SUSPENDED": AccountSuspended(),
}


class Delegation(Base):
    """The verbs of delegated keys."""

    async def carve(
        self, keys: AccountKeys, parent_key_id: int, key_id: int, budget: int, text: str
    ) -> Carving:
        """Take the whole budget, microcredits, of a delegated key out of its parent's cap in total.

        `text` is the key's, as `limits.key_text` of `limits.delegated_rules_text`. Its row is in
        Postgres before; only Carved makes it usable, and with anything else, or without an answer,
        the row is to be revoked. Carving again is harmless. NotLoaded: load the account, then carve
        again; what was loaded has the key's row, and may have counted it.
        """
        reply = await self._run(
            keys.state,
            "carve",
            keys.two,
            *self._known(keys.state),
            parent_key_id,
            key_id,
            budget,
            text,
        )
        match reply[0]:
            case b"OK":
                return Carved()
            case b"CAP":
                return CarveRefused(reply[3])
            case b"LOAD":
                return not_loaded(reply)
        return _REFUSALS[reply[0]] if reply[0] in _REFUSALS else lost(reply)

    async def give_back(self, keys: AccountKeys, key_id: int, *, last: bool) -> GivingBack:
        """Give what a delegated key that is over has not used back to its parent.

        Repeat it while calls of the key still run, and then once with `last`, which forgets the
        key; both are harmless to repeat. Leaves first: a key counts what keys carved out of it do.
        Who closes a key in Postgres gives back with `last` before and after: an account that is
        loaded in between is seeded with what is closed, and what is not. NotLoaded: nothing to do.
        """
        reply = await self._run(
            keys.state, "giveback", keys.two, *self._known(keys.state), key_id, int(last)
        )
        match reply[0]:
            case b"OK":
                return GivenBack(reply[3])
            case b"ALIVE":
                return KeyAlive()
            case b"LOAD":
                return not_loaded(reply)
        return lost(reply)
