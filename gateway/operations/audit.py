"""The audit: whether the invariants I1 to I4 hold in Redis and Postgres, now, under load.

Each part reads one instant, so running calls disturb nothing:

1. Shard by shard, a picture of Redis against the books in Postgres (`audit_compare` says why this
   comes out even although the two are read one after the other).
2. Postgres by itself: grants against ledger entries, settlements against ledger entries, roll-ups
   against settlements, one statement each.

What a shard is found guilty of must still be there on every later look: an operator's command may
be between Postgres and Redis, and a settlement that Redis missed is told to it within seconds.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

from gateway.operations.audit_compare import Books, compare_shard
from gateway.operations.findings import CONSERVATION, NO_OVERSELL, ONCE, Finding
from gateway.operations.moments import format_moment
from gateway.operations.picture import take_picture

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from gateway.counters import AccountKeys, Counters
    from gateway.ledger import Ledger
    from gateway.ledger.desk import AuditAccountRow
    from gateway.ledger.rows import CallDrift, GrantDrift, UsageDrift
    from gateway.operations.audit_compare import ShardPicture

# Accounts read by one script: bounds how long Redis is busy with it.
BATCH_ACCOUNTS_MAX = 200
# Suspects are looked at again this often; together longer than telling Redis late takes (5 s).
LOOKS_MAX = 7
LOOK_PAUSE_S = 1.0

Suspicion = tuple[str, int, str]


class AuditReport(NamedTuple):
    """What was looked at, and every disagreement found; none: the invariants hold."""

    accounts: dict[int, AuditAccountRow]
    findings: list[Finding]


def _unwatched(_done: int, _total: int) -> None:
    """For whoever does not want to see progress."""


async def audit(
    ledger: Ledger,
    counters: Counters,
    *,
    account_id: int | None = None,
    looks_max: int = LOOKS_MAX,
    progress: Callable[[int, int], None] = _unwatched,
) -> AuditReport:
    """Check every account of the deployment, or one. Only reads.

    Raises: LedgerUnavailable, CountersUnavailable; OperationError when a shard is too busy to read.
    """
    accounts = {
        row.account_id: row
        for row in await ledger.audit_accounts()
        if account_id in (None, row.account_id)
    }
    batches = list(_batches([counters.keys(number) for number in accounts]))
    findings: dict[Suspicion, Finding] = {}
    done = 0
    suspects: list[tuple[Sequence[AccountKeys], dict[Suspicion, Finding]]] = []
    for batch in batches:
        if found := await _look(ledger, counters, batch):
            suspects.append((batch, found))
        done += len(batch)
        progress(done, len(accounts))
    for _ in range(looks_max - 1):
        if not suspects:
            break
        await asyncio.sleep(LOOK_PAUSE_S)
        again = [
            (batch, _still(before, await _look(ledger, counters, batch)))
            for batch, before in suspects
        ]
        suspects = [(batch, found) for batch, found in again if found]
    for _, found in suspects:
        findings.update(found)
    for finding in await _audit_books(ledger):
        findings[_suspicion(finding)] = finding
    chosen = [finding for finding in findings.values() if account_id in (None, finding.account_id)]
    return AuditReport(accounts, sorted(chosen, key=_order))


def _batches(accounts: Sequence[AccountKeys]) -> Iterator[Sequence[AccountKeys]]:
    """Accounts of one shard each, in bounded numbers."""
    by_shard: defaultdict[int, list[AccountKeys]] = defaultdict(list)
    for keys in accounts:
        by_shard[keys.shard].append(keys)
    for _, of_shard in sorted(by_shard.items()):
        for start in range(0, len(of_shard), BATCH_ACCOUNTS_MAX):
            yield of_shard[start : start + BATCH_ACCOUNTS_MAX]


async def _look(
    ledger: Ledger, counters: Counters, batch: Sequence[AccountKeys]
) -> dict[Suspicion, Finding]:
    picture = await take_picture(counters, batch)
    books = await _read_books(ledger, picture)
    return {_suspicion(finding): finding for finding in compare_shard(picture, books)}


async def _read_books(ledger: Ledger, picture: ShardPicture) -> Books:
    settled = {settlement.call_id for settlement in picture.outbox}
    settled.update(call_id for call_id, text in picture.holds.items() if text.startswith("s|"))
    running = [call_id for call_id, text in picture.holds.items() if text.startswith("h|")]
    # A call acknowledged before the picture can't have been settled in its very millisecond: it
    # has been committed in Postgres in between. So that millisecond belongs to "late" as a whole.
    since_ms = picture.now_ms - 1
    books = await ledger.audit_picture(list(picture.accounts), sorted(settled), since_ms)
    calls = {row.call_id: row for row in books.calls}
    if running:
        # Asked apart: a call that ran at the picture and is settled now is late, not known.
        late_calls = (await ledger.audit_picture([], running, since_ms)).calls
        calls.update({row.call_id: row for row in late_calls})
    return Books({row.grant_id: row for row in books.grants}, calls, books.late)


def _still(
    before: dict[Suspicion, Finding], now: dict[Suspicion, Finding]
) -> dict[Suspicion, Finding]:
    return {suspicion: finding for suspicion, finding in now.items() if suspicion in before}


async def _audit_books(ledger: Ledger) -> list[Finding]:
    """I1, I2 and I3 within Postgres."""
    findings = [finding for grant in await ledger.audit_grants() for finding in _about_grant(grant)]
    findings += [_about_call(call) for call in await ledger.audit_calls()]
    findings += [_about_hour(hour) for hour in await ledger.audit_usage()]
    return findings


def _about_grant(grant: GrantDrift) -> Iterator[Finding]:
    finding = Finding(CONSERVATION, "", grant.account_id, f"grant {grant.grant_id}", 0, 0, "")
    pairs = (
        ("granted", grant.granted_by_ledger, grant.amount_microcredits),
        ("settled", grant.settled_by_ledger, grant.settled_microcredits),
        ("expired", grant.expired_by_ledger, grant.expired_microcredits),
        ("revoked", grant.revoked_by_ledger, grant.revoked_microcredits),
    )
    for word, by_ledger, carried in pairs:
        if by_ledger != carried:
            yield finding._replace(
                check=f"ledger_{word}",
                expected=by_ledger,
                found=carried,
                meaning=f"what the grant counts as {word} is not the sum of its ledger entries",
            )
    used = grant.settled_microcredits + grant.expired_microcredits + grant.revoked_microcredits
    if used > grant.amount_microcredits:
        yield finding._replace(
            invariant=NO_OVERSELL,
            check="ledger_oversold",
            expected=grant.amount_microcredits,
            found=used,
            meaning="more was taken from the grant than it had",
        )


def _about_call(call: CallDrift) -> Finding:
    finding = Finding(
        ONCE,
        check="ledger_call",
        account_id=call.account_id,
        subject=f"call {call.call_id}",
        expected=call.charged_microcredits or 0,
        found=call.posted_microcredits,
        meaning="the call's ledger entries are not what its settlement charged",
    )
    if call.charged_microcredits is None:
        return finding._replace(
            check="ledger_call_missing",
            expected=call.posted_microcredits,
            found=0,
            meaning="the ledger charged a call that has no settlement",
        )
    return finding


def _about_hour(hour: UsageDrift) -> Finding:
    finding = Finding(
        CONSERVATION,
        check="usage_charged",
        account_id=hour.account_id,
        subject=f"hour {format_moment(hour.hour_ms)} route {hour.route_id} key {hour.key_id}",
        expected=hour.charged_microcredits,
        found=hour.charged_rolled_microcredits,
        meaning="the hourly roll-up is not the sum of its settlements",
    )
    if hour.calls != hour.calls_rolled:
        return finding._replace(
            check="usage_calls",
            expected=hour.calls,
            found=hour.calls_rolled,
            meaning="the hourly roll-up has not the calls that were settled",
            is_amount=False,
        )
    return finding


def _suspicion(finding: Finding) -> Suspicion:
    return finding.check, finding.account_id, finding.subject


def _order(finding: Finding) -> tuple[str, int, str, str]:
    return finding.invariant, finding.account_id, finding.subject, finding.check
