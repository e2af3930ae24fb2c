"""Compares what every witness says of every call, and names each disagreement.

Witnesses: the agent's journal (what was really called), the clients (what they were told), and
Postgres (what was charged in the end: the settlement and every later entry of the same call). Pure:
values in, violations out. Redis is held against Postgres by `tollkeeper audit`.

    free         the agent worked, and nobody paid what the call's ending costs
    phantom      somebody paid for a call that the agent never got
    double       a call reached the agent twice, or was recorded twice
    wrong        a price that is not the one the ending costs
    told         the client was told another figure than was charged
    lost         the client had its answer, and the call is not recorded
    dispatched   the client was refused, and the agent was called all the same

One more is no broken promise where workers are killed (RELIABILITY.md), and is only counted there:

    brink        the worker died between noting that it sends the call on and doing so: charged as
                 sent. Some client must have seen just such a call end without a word
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

from tests.faults.kinds import DIE_CALL, FAIL_CALL, HANG_CALL, REFUSE_CALL

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from tests.faults.clients import Seen

REFUSALS = frozenset({401, 402, 403, 404, 429, 503})
EXPIRED = "expired"
AGENTS_FAULTS = {
    "client_error": (FAIL_CALL,),
    "upstream_error": (DIE_CALL, REFUSE_CALL),
    "upstream_timeout": (HANG_CALL,),
}


class Arrival(NamedTuple):
    """A call in the agent's journal."""

    call_id: str
    nonce: str
    at_s: float


class Charge(NamedTuple):
    """A call in Postgres. `net` is what all of its ledger entries took, in microcredits."""

    call_id: str
    account_id: int
    ending: str
    flags: str
    rows: int
    charged: int
    uncollected: int
    net: int


class Journal:
    """The agent's journal, as far as it was read."""

    def __init__(self) -> None:
        self.arrivals: list[Arrival] = []
        self.usage: defaultdict[str, list[tuple[float, int]]] = defaultdict(list)

    def take(self, lines: Iterable[Mapping[str, object]]) -> None:
        """Lines of the journal, in order."""
        for line in lines:
            call_id, at_s = str(line["call"]), float(str(line["at"]))
            if "tokens" in line:
                self.usage[call_id].append((at_s, int(str(line["tokens"]))))
            else:
                self.arrivals.append(Arrival(call_id, str(line["nonce"]), at_s))

    def tokens_by(self, call_id: str, moment_s: float) -> int:
        """The usage that the agent had reported in this call by then."""
        return max((tokens for at_s, tokens in self.usage[call_id] if at_s <= moment_s), default=0)


class Violation(NamedTuple):
    """One broken promise. `seen` is None where no client knows of the call."""

    rule: str
    text: str
    seen: Seen | None = None

    def __str__(self) -> str:
        return f"{self.rule}: {self.text}"


def judge(
    calls: Sequence[Seen], journal: Journal, charges: Iterable[Charge], *, lease_s: float
) -> list[Violation]:
    """Every broken promise. All calls must be over, in Redis and in Postgres.

    `charges` may hold calls that are not in `calls`: they must have cost nothing then.
    """
    recorded = {charge.call_id: charge for charge in charges}
    arrivals: defaultdict[str, list[Arrival]] = defaultdict(list)
    for arrival in journal.arrivals:
        arrivals[arrival.nonce].append(arrival)
    violations: list[Violation] = []
    explained: set[str] = set()
    for seen in calls:
        arrived = arrivals[seen.nonce]
        call_id = arrived[0].call_id if arrived else seen.request_id
        explained.add(call_id)
        charge = recorded.get(call_id)
        found = list(_judge_one(seen, arrived, charge, journal, lease_s))
        violations += [
            Violation(rule, f"{text}; {seen}, recorded {charge}", seen) for rule, text in found
        ]
    silent = [seen for seen in calls if _ended_silently(seen) and not arrivals[seen.nonce]]
    for call_id in sorted(recorded.keys() - explained):
        charge = recorded[call_id]
        if charge.net:
            seen = next((seen for seen in silent if _at_the_brink(seen, charge)), None)
            rule = "phantom"
            if seen is not None:
                silent.remove(seen)
                rule = "brink"
            text = f"{charge}, which no client and no agent knows"
            violations.append(Violation(rule, text, seen))
    return violations


def _ended_silently(seen: Seen) -> bool:
    """Its client was connected and heard nothing at all."""
    return not (seen.unreached or seen.status or seen.complete)


def _at_the_brink(seen: Seen, charge: Charge) -> bool:
    """Whether this charge is what such a call costs whose worker died when it sent it on."""
    return (
        (charge.account_id, charge.net) == (seen.account_id, seen.kind.floor)
        and (charge.ending, charge.flags) == ("unknown", EXPIRED)
        and seen.started_s * 1000 <= int(charge.call_id[:12], 16) + 1 <= seen.ended_s * 1000 + 1
    )


def _judge_one(
    seen: Seen, arrived: Sequence[Arrival], charge: Charge | None, journal: Journal, lease_s: float
) -> Iterator[tuple[str, str]]:
    yield from _judge_once(seen, arrived, charge)
    net = charge.net if charge is not None else 0
    if seen.told is not None and seen.told != net:
        yield "told", f"its client was told {seen.told}"
    if seen.complete and seen.status in REFUSALS:
        if arrived:
            yield "dispatched", f"it was refused with {seen.status}"
    elif seen.went_well:
        yield from _judge_well(seen, charge)
    elif seen.complete:
        yield "wrong", f"its client should have got status {seen.kind.status}"
    elif arrived:
        yield from _judge_cut(seen, charge, journal, lease_s)


def _judge_once(
    seen: Seen, arrived: Sequence[Arrival], charge: Charge | None
) -> Iterator[tuple[str, str]]:
    """A call is made once, recorded once, and only what was made is charged."""
    if len(arrived) > 1:
        yield "double", f"it reached the agent {len(arrived)} times"
    if charge is None:
        return
    if charge.rows != 1:
        yield "double", f"it has {charge.rows} settlements"
    if charge.net and not arrived:
        yield "phantom", f"{charge.net} were charged for a call that never reached the agent"
    if charge.uncollected and EXPIRED not in charge.flags:
        yield "free", f"{charge.uncollected} of it could not be collected"


def _judge_well(seen: Seen, charge: Charge | None) -> Iterator[tuple[str, str]]:
    """A call whose client has all that it should get."""
    cost = seen.kind.cost(seen.tokens)
    if charge is None:
        yield "lost", "its client has the whole answer"
    elif charge.net != cost:
        yield ("free" if charge.net < cost else "wrong"), f"it cost {cost}"


def _judge_cut(
    seen: Seen, charge: Charge | None, journal: Journal, lease_s: float
) -> Iterator[tuple[str, str]]:
    """A call that the agent got and whose client has no whole answer."""
    if charge is None:
        yield "free", "the agent worked for it and it is not recorded"
        return
    least, most = _bounds(seen, charge, journal, lease_s)
    if charge.net < least:
        yield "free", f"it should have cost at least {least}"
    if charge.net > most:
        yield "wrong", f"it should have cost at most {most}"


def _bounds(seen: Seen, charge: Charge, journal: Journal, lease_s: float) -> tuple[int, int]:
    """What a call that was cut may cost, by the ending that it is recorded with."""
    kind = seen.kind
    if charge.ending == "client_disconnect":
        return kind.checkpoint(seen.tokens_read), kind.hold
    if charge.ending == "unknown":
        # A hold is renewed every third of its lease, so what was known a lease ago is in it.
        known = journal.tokens_by(charge.call_id, seen.ended_s - lease_s)
        return kind.checkpoint(known), kind.hold
    if charge.ending == "completed" or kind in AGENTS_FAULTS.get(charge.ending, ()):
        return kind.cost(seen.tokens), kind.cost(seen.tokens)
    return kind.hold, kind.hold  # an ending that the agent of this kind does not cause
