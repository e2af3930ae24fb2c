"""Holds one shard's picture in Redis against the books in Postgres. Pure: values in, findings out.

The two are never read at the same instant: settlements travel from Redis to Postgres while we look.
It comes out even all the same, because the picture of Redis is atomic and taken first, and what a
script took leaves the outbox only when it is in Postgres. What Redis counts as settled (or as
withdrawn: expired, revoked, adjusted down) on a lot at the instant T of the picture is therefore
exactly

    what Postgres counts, read after T
    - what was taken after T and is in Postgres already ("late": not in the outbox at T)
    + what was in the outbox at T and is not in Postgres yet ("travelling").

What was given to a lot goes the other way, Postgres first: there Redis may lag until it is told, so
a difference counts only if it is still there at a later look (audit.py).

This file has the shard and its lots; audit_calls.py the calls and changes under way, and
audit_counters.py what is counted besides credits.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

from gateway.operations.audit_calls import compare_calls
from gateway.operations.audit_counters import compare_counters
from gateway.operations.audit_under_way import under_way
from gateway.operations.findings import CONSERVATION, NO_OVERSELL, Finding
from policies.settlement import parse_postings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from gateway.ledger.reconciling import LotBooks, ShardBooks
    from gateway.operations.audit_under_way import UnderWay
    from gateway.operations.picture import ShardPicture

CLOSED = "shard_closed"


class Lot(NamedTuple):
    """One lot of one account, from every side but that of its row in Postgres."""

    grant_id: int
    available: int
    held: int
    settled: int
    withdrawn: int
    expires_ms: int
    effective_ms: int
    token: str  # how the burn-down order has it: "12", "99o" for overage, "" not at all
    held_by_calls: int
    travelling_settled: int
    travelling_withdrawn: int
    late_settled: int
    late_withdrawn: int

    @property
    def total(self) -> int:
        """All that Redis knows to have been given to the lot."""
        return self.available + self.held + self.settled + self.withdrawn


def compare_shard(picture: ShardPicture, books: ShardBooks) -> Iterator[Finding]:
    """Every disagreement of a shard as a whole, and of the accounts in its picture."""
    if picture.closed:
        yield Finding(
            CONSERVATION,
            check=CLOSED,
            account_id=0,
            subject=f"shard {picture.shard}",
            expected="open",
            found="closed",
            meaning="the shard is being rebuilt, so nothing of it can be compared",
            is_amount=False,
        )
        return
    yield from compare_calls(picture, books)
    moving = under_way(picture, books)
    for account_id, fields in picture.accounts.items():
        holds = moving.holds[account_id]
        if picture.loaded(account_id):
            try:
                yield from compare_counters(account_id, fields, moving, books, picture.now_ms)
                lots = lots_of(account_id, fields, moving, books)
            except ValueError as error:
                yield _about_account(account_id)._replace(
                    check="redis_account_malformed",
                    expected="what scripts write",
                    found=str(error),
                    meaning="the account in Redis has a field that no script wrote",
                )
                continue
            yield from _compare_lots(account_id, lots, picture.now_ms, books)
        elif holds:
            yield _about_account(account_id)._replace(
                check="redis_account_missing",
                expected="a loaded account",
                found=f"{len(holds)} holds without one",
                meaning="Redis lost the account's balance while calls were running",
            )


def lots_of(
    account_id: int, fields: Mapping[str, str], moving: UnderWay, books: ShardBooks
) -> dict[int, Lot]:
    """The lots that Redis has of a loaded account, or that its holds name.

    Raises: ValueError when a field is no number.
    """
    tokens = {int(token.removesuffix("o")): token for token in fields.get("lots", "").split()}
    held: defaultdict[int, int] = defaultdict(int)
    for hold in moving.holds[account_id]:
        for posting in parse_postings(hold.allocation):
            held[posting.grant_id] += posting.microcredits
    named = {int(name[2:]) for name in fields if name.startswith("a:")}
    lots = {}
    for grant_id in sorted(named | held.keys()):
        available, held_there, settled, withdrawn, expires_ms, effective_ms = (
            int(fields.get(f"{kind}:{grant_id}", "0")) for kind in "ahswef"
        )
        late = books.late.get(grant_id)
        lots[grant_id] = Lot(
            grant_id=grant_id,
            available=available,
            held=held_there,
            settled=settled,
            withdrawn=withdrawn,
            expires_ms=expires_ms,
            effective_ms=effective_ms,
            token=tokens.get(grant_id, ""),
            held_by_calls=held[grant_id],
            travelling_settled=moving.settled[grant_id],
            travelling_withdrawn=moving.withdrawn[grant_id],
            late_settled=late.settled if late else 0,
            late_withdrawn=late.withdrawn if late else 0,
        )
    return lots


def _compare_lots(
    account_id: int, lots: Mapping[int, Lot], now_ms: int, books: ShardBooks
) -> Iterator[Finding]:
    """I1 and I3 for every lot that Redis has, and for those that it should have."""
    for grant_id, lot in lots.items():
        finding = _about_grant(account_id, grant_id)
        grant = books.lots.get(grant_id)
        if grant is None or grant.account_id != account_id:
            yield finding._replace(
                check="redis_unknown_grant",
                found=lot.total,
                meaning="Redis has a grant that Postgres does not know",
            )
            continue
        yield from _compare_amounts(finding, lot, grant)
        yield from _compare_place(finding, lot, grant, now_ms)
    for grant in books.lots.values():
        left = grant.given - grant.settled_microcredits - grant.withdrawn
        absent = grant.account_id == account_id and grant.grant_id not in lots
        if absent and left > 0 and not _over(grant, now_ms):
            yield _about_grant(account_id, grant.grant_id)._replace(
                check="redis_grant_missing",
                expected=left,
                meaning="Redis does not know the grant, so no call can use it",
            )


def _compare_amounts(finding: Finding, lot: Lot, grant: LotBooks) -> Iterator[Finding]:
    total = grant.given
    if lot.total != total:
        yield finding._replace(
            check="redis_lot_sum",
            expected=total,
            found=lot.total,
            meaning="available + held + settled + withdrawn differs from what was granted",
        )
    if lot.held != lot.held_by_calls:
        yield finding._replace(
            check="redis_lot_held",
            expected=lot.held_by_calls,
            found=lot.held,
            meaning="the held amount differs from the sum of the holds there are",
        )
    settled = grant.settled_microcredits - lot.late_settled + lot.travelling_settled
    if lot.settled != settled:
        yield finding._replace(
            check="redis_lot_settled",
            expected=settled,
            found=lot.settled,
            meaning="settled in Redis differs from Postgres and what is on its way there",
        )
    withdrawn = grant.withdrawn - lot.late_withdrawn + lot.travelling_withdrawn
    if lot.withdrawn != withdrawn:
        yield finding._replace(
            check="redis_lot_withdrawn",
            expected=withdrawn,
            found=lot.withdrawn,
            meaning="expired or revoked in Redis differs from Postgres and what is on its way",
        )
    taken = lot.held + lot.settled + lot.withdrawn
    if min(lot.available, lot.held, lot.settled, lot.withdrawn) < 0 or taken > total:
        yield finding._replace(
            invariant=NO_OVERSELL,
            check="redis_oversold",
            expected=total,
            found=taken,
            meaning="more was held, settled and withdrawn than was granted",
        )


def _compare_place(finding: Finding, lot: Lot, grant: LotBooks, now_ms: int) -> Iterator[Finding]:
    """Whether calls can use the lot, and only when and how they should."""
    if lot.available > 0 and not lot.token and not _over(grant, now_ms):
        yield finding._replace(
            check="redis_lot_unreachable",
            expected=lot.available,
            meaning="these credits are in no burn-down order, so no call can use them",
        )
    if lot.token and lot.token.endswith("o") != (grant.source == "overage"):
        yield finding._replace(
            check="redis_lot_overage",
            expected=grant.source,
            found="overage" if lot.token.endswith("o") else "no overage",
            meaning="Redis and Postgres differ on whether this is overage, which is billed",
            is_amount=False,
        )
    times = (lot.effective_ms, lot.expires_ms)
    if times != (grant.effective_ms, grant.expires_ms) and lot.available + lot.held > 0:
        yield finding._replace(
            check="redis_lot_times",
            expected=f"{grant.effective_ms} to {grant.expires_ms}",
            found=f"{times[0]} to {times[1]}",
            meaning="Redis lets the grant pay in another time (ms) than Postgres says",
            is_amount=False,
        )


def _about_account(account_id: int) -> Finding:
    return Finding(CONSERVATION, "", account_id, "account", 0, 0, "", is_amount=False)


def _about_grant(account_id: int, grant_id: int) -> Finding:
    return Finding(CONSERVATION, "", account_id, f"grant {grant_id}", 0, 0, "")


def _over(grant: LotBooks, now_ms: int) -> bool:
    return 0 < grant.expires_ms <= now_ms
