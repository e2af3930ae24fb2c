"""What Redis is told and asked of an account apart from its calls: seeds, changes, a look."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from gateway.counters.base import Base
from gateway.counters.replies import Snapshot, lost, not_loaded, pairs, snapshot
from gateway.counters.resp import bulks
from policies.decision import Withdrawn

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.counters.keys import AccountKeys
    from policies.decision import NotLoaded, Withdrawing


class Accounts(Base):
    """The verbs of an account."""

    async def withdraw(
        self,
        keys: AccountKeys,
        change_id: str,
        kind: str,
        grant_id: int | None,
        amount: int | None,
        *,
        platform_id: int,
        call_id: str = "",
    ) -> Withdrawing:
        """Take what is available, at most `amount` (None: all), from a lot or from all in order.

        `kind`: expire, revoke, adjust or late. Once per change id.
        """
        state = keys.state
        names = bulks((state.meta, keys.name, state.holds, state.outbox))
        reply = await self._run(
            state,
            "withdraw",
            names,
            *self._known(state),
            change_id,
            kind,
            "" if grant_id is None else grant_id,
            "all" if amount is None else amount,
            call_id,
            f"{platform_id},{keys.account_id}",
        )
        match reply[0]:
            case b"OK":
                return Withdrawn(reply[3], reply[4], reply[5].decode(), reply[6].decode())
            case b"LOAD":
                return not_loaded(reply)
        return lost(reply)

    async def load(
        self,
        keys: AccountKeys,
        fields: Mapping[str, str | int],
        asked: NotLoaded | None = None,
        *,
        force: bool = False,
    ) -> bool:
        """Seed an account with the fields that Postgres has of it.

        `asked` is the answer that made the caller read Postgres: an account that was changed since
        is not seeded with what is outdated. Without it, the newest known of the shard stands in.
        False when it was not seeded: it is loaded already, was changed, has running calls
        (`force`), or its shard is lost; the next admit says what to do.
        """
        state = keys.state
        seen = self._known(state) if asked is None else (asked.epoch, asked.seq)
        pairs = (part for pair in fields.items() for part in pair)
        # A forced load would wipe what ran between its two runs, so an uncertain one is not sent
        # again.
        reply = await self._run(state, "load", keys.two, *seen, int(force), *pairs, again=not force)
        return bool(reply[0] == b"OK")

    async def amend(
        self, keys: AccountKeys, fields: Mapping[str, str | int], *, epoch: int = 0
    ) -> bool:
        """Change status, limits, rules or keys of an account; counters only where it has none.

        With an `epoch` nothing is changed under another one. False: that, or the account is not
        loaded, so its next call reads Postgres; or its shard is lost.
        """
        pairs = (part for pair in fields.items() for part in pair)
        reply = await self._run(keys.state, "amend", keys.two, epoch, 0, *pairs)
        return bool(reply[0] == b"OK")

    async def credit(
        self,
        keys: AccountKeys,
        grant_id: int,
        *,
        total: int,
        settled: int,
        withdrawn: int,
        expires_ms: int,
        effective_ms: int,
        lots: str,
        epoch: int = 0,
    ) -> bool:
        """Tell what a lot was given in total, and its times; `lots` is the burn-down order.

        `settled` and `withdrawn` count only for a lot that Redis does not have. They must have been
        read under the `epoch` named: one that was loaded since may lack the lot because it is used
        up. False: the account knows all that, or is not loaded, or under another epoch.
        """
        told = (grant_id, total, settled, withdrawn, expires_ms, effective_ms, lots)
        reply = await self._run(keys.state, "credit", keys.two, epoch, 0, *told)
        return bool(reply[0] == b"OK")

    async def look(self, keys: AccountKeys) -> dict[str, str] | None:
        """An account's fields at this moment; None: it is not loaded, or its shard is lost.

        Costs as much as the account has fields, whatever its shard has.
        """
        state = keys.state
        meta, flat = await asyncio.gather(
            self._ask(state.link, "HMGET", state.meta, "epoch", "seq"),
            self._ask(state.link, "HGETALL", keys.name),
        )
        fields = pairs(flat)
        is_open = meta[1] is not None
        return fields if is_open and fields.get("epoch", "").encode() == meta[0] else None

    async def inspect(self, keys: AccountKeys) -> Snapshot:
        """One atomic look at an account. Reads all holds of its shard: for audits only."""
        state = keys.state
        names = bulks((keys.name, state.holds, state.meta))
        return snapshot(await self._run(state, "inspect", names))
