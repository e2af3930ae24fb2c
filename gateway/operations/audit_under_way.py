"""What a picture shows as under way, sorted by whose it is: holds, and what travels to Postgres."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gateway.ledger.reconciling import ShardBooks
    from gateway.operations.picture import ShardPicture
    from policies.rebuild import HoldText
    from policies.settlement import LedgerChange, Settlement

LATE = "late"  # the one kind of change that counts as settled


class UnderWay(NamedTuple):
    """By account: live holds, and what is in the outbox but not in Postgres yet.

    `settled` and `withdrawn` are what of that was taken, by lot. Asking for what is not there
    answers nothing, or 0.
    """

    holds: Mapping[int, Sequence[HoldText]]
    settlements: Mapping[int, Sequence[Settlement]]
    changes: Mapping[int, Sequence[LedgerChange]]
    settled: Mapping[int, int]
    withdrawn: Mapping[int, int]


def under_way(picture: ShardPicture, books: ShardBooks) -> UnderWay:
    """Sorts a shard's holds and its outbox."""
    holds: defaultdict[int, list[HoldText]] = defaultdict(list)
    settlements: defaultdict[int, list[Settlement]] = defaultdict(list)
    changes: defaultdict[int, list[LedgerChange]] = defaultdict(list)
    settled: defaultdict[int, int] = defaultdict(int)
    withdrawn: defaultdict[int, int] = defaultdict(int)
    for hold in picture.holds.values():
        holds[hold.account_id].append(hold)
    for settlement in picture.settlements:
        if settlement.call_id not in books.calls:
            settlements[settlement.account_id].append(settlement)
            for posting in settlement.postings:
                settled[posting.grant_id] += posting.microcredits
    for change in picture.changes:
        if change.change_id not in books.changes:
            changes[change.account_id].append(change)
            sums = settled if change.kind == LATE else withdrawn
            for posting in change.postings:
                sums[posting.grant_id] += posting.microcredits
    return UnderWay(holds, settlements, changes, settled, withdrawn)
