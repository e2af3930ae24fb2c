"""The durable record of one call, and what an ending costs.

A settlement is born in a script, travels through the shard's outbox stream, and ends as a row in
Postgres. Other changes that take credits (a lot expires, is revoked, a call turns out to cost more)
travel the same way. This file is the one place that knows both spellings: what goes into the
scripts (`result_blob`) and what comes back out of the outbox (`parse_entry`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from policies import pricing
from policies.catalog import Ending, Rule

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from policies.catalog import Price
    from policies.meters.reading import Reading
    from policies.terms import Step, Terms

# Words in a settlement's flags, beside those of `terms`. The hold ran out before anybody said how
# the call ended; a lot of overage paid; it ran without a hold.
EXPIRED = "expired"
OVERAGE = "overage"
TRUSTED = "trusted"
# What a unit's name has behind it in a settlement's units for how far it moved through tiers.
TIERS_SUFFIX = ".tiers"


class Posting(NamedTuple):
    """Microcredits taken from (or held on) one grant."""

    grant_id: int
    microcredits: int


class Settlement(NamedTuple):
    """One row of `settlements`; exactly one per call.

    `call_id` is 32 lower-case hex digits of a UUIDv7. `outbox_id` names the entry in the shard's
    outbox stream that goes once this row is in Postgres; None when Redis could not be asked.
    """

    call_id: str
    shard: int
    outbox_id: str | None
    platform_id: int
    account_id: int
    key_id: int
    route_id: int
    price_version: int
    admitted_ms: int
    settled_ms: int
    ending: str
    status: int
    units: str  # "token=30" or "token=30;image=2"; empty when nothing was metered
    flags: str  # "" or comma-joined words such as "units_missing"
    session: str  # "" or what the client named its X-Session-Id
    held_microcredits: int
    charged_microcredits: int
    uncollected_microcredits: int
    postings: tuple[Posting, ...]


class LedgerChange(NamedTuple):
    """What a script took from lots apart from settling a call: one row of `ledger_changes`.

    `change_id` is 32 hex digits; that of a `late` change is the `correction_id` of its call.
    Postings are what was taken, above 0.
    """

    change_id: str
    shard: int
    outbox_id: str
    kind: str  # expire, revoke, adjust, late
    platform_id: int
    account_id: int
    call_id: str  # "" when it is about no call
    at_ms: int
    postings: tuple[Posting, ...]


class LateSettlement(NamedTuple):
    """What a call owes that ended while Redis could not be asked: it is charged as soon as it can.

    Kept in Postgres meanwhile. `owed_microcredits` is what the ending makes it pay; what is really
    charged is decided in Redis, like every charge.
    """

    call_id: str
    shard: int
    platform_id: int
    account_id: int
    key_id: int
    route_id: int
    price_version: int
    session: str
    admitted_ms: int
    ended_ms: int
    ending: str
    status: int
    units: str
    flags: str
    held_microcredits: int
    owed_microcredits: int

    def context(self) -> str:
        """Whose call it is, as holds and outbox carry it."""
        return (
            f"{self.platform_id},{self.account_id},{self.key_id},"
            f"{self.route_id},{self.price_version},{self.session}"
        )


class Owed(NamedTuple):
    """What a call has to pay, comma-joined words about how that came to be, and tier steps."""

    microcredits: int
    flags: str
    steps: tuple[Step, ...] = ()


_NOTHING_OWED = Owed(0, "")


def owed(
    terms: Terms, rule: Rule, ending: Ending, reading: Reading, positions: Sequence[int] = ()
) -> Owed:
    """What the rule of a call's ending makes it pay, in microcredits.

    A free route owes nothing whatever the rule. More than the ceiling can be owed: then the units
    went over the reserve. `positions` are those of `pricing.final`; only actual use moves through
    tiers.
    """
    if terms.price is None or rule is Rule.NOTHING:
        return _NOTHING_OWED
    if rule is Rule.ACTUAL:
        microcredits, words, steps = pricing.final(
            terms, reading, whole=ending is Ending.COMPLETED, positions=positions
        )
        return Owed(microcredits, ",".join(words) if words else "", steps)
    return Owed(terms.ceiling if rule is Rule.RESERVED else pricing.floor(terms), "")


def units_text(price: Price | None, reading: Reading, steps: Sequence[Step] = ()) -> str:
    """The units that were read, as a settlement keeps them: "token=30;image=2".

    Then how far the account moves through tiers (`steps`): "token=30;token.tiers=25". That can be
    less than what was read (included units), or more than nothing where nothing was (missing units
    that are charged); and nothing moves but for actual use.
    """
    meters = price.meters if price is not None and reading.units else ()
    text = ""
    for meter, count in zip(meters, reading.units, strict=True):
        if count is not None:
            text = f"{text};{meter.unit}={count}" if text else f"{meter.unit}={count}"
    for step in steps:
        moved = f"{step.unit}{TIERS_SUFFIX}={step.units}"
        text = f"{text};{moved}" if text else moved
    return text


def result_blob(ending: Ending, status: int, units: str, flags: str) -> str:
    """How a call went, as the settle script stores it unread: "completed,200,token=30,".

    Flags come last because they may hold commas themselves.
    """
    return f"{ending},{status},{units},{flags}"


def parse_postings(text: str) -> tuple[Posting, ...]:
    """The postings in a script's "12:1000 15:3 99o:7" (o: a lot of overage).

    Raises: ValueError when the text is anything else.
    """
    if " " not in text:  # the common case: one grant pays, or none
        return (_posting(text),) if text else ()
    return tuple([_posting(pair) for pair in text.split()])


def correction_id(call_id: str) -> str:
    """The one id that a late correction of a call can have: a UUIDv8 beside the call's UUIDv7.

    It is not the call's own, because both may be on their way to Postgres at once, each until it is
    acknowledged.
    """
    return f"{call_id[:12]}8{call_id[13:]}"


def with_overage(flags: str, postings: str) -> str:
    """The flags of a settlement whose script replied these postings."""
    if "o:" not in postings:
        return flags
    return f"{flags},{OVERAGE}" if flags else OVERAGE


def parse_entry(
    shard: int, outbox_id: str, fields: Mapping[bytes, bytes]
) -> Settlement | LedgerChange:
    """What an entry of a shard's outbox stream says, in its one field.

    `v` call id|context|held|admitted_ms|settled_ms|charged|uncollected|postings|result, with the
    context "platform,account,key,route,price version,session" and the `result_blob`;
    `c` change id|kind|platform,account|at_ms|call id|postings.

    Raises: ValueError when it is not what the scripts write.
    """
    try:
        if b"v" in fields:
            return _settlement(shard, outbox_id, fields[b"v"].decode())
        return _change(shard, outbox_id, fields[b"c"].decode())
    except KeyError:
        raise ValueError(f"outbox entry {outbox_id} has neither field v nor c") from None
    except ValueError as bad:
        raise ValueError(f"outbox entry {outbox_id} is malformed: {bad}") from None


def _settlement(shard: int, outbox_id: str, text: str) -> Settlement:
    call_id, context, held, admitted_ms, settled_ms, charged, uncollected, postings, result = (
        text.split("|", 8)
    )
    *numbers, session = context.split(",", 5)
    platform_id, account_id, key_id, route_id, price_version = map(int, numbers)
    ending, status, units, flags = result.split(",", 3)
    return Settlement(
        call_id=call_id,
        shard=shard,
        outbox_id=outbox_id,
        platform_id=platform_id,
        account_id=account_id,
        key_id=key_id,
        route_id=route_id,
        price_version=price_version,
        admitted_ms=int(admitted_ms),
        settled_ms=int(settled_ms),
        ending=Ending(ending).value,
        status=int(status),
        units=units,
        flags=with_overage(flags, postings),
        session=session,
        held_microcredits=int(held),
        charged_microcredits=int(charged),
        uncollected_microcredits=int(uncollected),
        postings=parse_postings(postings),
    )


def _change(shard: int, outbox_id: str, text: str) -> LedgerChange:
    change_id, kind, owner, at_ms, call_id, postings = text.split("|")
    platform_id, account_id = map(int, owner.split(","))
    return LedgerChange(
        change_id=change_id,
        shard=shard,
        outbox_id=outbox_id,
        kind=kind,
        platform_id=platform_id,
        account_id=account_id,
        call_id=call_id,
        at_ms=int(at_ms),
        postings=parse_postings(postings),
    )


def _posting(pair: str) -> Posting:
    grant_id, _, microcredits = pair.partition(":")
    return Posting(int(grant_id.removesuffix("o")), int(microcredits))
