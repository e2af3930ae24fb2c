"""An account as Postgres has it, and the holds that are live: what Redis must be told of both.

Postgres knows what was settled, never what is held. When a shard was lost, its accounts are seeded
from Postgres and the holds of running calls are folded into that: what a lot holds is no longer
available, and each call is counted again where its hold says that it was counted. The result is
absolute, so folding again gives the same.

A lot may have less left than its holds say: the holds of a worker that was not there when the shard
was rebuilt before are found again, and their credits have been spent meanwhile. The lot then holds
what it has left and no more (I1, I3): holds take it in the order in which they were admitted, and
the text of one that gets less is rewritten. What its call owes beyond that is collected like every
excess, from the lots that are valid when it settles, as far as they go.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from policies.delegation import DELEGATION_DEPTH_MAX
from policies.limits import (
    PARENT,
    PERIOD,
    QUOTAS,
    Counter,
    month_end_ms,
    parse_rules,
    window_end_ms,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from policies.limits import Rule

Fields = dict[str, str | int]

# The middle of any calendar month since 1970 is not further than days from so many mean ones.
MEAN_MONTH_MS = 2_629_746_000
HALF_MONTH_MS = 1_296_000_000
SESSION_SCOPE = "S"
# In what counted a hold: it lives with a task, and no call of it is running (lua/lib/parked.lua).
PARKED = "P"
ABSENT = Counter(-1)  # older than any window


class HoldText(NamedTuple):
    """A live hold as the shard's `holds` hash has it; `str` gives that text back.

    `held`, `due` in microcredits; `counted` names the counters that the call is in, `allocation`
    the lots that its credits come from.
    """

    account_id: int
    admitted_ms: int
    held: int
    due: int
    units: str
    counted: str
    allocation: str
    context: str

    def __str__(self) -> str:
        return (
            f"h|{self.account_id}|{self.admitted_ms}|{self.held}|{self.due}|{self.units}|"
            f"{self.counted}|{self.allocation}|{self.context}"
        )

    @property
    def key_id(self) -> str:
        """The id of the key that the call came with."""
        return self.context.split(",", 3)[2]

    @property
    def route_id(self) -> str:
        """The id of the route that it took."""
        return self.context.split(",", 4)[3]

    @property
    def parked(self) -> bool:
        """Whether it lives with a task and no call of it is running."""
        return PARKED in self.counted.split()

    @property
    def session(self) -> str:
        """The call's session, empty for none."""
        return self.context.split(",", 5)[5]


class Rebuilt(NamedTuple):
    """The fields of `load`, and the new texts of holds that got less than they say, by call id."""

    fields: Fields
    holds: dict[str, str]


def parse_hold(text: str) -> HoldText:
    """The hold in "h|account|admitted_ms|amount|due|units|counted|allocation|context".

    Raises: ValueError when the text is none.
    """
    parts = text.split("|")
    if len(parts) != 9 or parts[0] != "h" or parts[8].count(",") < 5:
        raise ValueError(f"{text!r} is not a hold")
    _, account_id, admitted_ms, held, due, units, counted, allocation, context = parts
    return HoldText(
        int(account_id), int(admitted_ms), int(held), int(due), units, counted, allocation, context
    )


def rebuild_account(state: Mapping[str, str | int], holds: Mapping[str, str]) -> Rebuilt:
    """Fold the live holds of an account, texts by call id, into what Postgres has of it.

    `state` are the fields of `load` without any hold. Raises: ValueError when a text is no hold.
    """
    live = [(call_id, parse_hold(text)) for call_id, text in holds.items()]
    running = sum(not hold.parked for _, hold in live)
    fields: Fields = {**state, "running": running}
    live.sort(key=lambda item: (item[1].admitted_ms, item[0]))
    rewritten = {}
    for call_id, hold in live:
        allocation = " ".join(_draw(fields, hold.allocation))
        if allocation != hold.allocation:
            rewritten[call_id] = str(hold._replace(allocation=allocation))
    for _, hold in live:
        _count_spending(fields, hold)
        _count_call(fields, hold)
    return Rebuilt(fields, rewritten)


def session_holds(holds: Iterable[str]) -> dict[tuple[int, str], dict[str, int]]:
    """What live holds hold of their sessions' caps, microcredits.

    By account id and session: by field of the session's hash, "A" for the account's cap, "K5" for
    that of a key.
    """
    sessions: dict[tuple[int, str], dict[str, int]] = {}
    for hold in map(parse_hold, holds):
        for token in hold.counted.split():
            scope, _, field = token.partition(".")
            if scope == SESSION_SCOPE:
                held = sessions.setdefault((hold.account_id, hold.session), {})
                held[field] = held.get(field, 0) + hold.held
    return sessions


def _draw(fields: Fields, allocation: str) -> Iterator[str]:
    """Move the parts of a hold from available to held; the parts that could be."""
    for part in allocation.split():
        token, _, amount = part.partition(":")
        lot = token.removesuffix("o")
        available = int(fields.get(f"a:{lot}", 0))  # a lot that is not there has nothing left
        drawn = min(int(amount), available)
        if drawn:
            fields[f"a:{lot}"] = available - drawn
            fields[f"h:{lot}"] = int(fields.get(f"h:{lot}", 0)) + drawn
            yield f"{token}:{drawn}"


def _count_spending(fields: Fields, hold: HoldText) -> None:
    """Count a hold in the caps and concurrencies that it names."""
    for token in hold.counted.split():
        if token == PARKED or token.startswith(f"{SESSION_SCOPE}."):
            continue
        field, _, end = token.partition("@")
        if not end:
            fields[field] = int(fields.get(field, 0)) + 1
            continue
        kept, end_ms = _counter(fields, field), int(end)
        # Without a counter the cap is no more, else its window has passed.
        if field in fields and kept.end_ms <= end_ms:
            kept = kept.at(end_ms)
            fields[field] = str(kept._replace(used=kept.used + hold.held))


def _count_call(fields: Fields, hold: HoldText) -> None:
    """Count a running call in the quotas that Postgres counts by what was settled."""
    month = int(fields.get("month", 0))
    if int(fields.get("rpmonth", 0)) and month_end_ms(hold.admitted_ms) == _end_of(month):
        fields["count"] = int(fields.get("count", 0)) + 1
    of_account = parse_rules(str(fields.get("rules", "")))
    period = next((rule for rule in of_account if rule.kind == PERIOD), None)
    for scope, rules in (("A", of_account), *_key_scopes(fields, hold.key_id)):
        for rule in rules:
            if rule.kind in QUOTAS:
                _count_in_window(fields, f"{scope}.{rule.kind}", hold, period)
    for kind in QUOTAS:  # a route's rules are not the account's: where there is a counter
        if f"R{hold.route_id}.{kind}" in fields:
            _count_in_window(fields, f"R{hold.route_id}.{kind}", hold, period)


def _key_scopes(fields: Fields, key_id: str) -> Iterator[tuple[str, tuple[Rule, ...]]]:
    """A key and those that it was carved from, each with its rules."""
    for _ in range(DELEGATION_DEPTH_MAX + 1):
        rules = parse_rules(str(fields.get(f"k:{key_id}", "")).partition(" ")[2])
        yield f"K{key_id}", rules
        parent = next((rule.limit for rule in rules if rule.kind == PARENT), None)
        if parent is None:
            return
        key_id = str(parent)


def _count_in_window(fields: Fields, field: str, hold: HoldText, period: Rule | None) -> None:
    end_ms = window_end_ms(field.rpartition(".")[2], hold.admitted_ms, period)
    kept = _counter(fields, field)
    if kept.end_ms <= end_ms:
        kept = kept.at(end_ms)
        fields[field] = str(kept._replace(used=kept.used + 1))


def _counter(fields: Fields, field: str) -> Counter:
    end, _, used = str(fields.get(field, "")).partition(":")
    return Counter(int(end), int(used)) if used else ABSENT


def _end_of(month: int) -> int:
    """When a month ends that is written as yyyymm, 0 for none."""
    year, number = divmod(month, 100)
    if not month:
        return 0
    return month_end_ms(((year - 1970) * 12 + number - 1) * MEAN_MONTH_MS + HALF_MONTH_MS)
