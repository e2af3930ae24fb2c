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
    await counters.open_shard(keys.shard, await ledger.next_epoch(keys.shard))
    state = await ledger.account_state(account_id)
    assert state is not None
    assert await counters.load(keys, state)
    return Caller(platform_id, account_id, key_id, grants, keys)


async def admitted(
    counters: Counters, who: Caller, amount: int, *, lease_ms: int = 60_000, floor: int = 0
) -> str:
    """The id of a call that holds this amount."""
    call_id = new_call_id()
    context = f"{who.platform_id},{who.account_id},{who.key_id},7,9".encode()
    outcome = await counters.admit(
        who.keys, call_id, str(who.key_id).encode(), amount, lease_ms, floor, context
    )
    assert isinstance(outcome, Admitted), outcome
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
