"""The audit of what an account counts besides credits: running calls, concurrency, spend caps.

Counts of running calls are exact: each hold names the counters that it is in. A cap's counter is
what was charged in its window and what is held for it. It can be below what Postgres charged, when
a cap was set while calls ran, or a call without a hold was charged late; so it is held against two
bounds that always stand: at least what its holds hold, and beyond that at most what was charged.

Calls with a delegated key count in the caps of those above it as they do in its own; but in caps in
total it counts with its share ("p:", policies/delegation.py), and once it is closed with what it
was charged. What is left of a closed key itself, because somebody told Redis of it just then, is
read by nobody.

Rates and quotas are not compared: they count admitted calls, of which Postgres does not know.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from gateway.operations.findings import CONSERVATION, NO_OVERSELL, Finding
from policies.delegation import parse_share
from policies.limits import window_end_ms

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from collections.abc import Set as AbstractSet

    from gateway.ledger.reconciling import ShardBooks, Spent
    from gateway.operations.audit_under_way import UnderWay
    from policies.delegation import Share
    from policies.settlement import Settlement

_OF_KEY = re.compile(r"(?:K|p:)([0-9]{1,18})(?:$|\.)", re.ASCII)
_SHARE = re.compile(r"p:([0-9]{1,18})", re.ASCII)
_COUNTER = re.compile(r"([AKR])(\d*)\.(cc|cd|cm|ct)", re.ASCII)
_WINDOWS = {"cd": "day", "cm": "month", "ct": "total"}


class _Cap(NamedTuple):
    """A counter of money: of the account (A), of a key (K5), or of the account on a route (R7).

    `held` is what live holds hold in the same window, `shares` what keys that were carved out of
    this one count in it; `members` are the keys whose calls it counts, by a key's cap.
    """

    account_id: int
    name: str
    scope: str
    number: int
    window: str
    spent: int
    held: int
    shares: int
    members: AbstractSet[int]

    def counts(self, row: Spent | Settlement, closed: Mapping[int, int]) -> bool:
        """Whether what was charged counts for it."""
        if row.account_id != self.account_id:
            return False
        if self.scope == "A":
            return True
        if self.scope == "R":
            return self.number == row.route_id
        return closed.get(row.key_id, row.key_id) in self.members


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
    shares = _shares(fields)
    yield from _compare_shares(account_id, shares, books)
    for name in sorted(named_counters(fields) | {token.partition("@")[0] for token in calls}):
        match = _COUNTER.fullmatch(name)
        if match is None or _is_idle(match, fields, books):
            continue  # the former is of a session, which has a hash of its own
        if match[3] == "cc":
            yield from _compare_concurrency(account_id, name, fields, calls[name])
        else:
            now_end_ms = window_end_ms(match[3], now_ms)
            end, _, spent = fields.get(name, f"{now_end_ms}:0").partition(":")
            if int(end) == now_end_ms:  # else it has passed, and the next call begins a new one
                number, window = int(match[2] or "0"), _WINDOWS[match[3]]
                key_id = number if match[1] == "K" else 0
                in_total = match[3] == "ct"
                cap = _Cap(
                    account_id=account_id,
                    name=name,
                    scope=match[1],
                    number=number,
                    window=window,
                    spent=int(spent),
                    held=held[f"{name}@{end}"],
                    shares=_carved_out(key_id, shares) if in_total else 0,
                    members={key_id} if in_total else _family(key_id, shares),
                )
                yield from _compare_cap(cap, moving, books)


def named_counters(fields: Mapping[str, str]) -> set[str]:
    """Which of an account's fields are concurrency or cap counters."""
    return {name for name in fields if _COUNTER.fullmatch(name)}


def counted_keys(fields: Mapping[str, str]) -> set[int]:
    """Keys of which an account counts something, or which count in others."""
    return {int(match[1]) for name in fields if (match := _OF_KEY.match(name))}


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


def _is_idle(counter: re.Match[str], fields: Mapping[str, str], books: ShardBooks) -> bool:
    """Whether a key's counter is read by nobody: the key is closed, or has that cap no more."""
    if counter[1] != "K":
        return False
    rules = fields.get(f"k:{counter[2]}", "")
    uncapped = counter[0] not in fields and f"{counter[3]}:" not in rules
    return uncapped or int(counter[2]) in books.closed


def _shares(fields: Mapping[str, str]) -> dict[int, Share]:
    """How each delegated key counts in its parent."""
    found = ((_SHARE.fullmatch(name), text) for name, text in fields.items())
    return {int(match[1]): parse_share(text) for match, text in found if match}


def _compare_shares(
    account_id: int, shares: Mapping[int, Share], books: ShardBooks
) -> Iterator[Finding]:
    for key_id, share in shares.items():
        if key_id in books.closed:
            yield _finding(account_id)._replace(
                check="redis_share_of_closed_key",
                subject=f"key {key_id}",
                found=share.counted_microcredits,
                meaning="the key is closed, but its budget still counts where it was carved from",
            )


def _carved_out(key_id: int, shares: Mapping[int, Share]) -> int:
    """What keys that were carved out of a key count in its cap in total."""
    return sum(
        share.counted_microcredits for share in shares.values() if share.parent_key_id == key_id
    )


def _family(key_id: int, shares: Mapping[int, Share]) -> set[int]:
    """A key and all that were carved out of it, and out of these."""
    family = {key_id}
    for child in sorted(shares):  # a key is older than what is carved out of it
        if shares[child].parent_key_id in family:
            family.add(child)
    return family


def _compare_cap(cap: _Cap, moving: UnderWay, books: ShardBooks) -> Iterator[Finding]:
    if cap.spent < cap.held + cap.shares:
        yield _finding(cap.account_id, cap.name)._replace(
            invariant=NO_OVERSELL,
            check="redis_cap_undercounted",
            expected=cap.held + cap.shares,
            found=cap.spent,
            meaning="the cap counts less than running calls and delegated keys hold, so calls can "
            "pass it",
        )
    charged = sum(
        getattr(row, cap.window) for row in books.spent if cap.counts(row, books.closed)
    ) + sum(
        settlement.charged_microcredits
        for settlement in moving.settlements[cap.account_id]
        if cap.counts(settlement, books.closed)
    )
    if cap.spent - cap.held - cap.shares > charged:
        yield _finding(cap.account_id, cap.name)._replace(
            check="redis_cap_overcounted",
            expected=charged,
            found=cap.spent - cap.held - cap.shares,
            meaning="the cap counts more than was charged, so calls are refused too early",
        )


def _finding(account_id: int, counter: str = "") -> Finding:
    subject = f"counter {counter}" if counter else "account"
    return Finding(CONSERVATION, "", account_id, subject, 0, 0, "")
