"""Rules in the reference model: what limits and caps say to one call, and what its end corrects."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from policies import limits
from tests.support.shard_model_state import counter

if TYPE_CHECKING:
    from collections.abc import Mapping

    from policies.limits import Rule

SOURCES = {"A": "account", "K": "key", "R": "route"}
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
            if rule.kind == limits.PERIOD or not rule.limit:
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
