"""Tells Redis what Postgres says of an account, after a change was committed.

Redis decides calls, Postgres is the truth. Every operation commits in Postgres first and then
publishes the account as a whole, so that publishing again also mends what an earlier command could
not tell. Everything told is absolute and idempotent: limits, states of keys, what each lot was
given in all, and when it pays. What was taken from a lot is never told: Redis knows better.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from gateway.counters.errors import CountersUnavailable
from gateway.operations.errors import NotToldError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from gateway.counters import AccountKeys, Counters
    from gateway.ledger import Ledger

# An account's status and limits; its keys ("k:5"); and counters, such as "K5.cd" or "u:7:token",
# which Redis takes only where it has none: that of a cap that is new begins with what was spent
# before, and a route with tiers that comes back in service with what was used of them.
FACTS = re.compile(r"status|rpm|rpmonth|conc|rules|k:\d+|[AKR]\d*\.[a-z]{2}|u:\d+:[a-z0-9_]+")


async def publish_account(
    ledger: Ledger, counters: Counters, account_id: int, account_name: str
) -> None:
    """Make the next call of the account follow what Postgres says.

    The account is locked meanwhile: of two commands at once, the second to publish has read what
    both committed. An account that Redis does not have needs nothing; its next call reads Postgres.
    Nor does one whose shard is opened anew meanwhile, for then what is read here is the older: a
    lot that is used up by now would be told as it was, and pay twice.

    Raises: NotToldError when Redis did not answer, or is rebuilding the shard.
    """
    keys = counters.keys(account_id)
    async with ledger.account_locked(account_id):
        try:
            epoch, seq = await counters.meta(keys.shard)
            state = await ledger.account_state(account_id)
            if not epoch or state is None:
                return
            if seq is None:
                raise NotToldError(account_name)
            if await counters.amend(keys, facts_of(state), epoch=epoch):
                await _credit_lots(counters, keys, state, epoch)
        except CountersUnavailable:
            raise NotToldError(account_name) from None


def publisher(ledger: Ledger, counters: Counters) -> Callable[[int], Awaitable[None]]:
    """The same by an account's id, for what happens without people.

    The answered function raises CountersUnavailable where `publish_account` raises NotToldError.
    """

    async def publish(account_id: int) -> None:
        try:
            await publish_account(ledger, counters, account_id, f"account {account_id}")
        except NotToldError as error:
            raise CountersUnavailable(str(error)) from error

    return publish


def facts_of(state: Mapping[str, str | int]) -> dict[str, str | int]:
    """What of an account's state moves no credits."""
    return {name: value for name, value in state.items() if FACTS.fullmatch(name)}


async def _credit_lots(
    counters: Counters, keys: AccountKeys, state: Mapping[str, str | int], epoch: int
) -> None:
    order = str(state["lots"])
    for token in order.split():
        lot = token.removesuffix("o")  # marks a lot of overage
        available, settled, withdrawn, expires_ms, effective_ms = (
            int(state[f"{field}:{lot}"]) for field in "aswef"
        )
        await counters.credit(
            keys,
            int(lot),
            total=available + settled + withdrawn,
            settled=settled,
            withdrawn=withdrawn,
            expires_ms=expires_ms,
            effective_ms=effective_ms,
            lots=order,
            epoch=epoch,
        )
