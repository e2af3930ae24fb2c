"""Looks at some accounts in Redis and in Postgres, until what is found is certain.

What one look finds guilty must still be there on every later one: an operator's command may be
between Postgres and Redis, and a settlement that Redis missed is told to it within seconds.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

from gateway.operations.audit_compare import CLOSED, compare_shard
from gateway.operations.audit_counters import counted_keys, has_caps
from gateway.operations.picture import CHANGED, take_picture

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from gateway.counters import AccountKeys, Counters
    from gateway.ledger import Ledger
    from gateway.ledger.reconciling import ShardBooks
    from gateway.operations.findings import Finding
    from gateway.operations.picture import ShardPicture

# Accounts read by one script: bounds how long Redis is busy with it.
BATCH_ACCOUNTS_MAX = 200
# Suspects are looked at again this often; together longer than telling Redis late takes (5 s).
LOOKS_MAX = 7
LOOK_PAUSE_S = 1.0

Suspicion = tuple[str, int, str]
Findings = dict[Suspicion, "Finding"]


class Suspect(NamedTuple):
    """Accounts of one shard, and what was found at every look at them so far."""

    batch: Sequence[AccountKeys]
    found: Findings


def suspicion(finding: Finding) -> Suspicion:
    """What makes two findings the same one, whatever the amounts are by now."""
    return finding.check, finding.account_id, finding.subject


def in_batches(accounts: Iterable[AccountKeys]) -> Iterator[Sequence[AccountKeys]]:
    """Accounts of one shard each, in bounded numbers."""
    by_shard: defaultdict[int, list[AccountKeys]] = defaultdict(list)
    for keys in accounts:
        by_shard[keys.shard].append(keys)
    for _, of_shard in sorted(by_shard.items()):
        for start in range(0, len(of_shard), BATCH_ACCOUNTS_MAX):
            yield of_shard[start : start + BATCH_ACCOUNTS_MAX]


async def look(ledger: Ledger, counters: Counters, batch: Sequence[AccountKeys]) -> Findings:
    """One look at accounts of one shard: every disagreement there is, or seems to be."""
    picture = await take_picture(counters, batch)
    books = await read_books(ledger, picture)
    return {suspicion(finding): finding for finding in compare_shard(picture, books)}


async def confirm(
    ledger: Ledger,
    counters: Counters,
    suspects: Sequence[Suspect],
    *,
    looks_max: int = LOOKS_MAX,
) -> Findings:
    """What is left of suspicions after looking again, `looks_max` times with the first look."""
    suspects = [suspect for suspect in suspects if suspect.found]
    for _ in range(looks_max - 1):
        if not suspects:
            break
        await asyncio.sleep(LOOK_PAUSE_S)
        again = [
            Suspect(batch, _still(found, await look(ledger, counters, batch)))
            for batch, found in suspects
        ]
        suspects = [suspect for suspect in again if suspect.found]
    return {name: finding for _, found in suspects for name, finding in found.items()}


async def read_books(ledger: Ledger, picture: ShardPicture) -> ShardBooks:
    """What Postgres has by now of what the picture shows."""
    done = {settlement.call_id for settlement in picture.settlements}
    changes = {change.change_id for change in picture.changes}
    for name, text in picture.markers.items():
        (changes if text.startswith(CHANGED) else done).add(name)
    return await ledger.shard_books(
        picture.shard,
        list(picture.accounts),
        # A call acknowledged before the picture can't have been settled in its very millisecond: it
        # has been committed in Postgres in between. So that millisecond belongs to "late" as a
        # whole.
        since_ms=picture.now_ms - 1,
        done=sorted(done),
        running=sorted(picture.holds),
        changes=sorted(changes),
        capped=[account_id for account_id, fields in picture.accounts.items() if has_caps(fields)],
        keys=sorted(
            {settlement.key_id for settlement in picture.settlements}.union(
                *(counted_keys(fields) for fields in picture.accounts.values())
            )
        ),
    )


def _still(before: Findings, now: Findings) -> Findings:
    """What was found before and is found again; all of it where nothing could be compared yet."""
    if any(check == CLOSED for check, _, _ in before):
        return now
    return {name: finding for name, finding in now.items() if name in before}
