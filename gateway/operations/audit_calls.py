"""The audit of what is under way in a shard: outbox, holds, leases, late settlements (I2, I4)."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from gateway.operations.findings import CONSERVATION, NO_LEAK, ONCE, Finding
from gateway.operations.picture import CHANGED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.ledger.reconciling import ShardBooks
    from gateway.operations.picture import ShardPicture

# A lease that is over is ended by the expiry job within this time, whoever died (invariant I4).
LEASE_GRACE_MS = 10_000
# A late settlement is charged within a second of Redis' answering; this long after its call's end
# something keeps it from being.
LATE_GRACE_MS = 60_000


def compare_calls(picture: ShardPicture, books: ShardBooks) -> Iterator[Finding]:
    """Every disagreement about the shard's calls and changes."""
    yield from _compare_texts(picture)
    yield from _compare_settlements(picture, books)
    yield from _compare_changes(picture, books)
    yield from _compare_markers(picture, books)
    yield from _compare_holds(picture, books)
    yield from _compare_leases(picture)
    yield from _compare_late(picture, books)


def _compare_texts(picture: ShardPicture) -> Iterator[Finding]:
    for subject, reason in picture.malformed:
        outbox = subject.startswith("outbox")
        yield Finding(
            ONCE,
            check="outbox_malformed" if outbox else "hold_malformed",
            account_id=0,
            subject=subject,
            expected="a settlement or a change" if outbox else "a hold",
            found=reason,
            meaning="the entry can't be written to Postgres, so what it took is stuck"
            if outbox
            else "nothing can settle this call",
            is_amount=False,
        )


def _compare_settlements(picture: ShardPicture, books: ShardBooks) -> Iterator[Finding]:
    """I2 for settlements on their way to Postgres."""
    entries = Counter(settlement.call_id for settlement in picture.settlements)
    for settlement in picture.settlements:
        finding = _about_call(settlement.account_id, settlement.call_id)
        row = books.calls.get(settlement.call_id)
        if entries[settlement.call_id] > 1:
            yield finding._replace(
                check="outbox_twice",
                expected=1,
                found=entries[settlement.call_id],
                meaning="the call was settled more than once",
                is_amount=False,
            )
        elif row is None and settlement.call_id not in picture.markers:
            yield finding._replace(
                check="settlement_unmarked",
                expected=settlement.charged_microcredits,
                meaning="the shard forgot that the call is settled, so it could be charged again",
            )
        if row is not None and (
            row.charged_microcredits != settlement.charged_microcredits
            or row.uncollected_microcredits != settlement.uncollected_microcredits
            or row.account_id != settlement.account_id
        ):
            yield finding._replace(
                check="settled_differently",
                expected=settlement.charged_microcredits,
                found=row.charged_microcredits,
                meaning="Redis and Postgres have different settlements of the call",
            )


def _compare_changes(picture: ShardPicture, books: ShardBooks) -> Iterator[Finding]:
    """The same for what was withdrawn."""
    entries = Counter(change.change_id for change in picture.changes)
    for change in picture.changes:
        taken = sum(posting.microcredits for posting in change.postings)
        finding = _about_change(change.account_id, change.change_id)
        row = books.changes.get(change.change_id)
        if entries[change.change_id] > 1:
            yield finding._replace(
                check="change_twice",
                expected=1,
                found=entries[change.change_id],
                meaning="the change was made more than once",
                is_amount=False,
            )
        elif row is None and change.change_id not in picture.markers:
            yield finding._replace(
                check="change_unmarked",
                expected=taken,
                meaning="the shard forgot that the change is made, so it could be made again",
            )
        if row is not None and (
            row.taken_microcredits != taken
            or row.account_id != change.account_id
            or row.kind != change.kind
        ):
            yield finding._replace(
                check="changed_differently",
                expected=taken,
                found=row.taken_microcredits,
                meaning="Redis and Postgres have different accounts of the change",
            )


def _compare_markers(picture: ShardPicture, books: ShardBooks) -> Iterator[Finding]:
    """I2 for what Redis remembers as done: it is in the outbox or in Postgres."""
    settlements = {settlement.call_id for settlement in picture.settlements}
    changes = {change.change_id for change in picture.changes}
    for name, text in picture.markers.items():
        if text.startswith(CHANGED):
            if name not in changes and name not in books.changes:
                yield _about_change(0, name)._replace(
                    check="change_lost",
                    expected=f"outbox entry {text[2:]}",
                    found="none",
                    meaning="credits were withdrawn; the outbox and Postgres know nothing of it",
                    is_amount=False,
                )
        elif name not in settlements and name not in books.calls:
            yield _about_call(0, name)._replace(
                check="settlement_lost",
                expected=f"outbox entry {text[2:]}",
                found="none",
                meaning="the call was settled; the outbox and Postgres know nothing of it",
                is_amount=False,
            )


def _compare_holds(picture: ShardPicture, books: ShardBooks) -> Iterator[Finding]:
    """I2 for calls that run."""
    for call_id, hold in picture.holds.items():
        row = books.calls.get(call_id)
        if row is not None and row.settled_ms < picture.now_ms:
            yield _about_call(row.account_id, call_id)._replace(
                check="settled_and_held",
                found=hold.held,
                meaning="the call is settled in Postgres and still holds credits",
            )


def _compare_leases(picture: ShardPicture) -> Iterator[Finding]:
    """I4: every hold has a lease, every lease a hold, and none is over beyond the grace."""
    for call_id, hold in picture.holds.items():
        if call_id not in picture.leases:
            yield _leak(hold.account_id, call_id)._replace(
                check="lease_missing",
                expected="a lease",
                found="none",
                meaning="nothing will ever end this hold",
            )
    for call_id, lease in picture.leases.items():
        live = picture.holds.get(call_id)
        over_ms = picture.now_ms - lease.deadline_ms
        if live is None:
            yield _leak(0, call_id)._replace(
                check="lease_without_hold",
                expected="a hold",
                found="none",
                meaning="the hold was lost",
            )
        elif over_ms > LEASE_GRACE_MS:
            yield _leak(live.account_id, call_id)._replace(
                check="hold_overdue",
                expected="ended within 10 s of its lease",
                found=f"over for {over_ms // 1000} s",
                meaning="the hold should have been expired: is the expiry job running?",
            )


def _compare_late(picture: ShardPicture, books: ShardBooks) -> Iterator[Finding]:
    """A call may have a hold and a late settlement for a while, but not for ever."""
    for late in books.waiting:
        waiting_ms = picture.now_ms - late.ended_ms
        if waiting_ms > LATE_GRACE_MS:
            yield _leak(late.account_id, late.call_id)._replace(
                check="late_settlement_stuck",
                expected="charged as soon as Redis answers",
                found=f"ended {waiting_ms // 1000} s ago",
                meaning="the call ended without Redis and is not charged yet: does a node run?",
            )


def _leak(account_id: int, call_id: str) -> Finding:
    return _about_call(account_id, call_id)._replace(invariant=NO_LEAK, is_amount=False)


def _about_call(account_id: int, call_id: str) -> Finding:
    return Finding(ONCE, "", account_id, f"call {call_id}", 0, 0, "")


def _about_change(account_id: int, change_id: str) -> Finding:
    return Finding(CONSERVATION, "", account_id, f"change {change_id}", 0, 0, "")
