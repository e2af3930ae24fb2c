"""Holds one shard's picture in Redis against the books in Postgres. Pure: values in, findings out.

The two are never read at the same instant: settlements travel from Redis to Postgres while we look.
It comes out even all the same, because the picture of Redis is atomic and taken first, and a
settlement leaves the outbox only when it is in Postgres. What Redis counts as settled on a grant at
the instant T of the picture is therefore exactly

    what Postgres counts, read after T
    - what was settled after T and is in Postgres already ("late": not in the outbox at T)
    + what was in the outbox at T and is not in Postgres yet ("travelling").
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from gateway.operations.findings import CONSERVATION, NO_LEAK, NO_OVERSELL, ONCE, Finding
from policies.settlement import parse_postings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from gateway.ledger.rows import CallBooksRow, GrantBooksRow
    from policies.settlement import Settlement

# A lease that is over is ended by the expiry job within this time, whoever died (invariant I4).
LEASE_GRACE_MS = 10_000


@dataclass(frozen=True, slots=True)
class Books:
    """Postgres at one instant after the picture.

    The grants of the accounts, the calls that the picture names, and what came late per grant.
    """

    grants: Mapping[int, GrantBooksRow]
    calls: Mapping[str, CallBooksRow]
    late: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class ShardPicture:
    """One shard of Redis, with some of its accounts, at one instant."""

    shard: int
    epoch: int
    now_ms: int
    accounts: Mapping[int, Mapping[str, str]]
    holds: Mapping[str, str]
    leases: Mapping[str, int]
    outbox: tuple[Settlement, ...] = ()
    malformed: tuple[str, ...] = ()  # outbox entries that can't be read, with the reason


class _Lot(NamedTuple):
    """One grant of one account, from every side."""

    available: int
    held: int
    settled: int
    held_by_calls: int
    travelling: int
    late: int
    ordered: bool


def compare_shard(picture: ShardPicture, books: Books) -> Iterator[Finding]:
    """Every disagreement of a shard as a whole, and of the accounts in its picture."""
    yield from _compare_outbox(picture, books)
    yield from _compare_holds(picture, books)
    yield from _compare_leases(picture)
    running: Counter[int] = Counter()
    held: defaultdict[int, Counter[int]] = defaultdict(Counter)
    for text in picture.holds.values():
        if text.startswith("h|"):
            account_id = _account_of(text)
            running[account_id] += 1
            for posting in parse_postings(text.split("|", 6)[5]):
                held[account_id][posting.grant_id] += posting.microcredits
    travelling: Counter[int] = Counter()
    for settlement in picture.outbox:
        if settlement.call_id not in books.calls:
            for posting in settlement.postings:
                travelling[posting.grant_id] += posting.microcredits
    for account_id, fields in picture.accounts.items():
        if picture.epoch > 0 and fields.get("epoch") == str(picture.epoch):
            yield from _compare_running(account_id, fields, running[account_id])
            lots = dict(_lots(fields, held[account_id], travelling, books))
            yield from _compare_lots(account_id, lots, picture.now_ms, books)
        elif running[account_id]:
            yield Finding(
                CONSERVATION,
                check="redis_account_missing",
                account_id=account_id,
                subject="account",
                expected="a loaded account",
                found=f"{running[account_id]} holds without one",
                meaning="Redis lost the account's balance while calls were running",
                is_amount=False,
            )


def _lots(
    fields: Mapping[str, str], held: Counter[int], travelling: Counter[int], books: Books
) -> Iterator[tuple[int, _Lot]]:
    order = fields.get("lots", "").split()
    named = {int(name[2:]) for name in fields if name.startswith("a:")}
    for grant_id in sorted(named | held.keys()):
        yield (
            grant_id,
            _Lot(
                available=int(fields.get(f"a:{grant_id}", "0")),
                held=int(fields.get(f"h:{grant_id}", "0")),
                settled=int(fields.get(f"s:{grant_id}", "0")),
                held_by_calls=held[grant_id],
                travelling=travelling[grant_id],
                late=books.late.get(grant_id, 0),
                ordered=str(grant_id) in order,
            ),
        )


def _compare_running(account_id: int, fields: Mapping[str, str], running: int) -> Iterator[Finding]:
    counted = int(fields.get("running", "0"))
    if counted != running:
        yield Finding(
            CONSERVATION,
            check="redis_running",
            account_id=account_id,
            subject="account",
            expected=running,
            found=counted,
            meaning="the count of running calls differs from the holds there are",
            is_amount=False,
        )


def _compare_lots(
    account_id: int, lots: Mapping[int, _Lot], now_ms: int, books: Books
) -> Iterator[Finding]:
    """I1 and I3 for every lot that Redis has, and for those that it should have."""
    for grant_id, lot in lots.items():
        finding = _about_grant(account_id, grant_id)
        grant = books.grants.get(grant_id)
        if grant is None or grant.account_id != account_id:
            yield finding._replace(
                check="redis_unknown_grant",
                found=lot.available + lot.held + lot.settled,
                meaning="Redis has a grant that Postgres does not know",
            )
            continue
        yield from _compare_lot(finding, lot, grant)
        if lot.available > 0 and not lot.ordered and not _over(grant, now_ms):
            yield finding._replace(
                check="redis_lot_unreachable",
                expected=lot.available,
                meaning="these credits are in no burn-down order, so no call can use them",
            )
    for grant in books.grants.values():
        left = grant.amount_microcredits - grant.settled_microcredits - _withdrawn(grant)
        absent = grant.account_id == account_id and grant.grant_id not in lots
        if absent and left > 0 and not _over(grant, now_ms):
            yield _about_grant(account_id, grant.grant_id)._replace(
                check="redis_grant_missing",
                expected=left,
                meaning="Redis does not know the grant, so no call can use it",
            )


def _compare_lot(finding: Finding, lot: _Lot, grant: GrantBooksRow) -> Iterator[Finding]:
    granted = grant.amount_microcredits - _withdrawn(grant)
    if lot.available + lot.held + lot.settled != granted:
        yield finding._replace(
            check="redis_lot_sum",
            expected=granted,
            found=lot.available + lot.held + lot.settled,
            meaning="available + held + settled differs from what was granted",
        )
    if lot.held != lot.held_by_calls:
        yield finding._replace(
            check="redis_lot_held",
            expected=lot.held_by_calls,
            found=lot.held,
            meaning="the held amount differs from the sum of the holds there are",
        )
    settled = grant.settled_microcredits - lot.late + lot.travelling
    if lot.settled != settled:
        yield finding._replace(
            check="redis_lot_settled",
            expected=settled,
            found=lot.settled,
            meaning="settled in Redis differs from Postgres and what is on its way there",
        )
    if min(lot.available, lot.held, lot.settled) < 0 or lot.held + lot.settled > granted:
        yield finding._replace(
            invariant=NO_OVERSELL,
            check="redis_oversold",
            expected=granted,
            found=lot.held + lot.settled,
            meaning="more is held and settled than was granted",
        )


def _compare_outbox(picture: ShardPicture, books: Books) -> Iterator[Finding]:
    """I2 for what is on its way to Postgres."""
    for reason in picture.malformed:
        yield Finding(
            ONCE,
            check="outbox_malformed",
            account_id=0,
            subject=reason,
            expected="a settlement",
            found="unreadable",
            meaning="the entry can't be written to Postgres, so its settlement is stuck",
            is_amount=False,
        )
    entries = Counter(settlement.call_id for settlement in picture.outbox)
    for settlement in picture.outbox:
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


def _compare_holds(picture: ShardPicture, books: Books) -> Iterator[Finding]:
    """I2 for what Redis remembers of calls, running and settled."""
    entries = {settlement.call_id for settlement in picture.outbox}
    for call_id, text in picture.holds.items():
        row = books.calls.get(call_id)
        if text.startswith("s|") and row is None and call_id not in entries:
            yield _about_call(0, call_id)._replace(
                check="settlement_lost",
                expected=int(text.split("|", 2)[1]),
                meaning="the call was settled; the outbox and Postgres know nothing of it",
            )
        if text.startswith("h|") and row is not None and row.settled_ms < picture.now_ms:
            yield _about_call(row.account_id, call_id)._replace(
                check="settled_and_held",
                found=int(text.split("|", 4)[3]),
                meaning="the call is settled in Postgres and still holds credits",
            )


def _compare_leases(picture: ShardPicture) -> Iterator[Finding]:
    """I4: every hold has a lease, every lease a hold, and none is over beyond the grace."""
    for call_id, text in picture.holds.items():
        if text.startswith("h|") and call_id not in picture.leases:
            yield _leak(text, call_id)._replace(
                check="lease_missing",
                expected="a lease",
                found="none",
                meaning="nothing will ever end this hold",
            )
    for call_id, deadline_ms in picture.leases.items():
        text = picture.holds.get(call_id, "")
        if not text.startswith("h|"):
            yield _leak(text, call_id)._replace(
                check="lease_without_hold",
                expected="a hold",
                found="none",
                meaning="the hold was lost",
            )
        elif deadline_ms + LEASE_GRACE_MS < picture.now_ms:
            yield _leak(text, call_id)._replace(
                check="hold_overdue",
                expected="ended within 10 s of its lease",
                found=f"over for {(picture.now_ms - deadline_ms) // 1000} s",
                meaning="the hold should have been expired: is the expiry job running?",
            )


def _leak(text: str, call_id: str) -> Finding:
    account_id = _account_of(text) if text.startswith("h|") else 0
    return _about_call(account_id, call_id)._replace(invariant=NO_LEAK, is_amount=False)


def _about_grant(account_id: int, grant_id: int) -> Finding:
    return Finding(CONSERVATION, "", account_id, f"grant {grant_id}", 0, 0, "")


def _about_call(account_id: int, call_id: str) -> Finding:
    return Finding(ONCE, "", account_id, f"call {call_id}", 0, 0, "")


def _account_of(hold: str) -> int:
    return int(hold.split("|", 2)[1])


def _withdrawn(grant: GrantBooksRow) -> int:
    return grant.expired_microcredits + grant.revoked_microcredits


def _over(grant: GrantBooksRow, now_ms: int) -> bool:
    return 0 < grant.expires_ms <= now_ms
