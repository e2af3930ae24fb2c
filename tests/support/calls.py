"""Calls that were admitted and settled in a real Redis, for accounts of a real ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from policies.decision import Admitted, Settled
from tests.support.settlements import account_with_grants, new_call_id

if TYPE_CHECKING:
    from gateway.counters import AccountKeys, Counters
    from gateway.ledger import Ledger


class Caller(NamedTuple):
    """An account that Redis has loaded, with a key and grants."""

    platform_id: int
    account_id: int
    key_id: int
    grants: list[int]
    keys: AccountKeys


async def caller(ledger: Ledger, counters: Counters, *amounts: int, name: str = "alice") -> Caller:
    """A new account with these grants, loaded into its shard."""
    platform_id, account_id, grants = await account_with_grants(ledger, *amounts, name=name)
    key_id = await ledger.create_key(
        account_id,
        name="test",
        prefix="tk_dev_ab",
        last4="wxyz",
        pepper_version=1,
        digest=name.encode(),
    )
    assert key_id is not None
    keys = counters.keys(account_id)
    await opened(ledger, counters, keys.shard)
    state = await ledger.account_state(account_id)
    assert state is not None
    assert await counters.load(keys, state)
    return Caller(platform_id, account_id, key_id, grants, keys)


async def opened(ledger: Ledger, counters: Counters, shard: int) -> None:
    """Open a shard for the first time, unless it is."""
    if not (await counters.meta(shard))[0]:
        epoch = await ledger.next_epoch(shard)
        assert await counters.close_shard(shard, epoch, 0)
        assert await counters.open_shard(shard, epoch)


async def admitted(
    counters: Counters,
    who: Caller,
    amount: int,
    *,
    lease_ms: int = 60_000,
    due: int = 0,
    sent_on: bool = False,
) -> str:
    """The id of a call that holds this amount, and perhaps was sent on."""
    call_id = new_call_id()
    context = f"{who.platform_id},{who.account_id},{who.key_id},7,9,".encode()
    outcome = await counters.admit(
        who.keys, call_id, str(who.key_id).encode(), amount, lease_ms, due, context
    )
    assert isinstance(outcome, Admitted), outcome
    if sent_on:
        await counters.dispatched(who.keys, call_id, outcome.admitted_ms + lease_ms)
    return call_id


async def settled(
    counters: Counters, who: Caller, call_id: str, owed: int, result: bytes = b""
) -> Settled:
    """Settle the call in Redis; nobody carries it on from the outbox."""
    outcome = await counters.settle(
        who.keys, call_id, owed, result or b"completed,200,token=30,units_missing,late"
    )
    assert isinstance(outcome, Settled), outcome
    return outcome
