"""Rules in the reference model: what limits and caps say to one call, and what its end corrects."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from policies import limits
from tests.support.shard_model_state import counter

if TYPE_CHECKING:
    from collections.abc import Mapping

    from policies.limits import Rule

SOURCES = {"A": "account", "K": "key", "R": "route"}
NOT_ASKED = (limits.PERIOD, limits.DISCOUNT, limits.PARENT, limits.GUARD)
WINDOWS = {"cd": "day", "cm": "month", "ct": "total"}


@dataclass
class Asked:
    """What admitting a call will write: where it counts, and the counters after it."""

    counted: list[str] = field(default_factory=list)
    counters: dict[str, str] = field(default_factory=dict)
    session: dict[str, int] = field(default_factory=dict)
    minute: tuple[int, int] | None = None  # limit and calls left of the tightest rate per minute
    refusal: tuple[str, *tuple[int | str, ...]] | None = None


def ask(
    counters: Mapping[str, str],
    session: Mapping[str, int] | None,
    scopes: Mapping[str, str],
    amount: int,
    now_us: int,
) -> Asked:
    """Ask the rules of each scope in turn for one call; the first refusal stands."""
    asked = Asked()
    account_rules = limits.parse_rules(scopes.get("A", ""))
    period = next((rule for rule in account_rules if rule.kind == limits.PERIOD), None)
    for scope, text in scopes.items():
        for rule in limits.parse_rules(text):
            if rule.kind in NOT_ASKED or not rule.limit:
                continue
            source = SOURCES[scope[0]]
            name = f"{scope}.{rule.kind}"
            if rule.kind == "cs":
                if session is not None:
                    _ask_session(asked, rule, scope, session.get(scope, 0), amount)
            elif rule.kind == "cc":
                _ask_concurrency(asked, rule, source, name, int(counters.get(name, "0")))
            elif rule.kind in limits.RATES_US:
                _ask_rate(asked, rule, source, name, int(counters.get(name, "0")), now_us)
            else:
                end_ms = limits.window_end_ms(rule.kind, now_us // 1000, period)
                kept = counter(counters.get(name))
                _ask_window(asked, rule, source, name, kept, end_ms, amount, now_us // 1000)
            if asked.refusal:
                return asked
    return asked


class Place(NamedTuple):
    """Where a running call's spending is counted: what it may reach there, and what others have."""

    token: str  # as the hold's counted names it
    name: str = ""  # of the counter; a session's is its scope
    window: limits.Counter = limits.Counter()
    others: int = 0
    limit: int | None = None
    source: str = ""
    kind: str = ""


def places(
    counters: Mapping[str, str],
    session: Mapping[str, int],
    scopes: Mapping[str, str],
    counted: tuple[str, ...],
    held: int,
    now_ms: int,
) -> list[Place]:
    """Where a call that holds so much is counted, in the windows that are now."""
    found = []
    for token in counted:
        name, _, end = token.partition("@")
        scope, _, kind = name.partition(".")
        if scope == "S":
            spent = session.get(kind)
            others = max(spent - held, 0) if spent is not None else 0
            kept = limits.Counter(0, spent or 0)
            limit = _limit_of(scopes, kind, "cs")
            found.append(Place(token, kind, kept, others, limit, "session", "session"))
        elif end:
            end_ms = limits.window_end_ms(kind, now_ms)
            kept = counter(counters.get(name)).at(end_ms)
            others = max(kept.used - held, 0) if end_ms == int(end) else kept.used
            limit = _limit_of(scopes, scope, kind)
            if kind == "ct" and name not in counters and limit is None and scope[0] != "R":
                found.append(Place(token))  # the cap is no more
                continue
            facts = (SOURCES[scope[0]], WINDOWS[kind])
            found.append(Place(f"{name}@{end_ms}", name, kept, others, limit, *facts))
        else:
            found.append(Place(token))
    return found


def cap_refusal(
    found: list[Place], least: int, now_ms: int
) -> tuple[str, *tuple[int | str, ...]] | None:
    """What the first cap says that does not let a call hold so much in all."""
    for place in found:
        if place.limit is not None and least > place.limit - place.others:
            by_time = place.window.end_ms and least <= place.limit
            later_ms = place.window.end_ms - now_ms if by_time else 0
            return "CAP", place.source, place.kind, place.limit, place.window.used, later_ms
    return None


def _limit_of(scopes: Mapping[str, str], scope: str, kind: str) -> int | None:
    rules = limits.parse_rules(scopes.get(scope, ""))
    return next((rule.limit for rule in rules if rule.kind == kind and rule.limit), None)


def uncount(
    counters: dict[str, str], session: dict[str, int] | None, counted: tuple[str, ...], delta: int
) -> None:
    """What a call's end corrects: it was charged `delta` more than it held."""
    for place in counted:
        name, _, end = place.partition("@")
        scope, _, kind = name.partition(".")
        if scope == "S":
            if session is not None and kind in session:
                session[kind] = max(session[kind] + delta, 0)
        elif name in counters:
            if kind == "cc":
                counters[name] = str(max(int(counters[name]) - 1, 0))
            else:
                counters[name] = str(counter(counters[name]).changed(int(end), delta))


def _ask_rate(asked: Asked, rule: Rule, source: str, name: str, tat_us: int, now_us: int) -> None:
    period_us = limits.RATES_US[rule.kind]
    rate = limits.rate(rule.limit, tat_us, now_us, period_us=period_us, burst=rule.parameter)
    if rate.retry_after_ms:
        asked.refusal = ("RATE", rule.limit, rate.retry_after_ms, source)
        return
    asked.counters[name] = str(rate.tat_us)
    tightest = asked.minute is None or rate.remaining < asked.minute[1]
    if rule.kind == "rm" and tightest:
        asked.minute = (rule.limit, rate.remaining)


def _ask_concurrency(asked: Asked, rule: Rule, source: str, name: str, running: int) -> None:
    if running >= rule.limit:
        asked.refusal = ("CONCURRENCY", rule.limit, source)
        return
    asked.counters[name] = str(running + 1)
    asked.counted.append(name)


def _ask_session(asked: Asked, rule: Rule, scope: str, spent: int, amount: int) -> None:
    use = limits.use(rule.limit, limits.Counter(0, spent), 0, 0, amount)
    if use.refused:
        asked.refusal = ("CAP", "session", "session", rule.limit, spent, 0)
        return
    asked.session[scope] = spent + amount
    asked.counted.append(f"S.{scope}")


def _ask_window(
    asked: Asked,
    rule: Rule,
    source: str,
    name: str,
    kept: limits.Counter,
    end_ms: int,
    amount: int,
    now_ms: int,
) -> None:
    quota = rule.kind in limits.QUOTAS
    by = 1 if quota else amount
    use = limits.use(rule.limit, kept, end_ms, now_ms, by)
    if use.refused and quota:
        asked.refusal = ("QUOTA", rule.limit, use.retry_after_ms, source)
    elif use.refused:
        facts = (WINDOWS[rule.kind], rule.limit, use.counter.used, use.retry_after_ms)
        asked.refusal = ("CAP", source, *facts)
    else:
        asked.counters[name] = str(use.counter._replace(used=use.counter.used + by))
        if not quota:
            asked.counted.append(f"{name}@{end_ms}")
