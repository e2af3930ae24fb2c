"""Reconciliation: compares Redis and Postgres for ever, slowly, and changes nothing.

One turn looks at one shard, or at so many accounts of it; a tour visits every account there is.
What a turn reports is certain (`audit_look`), and stands until the next visit of the shard finds
otherwise. Drift is for people to judge (`tollkeeper reconcile --explain`): whichever side were
overwritten, it could be the one that is right.
"""

from __future__ import annotations

from array import array
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from gateway.operations.audit_look import LOOKS_MAX, Suspect, confirm, in_batches, look

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gateway.counters import Counters
    from gateway.ledger import Ledger
    from gateway.operations.audit_look import Findings
    from gateway.operations.findings import Finding

# Bounds what one turn reads: ten pictures of Redis, each with its books.
TURN_ACCOUNTS_MAX = 2_000
PAGE_ACCOUNTS_MAX = 10_000


class Turn(NamedTuple):
    """What one turn looked at; `shard` None: there is no account to look at."""

    shard: int | None
    accounts: int
    findings: Sequence[Finding]


class Reconciler:
    """Where a tour has come to, and what was found where.

    Keeps the ids of the accounts of a tour, 8 bytes each; accounts made since come with the next.
    """

    def __init__(self, ledger: Ledger, counters: Counters, *, looks_max: int = LOOKS_MAX) -> None:
        self._ledger = ledger
        self._counters = counters
        self._looks_max = looks_max
        self._waiting: dict[int, array[int]] = {}
        self._visiting: int | None = None
        self._found: Findings = {}
        self._standing: dict[int, Findings] = {}

    def drift(self) -> Mapping[str, int]:
        """How many disagreements stand, by check: of the last full visit of each shard."""
        return Counter(check for found in self._standing.values() for check, _, _ in found)

    async def turn(self) -> Turn:
        """Look at the next accounts of a shard.

        What fails is not looked at again before the next tour.

        Raises: LedgerUnavailable, CountersUnavailable; OperationError when the shard is too busy.
        """
        shard, account_ids = await self._next()
        if shard is None:
            return Turn(None, 0, ())
        batches = in_batches(self._counters.keys(number) for number in account_ids)
        suspects = [
            Suspect(batch, await look(self._ledger, self._counters, batch)) for batch in batches
        ]
        found = await confirm(self._ledger, self._counters, suspects, looks_max=self._looks_max)
        self._found |= found
        if shard not in self._waiting:
            self._standing[shard] = self._found
        return Turn(shard, len(account_ids), list(found.values()))

    async def _next(self) -> tuple[int | None, Sequence[int]]:
        if not self._waiting:
            await self._begin()
        if not self._waiting:
            return None, ()
        shard = min(self._waiting)
        if shard != self._visiting:
            self._visiting, self._found = shard, {}
        ids = self._waiting[shard]
        chosen = ids[:TURN_ACCOUNTS_MAX]
        del ids[:TURN_ACCOUNTS_MAX]
        if not ids:
            del self._waiting[shard]
        return shard, chosen

    async def _begin(self) -> None:
        """A new tour: every account that there is now, by shard."""
        waiting: dict[int, array[int]] = {}
        after = 0
        while page := await self._ledger.account_ids(after, PAGE_ACCOUNTS_MAX):
            for account_id in page:
                shard = self._counters.keys(account_id).shard
                waiting.setdefault(shard, array("q")).append(account_id)
            after = page[-1]
        self._waiting, self._visiting = waiting, None
