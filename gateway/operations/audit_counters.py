"""The audit of what an account counts besides credits: running calls, concurrency, spend caps.

Counts of running calls are exact: each hold names the counters that it is in. A cap's counter is
what was charged in its window and what is held for it. It can be below what Postgres charged, when
a cap was set while calls ran, or a call without a hold was charged late; so it is held against two
bounds that always stand: at least what its holds hold, and beyond that at most what was charged.

Rates and quotas are not compared: they count admitted calls, of which Postgres does not know.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from gateway.operations.findings import CONSERVATION, NO_OVERSELL, Finding
from policies.limits import window_end_ms

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from gateway.ledger.reconciling import ShardBooks, Spent
    from gateway.operations.audit_under_way import UnderWay
    from policies.settlement import Settlement

_COUNTER = re.compile(r"([AKR])(\d*)\.(cc|cd|cm|ct)", re.ASCII)
_WINDOWS = {"cd": "day", "cm": "month", "ct": "total"}


class _Cap(NamedTuple):
    """A counter of money: of the account (A), of a key (K5), or of the account on a route (R7).

    `held` is what live holds hold in the same window.
    """

    account_id: int
    name: str
    scope: str
    number: int
    window: str
    spent: int
    held: int

    def counts(self, row: Spent | Settlement) -> bool:
        """Whether what was charged counts for it."""
        if row.account_id != self.account_id:
            return False
        if self.scope == "A":
            return True
        return self.number == (row.key_id if self.scope == "K" else row.route_id)


def compare_counters(
    account_id: int,
    fields: Mapping[str, str],
    moving: UnderWay,
    books: ShardBooks,
    now_ms: int,
) -> Iterator[Finding]:
    """Disagreements of a loaded account. Raises: ValueError when a field is no number."""
    holds = moving.holds[account_id]
    running = int(fields.get("running", "0"))
    calls_running = sum(not hold.parked for hold in holds)
    if running != calls_running:
        yield _finding(account_id)._replace(
            check="redis_running",
            expected=calls_running,
            found=running,
            meaning="the count of running calls differs from the holds there are",
            is_amount=False,
        )
    calls: Counter[str] = Counter()
    held: Counter[str] = Counter()
    for hold in holds:
        for token in hold.counted.split():
            calls[token] += 1
            held[token] += hold.held
    for name in sorted(named_counters(fields) | {token.partition("@")[0] for token in calls}):
        match = _COUNTER.fullmatch(name)
        if match is None:
            continue  # of a session, which has a hash of its own
        if match[3] == "cc":
            yield from _compare_concurrency(account_id, name, fields, calls[name])
        else:
            now_end_ms = window_end_ms(match[3], now_ms)
            end, _, spent = fields.get(name, f"{now_end_ms}:0").partition(":")
            if int(end) == now_end_ms:  # else it has passed, and the next call begins a new one
                number, window = int(match[2] or "0"), _WINDOWS[match[3]]
                holding = held[f"{name}@{end}"]
                cap = _Cap(account_id, name, match[1], number, window, int(spent), holding)
                yield from _compare_cap(cap, moving, books)


def named_counters(fields: Mapping[str, str]) -> set[str]:
    """Which of an account's fields are concurrency or cap counters."""
    return {name for name in fields if _COUNTER.fullmatch(name)}


def has_caps(fields: Mapping[str, str]) -> bool:
    """Whether spend caps are counted for the account."""
    return any(not name.endswith(".cc") for name in named_counters(fields))


def _compare_concurrency(
    account_id: int, name: str, fields: Mapping[str, str], expected: int
) -> Iterator[Finding]:
    found = int(fields.get(name, "0"))
    if found != expected:
        yield _finding(account_id, name)._replace(
            check="redis_concurrency",
            expected=expected,
            found=found,
            meaning="the counter differs from the running calls that are counted in it",
            is_amount=False,
        )


def _compare_cap(cap: _Cap, moving: UnderWay, books: ShardBooks) -> Iterator[Finding]:
    if cap.spent < cap.held:
        yield _finding(cap.account_id, cap.name)._replace(
            invariant=NO_OVERSELL,
            check="redis_cap_undercounted",
            expected=cap.held,
            found=cap.spent,
            meaning="the cap counts less than running calls hold, so calls can pass it",
        )
    charged = sum(getattr(row, cap.window) for row in books.spent if cap.counts(row)) + sum(
        settlement.charged_microcredits
        for settlement in moving.settlements[cap.account_id]
        if cap.counts(settlement)
    )
    if cap.spent - cap.held > charged:
        yield _finding(cap.account_id, cap.name)._replace(
            check="redis_cap_overcounted",
            expected=charged,
            found=cap.spent - cap.held,
            meaning="the cap counts more than was charged, so calls are refused too early",
        )


def _finding(account_id: int, counter: str = "") -> Finding:
    subject = f"counter {counter}" if counter else "account"
    return Finding(CONSERVATION, "", account_id, subject, 0, 0, "")
