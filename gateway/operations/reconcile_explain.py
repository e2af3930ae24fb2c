"""Explains one account: what Redis has of it, what Postgres has, and what travels between them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from gateway.operations.accounts import find_account
from gateway.operations.audit import compare_accounts
from gateway.operations.audit_compare import lots_of
from gateway.operations.audit_look import LOOKS_MAX, read_books
from gateway.operations.audit_under_way import under_way
from gateway.operations.picture import take_picture

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.counters import Counters
    from gateway.ledger import AccountRow, Ledger
    from gateway.ledger.reconciling import LotBooks, Waiting
    from gateway.operations.audit_compare import Lot
    from gateway.operations.findings import Finding
    from gateway.operations.picture import ShardPicture
    from policies.settlement import LedgerChange, Settlement

STAGES = ("held", "dispatched")


class RunningCall(NamedTuple):
    """A hold: what the call may cost, what it costs should its lease end, and who pays."""

    call_id: str
    stage: str
    admitted_ms: int
    deadline_ms: int  # 0: it has no lease
    held_microcredits: int
    due_microcredits: int
    allocation: str


class ExplainedLot(NamedTuple):
    """One lot in both places; None where that one does not have it."""

    grant_id: int
    redis: Lot | None
    postgres: LotBooks | None


class Explained(NamedTuple):
    """An account at one moment, and in a sentence whether something is wrong with it."""

    account: AccountRow
    shard: int
    state: str  # of the account in Redis: loaded, not loaded, closed (its shard), lost (its shard)
    lots: Sequence[ExplainedLot]
    calls: Sequence[RunningCall]
    waiting: Sequence[Waiting]
    settlements: Sequence[Settlement]  # in the outbox, not in Postgres
    changes: Sequence[LedgerChange]  # the same
    findings: Sequence[Finding]
    sentence: str


async def explain_account(
    ledger: Ledger,
    counters: Counters,
    platform_id: int,
    name: str,
    *,
    looks_max: int = LOOKS_MAX,
) -> Explained:
    """Everything about the account's credits, and what is certainly wrong with them.

    Raises: UsageError without such an account; OperationError when its shard is too busy to read.
    """
    account = await find_account(ledger, platform_id, name)
    account_id = account.account_id
    found = await compare_accounts(ledger, counters, [account_id], looks_max=looks_max)
    keys = counters.keys(account_id)
    picture = await take_picture(counters, [keys])
    books = await read_books(ledger, picture)
    moving = under_way(picture, books)
    state = _state(picture, account_id)
    try:
        lots = (
            lots_of(account_id, picture.accounts[account_id], moving, books)
            if state == "loaded"
            else {}
        )
    except ValueError:
        lots = {}  # a finding says so
    explained = Explained(
        account=account,
        shard=keys.shard,
        state=state,
        lots=[
            ExplainedLot(number, lots.get(number), books.lots.get(number))
            for number in sorted(lots.keys() | books.lots.keys())
        ],
        calls=[
            RunningCall(
                call_id,
                STAGES[lease.stage] if lease else "without lease",
                hold.admitted_ms,
                lease.deadline_ms if lease else 0,
                hold.held,
                hold.due,
                hold.allocation,
            )
            for call_id, hold in sorted(picture.holds.items())
            if hold.account_id == account_id
            for lease in [picture.leases.get(call_id)]
        ],
        waiting=[late for late in books.waiting if late.account_id == account_id],
        settlements=moving.settlements[account_id],
        changes=moving.changes[account_id],
        findings=[finding for finding in found.values() if finding.account_id in (0, account_id)],
        sentence="",
    )
    return explained._replace(sentence=_sentence(explained))


def _state(picture: ShardPicture, account_id: int) -> str:
    if picture.closed:
        return "closed"
    if not picture.epoch:
        return "lost"
    return "loaded" if picture.loaded(account_id) else "not loaded"


def _sentence(explained: Explained) -> str:
    """What is wrong, if anything."""
    if explained.state == "closed":
        return f"Shard {explained.shard} is being rebuilt: calls wait until it is open again."
    if explained.findings:
        first, *others = explained.findings
        more = f" (and {len(others)} more)" if others else ""
        return f"Wrong: {first.subject}: {first.meaning}{more}."
    if explained.state == "lost":
        return (
            f"Nothing is wrong that the next call will not mend: shard {explained.shard} is empty "
            "in Redis and will be filled from Postgres."
        )
    if explained.state == "not loaded":
        return "Nothing is wrong: Redis does not have the account, its next call reads Postgres."
    travelling = len(explained.settlements) + len(explained.changes)
    return (
        f"Nothing is wrong: Redis and Postgres agree; calls running: {len(explained.calls)}, "
        f"settlements and changes on their way to Postgres: {travelling}, "
        f"late settlements on their way to Redis: {len(explained.waiting)}."
    )
