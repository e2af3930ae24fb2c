"""Tells Redis what Postgres says of an account, after a change was committed.

Redis decides calls, Postgres is the truth. Every operation commits in Postgres first and then
publishes the account as a whole, so that publishing again also mends what an earlier command could
not tell. Everything told is absolute and idempotent: limits, states of keys, what each lot was
given in all, and when it pays. What was taken from a lot is never told: Redis knows better.
"""

from __future__ import annotations

import re
from asyncio import gather
from typing import TYPE_CHECKING

from gateway.counters.errors import CountersUnavailable
from gateway.operations.errors import AccountsNotToldError, NotToldError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from gateway.counters import AccountKeys, Counters
    from gateway.ledger import Ledger

# An account's status and limits; its keys ("k:5"); and counters, such as "K5.cd" or "u:7:token",
# which Redis takes only where it has none: that of a cap that is new begins with what was spent
# before, and a route with tiers that comes back in service with what was used of them. A key's cap
# in total comes with the shares ("p:6") that it counts.
FACTS = re.compile(r"status|rpm|rpmonth|conc|rules|[kp]:\d+|[AKR]\d*\.[a-z]{2}|u:\d+:[a-z0-9_]+")

# Locked, read and told together: enough that round trips don't add up, few enough that nobody who
# changes one of them waits for long.
ACCOUNTS_AT_ONCE = 100


def unwatched(_done: int, _total: int) -> None:
    """For whoever does not want to see progress."""


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
        changes = await ledger.untold_changes([account_id])
        try:
            epoch, seq = await counters.meta(keys.shard)
            state = await ledger.account_state(account_id)
            if epoch and state is not None:
                if seq is None:
                    raise NotToldError(account_name)
                await _tell(counters, keys, state, epoch)
        except CountersUnavailable:
            raise NotToldError(account_name) from None
        await ledger.mark_told(changes)


async def publish_accounts(
    ledger: Ledger,
    counters: Counters,
    account_ids: Sequence[int],
    progress: Callable[[int, int], None] = unwatched,
) -> None:
    """The same of many accounts, as when their plan has changed: some at a time.

    Raises: AccountsNotToldError when Redis did not answer for all of them, or is rebuilding a
    shard; the others are told.
    """
    untold = False
    for start in range(0, len(account_ids), ACCOUNTS_AT_ONCE):
        progress(start, len(account_ids))
        some = account_ids[start : start + ACCOUNTS_AT_ONCE]
        async with ledger.accounts_locked(some):
            try:
                untold |= not await _publish_some(ledger, counters, some)
            except CountersUnavailable:
                raise AccountsNotToldError from None
    if untold:
        raise AccountsNotToldError


async def _publish_some(ledger: Ledger, counters: Counters, account_ids: Sequence[int]) -> bool:
    """Whether all of these locked accounts could be told."""
    keys = [counters.keys(account_id) for account_id in account_ids]
    shards = sorted({one.shard for one in keys})
    changes = await ledger.untold_changes(account_ids)
    metas = dict(zip(shards, await gather(*map(counters.meta, shards)), strict=True))
    states = await ledger.account_states(account_ids)
    telling = []
    whole = True
    for account_id, one in zip(account_ids, keys, strict=True):
        epoch, seq = metas[one.shard]
        if epoch and account_id in states:
            if seq is None:
                whole = False
                changes.pop(account_id, None)
            else:
                telling.append(_tell(counters, one, states[account_id], epoch))
    await gather(*telling)
    await ledger.mark_told(changes)
    return whole


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


async def _tell(
    counters: Counters, keys: AccountKeys, state: Mapping[str, str | int], epoch: int
) -> None:
    if await counters.amend(keys, facts_of(state), epoch=epoch):
        await _credit_lots(counters, keys, state, epoch)


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
