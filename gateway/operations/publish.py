"""Tells Redis what Postgres says of an account, after a change was committed.

Redis decides calls, Postgres is the truth. Every operation commits in Postgres first and then
publishes the account as a whole, so that publishing again also mends what an earlier command could
not tell. Everything told is absolute and idempotent: limits, states of keys, and lots that the
account does not have yet. Balances are never overwritten.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.counters.errors import CountersUnavailable
from gateway.operations.errors import NotToldError

if TYPE_CHECKING:
    from gateway.counters import Counters
    from gateway.ledger import Ledger

FACTS = ("status", "rpm", "rpmonth", "conc")


async def publish_account(
    ledger: Ledger, counters: Counters, account_id: int, account_name: str
) -> None:
    """Make the next call of the account follow what Postgres says.

    The account is locked meanwhile: of two commands at once, the second to publish has read what
    both committed. An account that Redis does not have needs nothing; its next call reads Postgres.

    Raises: NotToldError when Redis did not answer.
    """
    keys = counters.keys(account_id)
    async with ledger.account_locked(account_id):
        state = await ledger.account_state(account_id)
        if state is None:
            return
        facts = {
            name: value for name, value in state.items() if name in FACTS or name.startswith("k:")
        }
        lots = str(state["lots"])
        try:
            if not await counters.amend(keys, facts):
                return
            for lot in lots.split():
                await counters.grant(
                    keys,
                    int(lot),
                    amount=int(state[f"a:{lot}"]),
                    expires_ms=int(state[f"e:{lot}"]),
                    effective_ms=int(state[f"f:{lot}"]),
                    lots=lots,
                )
        except CountersUnavailable:
            raise NotToldError(account_name) from None
