"""The audit: whether the invariants I1 to I4 hold in Redis and Postgres, now, under load.

Each part reads one instant, so running calls disturb nothing:

1. Shard by shard, a picture of Redis against the books in Postgres (`audit_compare` says why this
   comes out even although the two are read one after the other), as often as it takes to be
   certain (`audit_look`).
2. Postgres by itself: grants against ledger entries, settlements against ledger entries, roll-ups
   against settlements, coarser roll-ups against finer ones, debts and what was taken back against
   ledger entries, one statement each.

Reconciliation (`reconcile`) does the first part for ever.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from gateway.operations.audit_look import LOOKS_MAX, Suspect, confirm, in_batches, look, suspicion
from gateway.operations.findings import CONSERVATION, NO_OVERSELL, ONCE, Finding
from gateway.operations.moments import format_moment

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from gateway.counters import Counters
    from gateway.ledger import Ledger
    from gateway.ledger.debts import DebtDrift
    from gateway.ledger.desk import AuditAccountRow
    from gateway.ledger.rows import CallDrift, ChangeDrift, GrantDrift, RollupDrift, UsageDrift
    from gateway.operations.audit_look import Findings


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
    findings = await compare_accounts(
        ledger, counters, accounts, looks_max=looks_max, progress=progress
    )
    for finding in await _audit_books(ledger):
        findings[suspicion(finding)] = finding
    return AuditReport(accounts, chosen_of(findings.values(), account_id))


async def compare_accounts(
    ledger: Ledger,
    counters: Counters,
    account_ids: Collection[int],
    *,
    looks_max: int = LOOKS_MAX,
    progress: Callable[[int, int], None] = _unwatched,
) -> Findings:
    """Hold Redis against Postgres for these accounts: what is certain after the last look."""
    suspects = []
    done = 0
    for batch in in_batches(counters.keys(number) for number in account_ids):
        suspects.append(Suspect(batch, await look(ledger, counters, batch)))
        done += len(batch)
        progress(done, len(account_ids))
    return await confirm(ledger, counters, suspects, looks_max=looks_max)


def chosen_of(findings: Iterable[Finding], account_id: int | None) -> list[Finding]:
    """Findings of one account, or all (None), in the order in which people read them."""
    chosen = (finding for finding in findings if account_id in (None, finding.account_id))
    return sorted(chosen, key=_order)


async def _audit_books(ledger: Ledger) -> list[Finding]:
    """I1, I2 and I3 within Postgres."""
    findings = [finding for grant in await ledger.audit_grants() for finding in _about_grant(grant)]
    findings += [_about_change(change) for change in await ledger.audit_changes()]
    findings += [_about_debt(debt) for debt in await ledger.audit_debts()]
    findings += [_about_call(call) for call in await ledger.audit_calls()]
    findings += [_about_hour(hour) for hour in await ledger.audit_usage()]
    findings += [_about_rollup(row) for row in await ledger.audit_rollups()]
    return findings


def _about_grant(grant: GrantDrift) -> Iterator[Finding]:
    finding = Finding(CONSERVATION, "", grant.account_id, f"grant {grant.grant_id}", 0, 0, "")
    pairs = (
        ("granted", grant.granted_by_ledger, grant.amount_microcredits),
        ("credited", grant.credited_by_ledger, grant.credited_microcredits),
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
    given = grant.amount_microcredits + grant.credited_microcredits
    if used > given:
        yield finding._replace(
            invariant=NO_OVERSELL,
            check="ledger_oversold",
            expected=given,
            found=used,
            meaning="more was taken from the grant than it had",
        )


def _about_change(change: ChangeDrift) -> Finding:
    meanings = {
        "unrecorded": "the ledger moved credits for a change that there is not",
        "unlike": "the change's ledger entries are missing, or of another account or kind",
        "returned": "the call was given back more than it paid",
    }
    subject = "call" if change.wrong == "returned" else "change"
    return Finding(
        NO_OVERSELL if change.wrong == "returned" else CONSERVATION,
        check=f"ledger_change_{change.wrong}",
        account_id=change.account_id,
        subject=f"{subject} {change.id}",
        expected=0,
        found=change.microcredits,
        meaning=meanings[change.wrong],
    )


def _about_debt(debt: DebtDrift) -> Finding:
    meanings = {
        "owed": "what the account owes is not the sum of what became owed, was paid and forgiven",
        "paid": "what the grant paid of a debt is not what was taken from it for that",
        "step": "what a refund or dispute took, or gave again, is not what the ledger moved",
        "payment": "more is to be gone of a payment's credits than it gave",
    }
    return Finding(
        NO_OVERSELL if debt.wrong == "payment" else CONSERVATION,
        check=f"ledger_debt_{debt.wrong}",
        account_id=debt.account_id,
        subject=debt.subject,
        expected=debt.expected_microcredits,
        found=debt.found_microcredits,
        meaning=meanings[debt.wrong],
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


def _about_rollup(row: RollupDrift) -> Finding:
    moment = format_moment(row.since_ms)
    finding = Finding(
        CONSERVATION,
        check="usage_rollup_charged",
        account_id=row.account_id,
        subject=f"{row.rollup} {moment} platform {row.platform_id} {row.part} {row.part_id}",
        expected=row.charged_microcredits,
        found=row.charged_rolled_microcredits,
        meaning="the coarser roll-up is not the sum of the hourly one",
    )
    if row.calls != row.calls_rolled:
        return finding._replace(
            check="usage_rollup_calls",
            expected=row.calls,
            found=row.calls_rolled,
            meaning="the coarser roll-up has not the calls of the hourly one",
            is_amount=False,
        )
    return finding


def _order(finding: Finding) -> tuple[str, int, str, str]:
    return finding.invariant, finding.account_id, finding.subject, finding.check
