"""How often an account, a key or a route may be called, and how much may be spent: limits and caps.

`account_limits`, `rules_text`, `delegated_rules_text`, `route_rules_text` and `key_text` write them
as `admit.lua` reads them; the rest is what it decides, in integers throughout. The Lua is held
against this file by `tests/policies/lua`.

A *scope* is what a rule counts for: the account, one key of it, or the account on one route. A
*window* is named by its end, in ms since 1970: it holds the moments before that, and another end is
another window that begins with nothing used. So a clock that jumps, or a period that changes, can't
leave anybody in a window that is not now.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from policies.catalog import QuotaWindow
from policies.spans import DAY_MS
from policies.units import AMOUNT_MICROCREDITS_MAX, BASIS_POINTS

if TYPE_CHECKING:
    from policies.catalog import Caps, Limits, Plan

SECOND_US = 1_000_000
MINUTE_US = 60_000_000
# Above these an emission interval would be under a microsecond.
PER_SECOND_MAX = SECOND_US
PER_MINUTE_MAX = MINUTE_US
# So that the time which a burst takes stays far below 2^53 microseconds.
BURST_MAX = 1_000_000

# A rule's kind and what it limits; those of RATES_US may name a burst, "pw" names two times, and
# "dp" limits nothing: it is the account's discount, in basis points of every price. Only keys have
# two more: "up" names the key that a delegated one was carved from, "gv" the version of the key's
# guards (its routes and addresses), which the caller of `admit.lua` must have checked.
RATES_US = {"rs": SECOND_US, "rm": MINUTE_US}
QUOTAS = ("qm", "qp")
CAPS = ("cd", "cm", "ct", "cs")
PERIOD = "pw"
DISCOUNT = "dp"
PARENT = "up"
GUARD = "gv"
KINDS = (*RATES_US, *QUOTAS, "cc", *CAPS, PERIOD, DISCOUNT, PARENT, GUARD)

_MONTH_DAYS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_ITEM = re.compile(r"([a-z]{2}):([0-9]{1,16})(?::([0-9]{1,16}))?", re.ASCII)


class Rule(NamedTuple):
    """One item of a rules text: `rs:10:20` is Rule("rs", 10, 20).

    `parameter` is the burst of a rate (0: the whole second's or minute's allowance), and the end of
    the next billing period of `pw`, whose `limit` is the end of this one.
    """

    kind: str
    limit: int
    parameter: int = 0

    def __str__(self) -> str:
        text = f"{self.kind}:{self.limit}"
        return f"{text}:{self.parameter}" if self.parameter else text


class AccountLimits(NamedTuple):
    """A plan's limits as an account's hash has them: three fast fields and a rules text."""

    rpm: int
    rpmonth: int
    conc: int
    rules: str


class Rate(NamedTuple):
    """A rate limit asked for one call.

    `tat_us` is the theoretical arrival time to keep if the call is admitted; `remaining` the calls
    that could follow at once; `retry_after_ms` above 0 denies.
    """

    tat_us: int
    remaining: int
    retry_after_ms: int


class Counter(NamedTuple):
    """What was used in the window that ends at `end_ms` (0: it never does). Stored "end:used"."""

    end_ms: int = 0
    used: int = 0

    def __str__(self) -> str:
        return f"{self.end_ms}:{self.used}"

    def at(self, end_ms: int) -> Counter:
        """This counter if it counts the window with this end, else a new one."""
        return self if self.end_ms == end_ms else Counter(end_ms)

    def changed(self, end_ms: int, delta: int) -> Counter:
        """After a counted call turned out to cost more or less; another window never knew it."""
        return self._replace(used=max(self.used + delta, 0)) if self.end_ms == end_ms else self


class Use(NamedTuple):
    """A quota or cap asked for one call.

    `counter` counts its window before the call. A refused call may be tried again after
    `retry_after_ms`; 0 means that no passing of time will let it through.
    """

    counter: Counter
    refused: bool
    retry_after_ms: int


def account_limits(
    plan: Plan | None,
    period_end_ms: int = 0,
    next_end_ms: int = 0,
    *,
    discount: int | None = None,
    tiers: bool = False,
) -> AccountLimits:
    """A plan's limits and caps for an account whose billing period ends then (0: it has none).

    `discount` is the account's own in basis points, None: its plan's. With `tiers` some price
    counts what an account uses in its billing period. A rate per minute without burst, a quota by
    calendar month and the concurrency have fields of their own, which admitting reads in any case;
    everything else is in the rules.
    """
    rules = _rules(plan.limits, plan.caps) if plan is not None else []
    billing = plan is not None and plan.quota_window is QuotaWindow.BILLING
    fast = {"rm", "cc"} if billing else {"rm", "cc", "qm"}
    fields = dict.fromkeys(fast, 0)
    rest = []
    for rule in rules:
        if rule.kind in fast and not rule.parameter:
            fields[rule.kind] = rule.limit
        else:
            rest.append(rule._replace(kind="qp") if rule.kind == "qm" else rule)
    if period_end_ms and (tiers or any(rule.kind == "qp" for rule in rest)):
        rest.append(Rule(PERIOD, period_end_ms, max(next_end_ms, period_end_ms)))
    if discount is None:
        discount = plan.discount_basis_points if plan is not None else 0
    if discount:
        rest.append(Rule(DISCOUNT, discount))
    return AccountLimits(fields["rm"], fields.get("qm", 0), fields["cc"], _text(rest))


def rules_text(limits: Limits, caps: Caps, guard_version: int = 0) -> str:
    """The limits and caps of a key as rules: "rs:10:20 cc:5 cd:5000000". Empty for none.

    `guard_version` is that of the key's routes and addresses, which workers check; 0: it has none.
    """
    guard = [Rule(GUARD, guard_version)] if guard_version else []
    return _text([*guard, *_rules(limits, caps)])


def delegated_rules_text(
    limits: Limits,
    caps: Caps,
    *,
    parent_key_id: int,
    budget_microcredits: int,
    guard_version: int = 0,
) -> str:
    """The rules of a key that was carved out of another: "ct:5000000 up:17 gv:2 rs:10".

    Its budget is its cap in total, in the place of one that `caps` may name.

    Raises: ValueError for a budget of nothing, because a cap of 0 would be none.
    """
    if budget_microcredits < 1:
        raise ValueError("a delegated key has a budget")
    own = [Rule("ct", budget_microcredits), Rule(PARENT, parent_key_id)]
    rest = rules_text(limits, replace(caps, total=0), guard_version)
    return f"{_text(own)} {rest}" if rest else _text(own)


def route_rules_text(route_id: int, limits: Limits, caps: Caps) -> str:
    """The limits and caps of each account on a route: "R7 rs:10:20". Empty for none.

    Raises: ValueError for a cap per session, which routes don't have.
    """
    if caps.session:
        raise ValueError("a route has no cap per session")
    text = rules_text(limits, caps)
    return f"R{route_id} {text}" if text else ""


def key_text(state: int, rules: str) -> str:
    """A key as its account's hash has it: 0 active for ever, -1 revoked, else when it expires."""
    return f"{state} {rules}" if rules else str(state)


def parse_rules(text: str) -> tuple[Rule, ...]:
    """The rules in "rs:10:20 cd:5000000".

    Raises: ValueError when an item is none.
    """
    rules = []
    for item in text.split(" ") if text else ():
        match = _ITEM.fullmatch(item)
        if match is None or match[1] not in KINDS:
            raise ValueError(f'"{item}" is not a limit or cap')
        rule = Rule(match[1], int(match[2]), int(match[3] or "0"))
        most = BASIS_POINTS if rule.kind == DISCOUNT else AMOUNT_MICROCREDITS_MAX
        if max(rule.limit, rule.parameter) > most:
            raise ValueError(f'"{item}" is too large')
        if rule.parameter and rule.kind not in (*RATES_US, PERIOD):
            raise ValueError(f'"{item}" has a part too many')
        rules.append(rule)
    return tuple(rules)


def rate(
    limit: int,
    tat_us: int,
    now_us: int,
    *,
    calls: int = 1,
    period_us: int = MINUTE_US,
    burst: int = 0,
) -> Rate:
    """Ask for one call under `limit` (1 … period_us) calls per period; for no call just look.

    `burst` calls (1 … BURST_MAX; 0: `limit`) may come at once. The generic cell rate algorithm
    (ITU-T I.371, virtual scheduling). The interval is rounded up, so that a limit is never exceeded
    for its rounding. A kept time further ahead than the burst means that the clock went back or the
    limit changed: it starts anew, for otherwise nobody could call until the clock caught up.
    """
    interval_us = -(-period_us // limit)
    burst_us = interval_us * (burst or limit)
    if not now_us <= tat_us <= now_us + burst_us:
        tat_us = now_us
    tat_us += calls * interval_us
    left_us = now_us + burst_us - tat_us
    if left_us < 0:
        return Rate(tat_us, 0, -(left_us // 1000))
    return Rate(tat_us, left_us // interval_us, 0)


def use(limit: int, kept: Counter, end_ms: int, now_ms: int, amount: int = 1) -> Use:
    """Ask for a call (`amount` 1) under a quota, or for what it may cost under a cap.

    The window that is now ends at `end_ms` (0: never). Who asks for nothing is never refused.
    """
    counter = kept.at(end_ms)
    refused = amount > 0 and amount > limit - counter.used
    by_time = refused and end_ms > 0 and amount <= limit
    return Use(counter, refused, end_ms - now_ms if by_time else 0)


def window_end_ms(kind: str, now_ms: int, period: Rule | None = None) -> int:
    """When the window of a quota or cap ends that holds this moment; 0 for a total: never.

    `period` is the account's `pw`. A quota per billing period (`qp`) without one, or after both of
    its ends, counts the calendar month.
    """
    if kind in ("ct", "cs"):
        return 0
    if kind == "cd":
        return now_ms - now_ms % DAY_MS + DAY_MS
    if kind == "qp" and period:
        for end_ms in (period.limit, period.parameter):
            if now_ms < end_ms:
                return end_ms
    return month_end_ms(now_ms)


def month_end_ms(now_ms: int) -> int:
    """When the calendar month (UTC) of a time from 1970 on ends, in ms since 1970."""
    days = now_ms // DAY_MS
    month_end = 0
    year, month = 1970, 0
    while month_end <= days:
        leap = month == 1 and year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
        month_end += _MONTH_DAYS[month] + leap
        year, month = (year + 1, 0) if month == 11 else (year, month + 1)
    return month_end * DAY_MS


def _rules(limits: Limits, caps: Caps) -> list[Rule]:
    # A burst belongs to the rate per second where there is one: it bounds what comes at once, so
    # that the minute's allowance can stay whole.
    per_second = limits.requests_per_second
    rules = (
        Rule("rs", per_second, limits.burst),
        Rule("rm", limits.requests_per_minute, 0 if per_second else limits.burst),
        Rule("qm", limits.requests_per_month),
        Rule("cc", limits.concurrency),
        Rule("cd", caps.day),
        Rule("cm", caps.month),
        Rule("ct", caps.total),
        Rule("cs", caps.session),
    )
    return [rule for rule in rules if rule.limit]


def _text(rules: list[Rule]) -> str:
    return " ".join(map(str, rules))
