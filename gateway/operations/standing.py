"""What an account has at this moment: its credits lot by lot, and what its limits have left.

Redis decides calls, so that Redis is asked. Of an account that it does not have, what Postgres says
is told, as it would be loaded: nothing held, no call running, and a moment behind.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from gateway.clock import now_ms
from gateway.counters.errors import CountersUnavailable
from gateway.operations.errors import UsageError
from policies.limits import (
    CAPS,
    PERIOD,
    QUOTAS,
    RATES_US,
    Counter,
    Rule,
    month_end_ms,
    parse_rules,
    rate,
    window_end_ms,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from gateway.counters import Counters
    from gateway.ledger import AccountRow, GrantRow, Ledger

CALL_LIMITS = {
    "rs": "requests_per_second",
    "rm": "requests_per_minute",
    "qm": "requests_per_month",
    "qp": "requests_per_month",
    "cc": "concurrency",
}
CAP_WINDOWS = {"cd": "day", "cm": "month", "ct": "total", "cs": "session"}


class Standing(NamedTuple):
    """An account's fields as Redis has them (gateway/ledger/seeds.py names them)."""

    fields: Mapping[str, str]
    is_live: bool  # else they are those that Redis would be loaded with
    now_ms: int


class LotBalance(NamedTuple):
    """A lot with what is left of it, in microcredits; of overage that is room."""

    grant: GrantRow
    left_microcredits: int
    held_microcredits: int


class Balance(NamedTuple):
    """An account's credits, in microcredits.

    `available` is what `X-Credits-Remaining` says: below 0 while more was used in overage than the
    other lots have. The debt is no part of it: credits that were spent although their payment went
    back, which the next grant pays. `lots` are those that may pay, now or later, or are held, in
    burn-down order.
    """

    is_live: bool
    available_microcredits: int
    held_microcredits: int
    overage_microcredits: int  # used of this period's overage
    debt_microcredits: int
    lots: list[LotBalance]


class CallLimit(NamedTuple):
    """How many calls there may be, were, and can be now.

    Of a rate with a burst, that and not the limit is how many can be at once. `resets_ms` is when
    nothing of it is used any more; 0: when running calls have ended.
    """

    kind: str
    limit: int
    used: int
    left: int
    resets_ms: int


class SpendCap(NamedTuple):
    """How much may be spent, in microcredits.

    `used` counts what running calls hold; None: each session has its own. `resets_ms` 0: never.
    """

    window: str
    limit_microcredits: int
    used_microcredits: int | None
    resets_ms: int


class Allowance(NamedTuple):
    """The limits and caps of an account, or of a key."""

    is_live: bool
    limits: list[CallLimit]
    caps: list[SpendCap]


async def standing_of(
    ledger: Ledger, counters: Counters, account: AccountRow, *, key_id: int | None = None
) -> Standing:
    """How an account stands; with a `key_id`, as somebody knows it who knows that key.

    Raises: UsageError when the account is gone.
    """
    try:
        fields = await counters.look(counters.keys(account.account_id))
    except CountersUnavailable:
        fields = None
    if fields is not None and (key_id is None or f"k:{key_id}" in fields):
        return Standing(fields, is_live=True, now_ms=now_ms())
    state = await ledger.account_state(account.account_id)
    if state is None:
        raise UsageError(f'the account "{account.name}" is gone')
    told = {name: str(value) for name, value in state.items()}
    return Standing(told, is_live=False, now_ms=now_ms())


async def balance_of(ledger: Ledger, counters: Counters, account: AccountRow) -> Balance:
    """What an account has. Raises: UsageError when it is gone."""
    fields, is_live, moment_ms = await standing_of(ledger, counters, account)
    order = [int(token.removesuffix("o")) for token in fields["lots"].split()]
    rows = {row.grant_id: row for row in await ledger.some_grants(account.account_id, order)}
    available = held = overage = 0
    lots = []
    for row in [rows[grant_id] for grant_id in order if grant_id in rows]:
        left, its_held, settled, withdrawn, expires_ms, effective_ms = (
            int(fields.get(f"{kind}:{row.grant_id}", 0)) for kind in "ahswef"
        )
        held += its_held
        ended = 0 < expires_ms <= moment_ms
        if effective_ms <= moment_ms and not ended:
            if row.source == "overage":
                # Redis counts what was refunded since as room, not as paid.
                used = settled + withdrawn - row.credited_microcredits
                overage += used
                available -= used + its_held
            else:
                available += left
        if its_held or (left and not ended):
            lots.append(LotBalance(row, left, its_held))
    return Balance(is_live, available, held, overage, account.debt_microcredits, lots)


async def allowance_of(
    ledger: Ledger, counters: Counters, account: AccountRow, *, key_id: int | None = None
) -> Allowance:
    """What the limits and caps of an account, or of one of its keys, have left.

    Raises: UsageError when either is gone.
    """
    standing = await standing_of(ledger, counters, account, key_id=key_id)
    fields = standing.fields
    account_rules = parse_rules(fields["rules"])
    period = next((rule for rule in account_rules if rule.kind == PERIOD), None)
    limits = []
    if key_id is None:
        limits, rules, scope = list(_fast_limits(standing)), account_rules, "A"
    else:
        text = fields.get(f"k:{key_id}")
        if text is None:
            raise UsageError(f'the account "{account.name}" has no key {key_id}')
        rules, scope = parse_rules(text.partition(" ")[2]), f"K{key_id}"
    caps = []
    for rule in rules:
        kept = fields.get(f"{scope}.{rule.kind}", "")
        if rule.kind in RATES_US:
            limits.append(_rate(rule, int(kept or "0"), standing.now_ms))
        elif rule.kind == "cc":
            limits.append(_limit(rule, int(kept or "0"), 0))
        elif rule.kind in QUOTAS:
            used, end_ms = _window(rule, kept, standing.now_ms, period)
            limits.append(_limit(rule, used, end_ms))
        elif rule.kind in CAPS:
            spent, end_ms = _window(rule, kept, standing.now_ms, period)
            known = None if rule.kind == "cs" else spent
            caps.append(SpendCap(CAP_WINDOWS[rule.kind], rule.limit, known, end_ms))
    return Allowance(standing.is_live, limits, caps)


def spent_of_key(fields: Mapping[str, str], key_id: int) -> int | None:
    """What counts in a key's cap in total, in microcredits; None where it has none, or is gone.

    That is what its calls were charged or hold, and what was delegated from it.
    """
    kept = fields.get(f"K{key_id}.ct")
    return None if kept is None else _counter(kept).used


def _fast_limits(standing: Standing) -> Iterator[CallLimit]:
    """The limits that an account has fields of their own for (policies/limits.py)."""
    fields, moment_ms = standing.fields, standing.now_ms
    if rpm := int(fields["rpm"]):
        yield _rate(Rule("rm", rpm), int(fields.get("tat", "0")), moment_ms)
    if rpmonth := int(fields["rpmonth"]):
        end_ms = month_end_ms(moment_ms)
        counted = Counter(int(fields.get("month_end", end_ms)), int(fields["count"]))
        yield _limit(Rule("qm", rpmonth), counted.at(end_ms).used, end_ms)
    if conc := int(fields["conc"]):
        yield _limit(Rule("cc", conc), int(fields.get("running", "0")), 0)


def _rate(rule: Rule, tat_us: int, moment_ms: int) -> CallLimit:
    now_us = moment_ms * 1_000
    seen = rate(
        rule.limit, tat_us, now_us, calls=0, period_us=RATES_US[rule.kind], burst=rule.parameter
    )
    used = (rule.parameter or rule.limit) - seen.remaining
    resets_ms = -(-seen.tat_us // 1_000)
    return CallLimit(CALL_LIMITS[rule.kind], rule.limit, used, seen.remaining, resets_ms)


def _limit(rule: Rule, used: int, resets_ms: int) -> CallLimit:
    left = max(rule.limit - used, 0)
    return CallLimit(CALL_LIMITS[rule.kind], rule.limit, used, left, resets_ms)


def _window(rule: Rule, kept: str, moment_ms: int, period: Rule | None) -> tuple[int, int]:
    """What is used in the window that is now, and when it ends."""
    end_ms = window_end_ms(rule.kind, moment_ms, period)
    return _counter(kept).at(end_ms).used, end_ms


def _counter(kept: str) -> Counter:
    end_ms, _, used = kept.partition(":")
    return Counter(int(end_ms), int(used)) if used else Counter()
