"""The durable record of one call, and what an ending costs.

A settlement is born in the settle script, travels through the shard's outbox stream, and ends as a
row in Postgres. This file is the one place that knows both spellings: what goes into the script
(`result_blob`) and what comes back out of the outbox (`parse_outbox`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from policies import pricing
from policies.catalog import Ending, Rule

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from policies.catalog import Price

# A meter read nothing, so its reserve_units were charged.
UNITS_MISSING = "units_missing"


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
    held_microcredits: int
    charged_microcredits: int
    uncollected_microcredits: int
    postings: tuple[Posting, ...]


class Owed(NamedTuple):
    """What a call has to pay, and comma-joined words about how that came to be."""

    microcredits: int
    flags: str


def owed(price: Price | None, rule: Rule, held: int, units: Sequence[int | None]) -> Owed:
    """What the rule of a call's ending makes it pay, in microcredits.

    `held` is the reserved amount, `units` one entry per meter of the price. A free route (None)
    owes nothing whatever the rule. More than `held` can be owed: then the units went over the
    reserve.
    """
    if price is None or rule is Rule.NOTHING:
        return Owed(0, "")
    if rule is Rule.ACTUAL:
        microcredits, missing = pricing.final(price, units)
        return Owed(microcredits, UNITS_MISSING if missing else "")
    return Owed(held if rule is Rule.RESERVED else pricing.floor(price), "")


def units_text(price: Price, units: Sequence[int | None]) -> str:
    """The units that were read, as a settlement keeps them: "token=30;image=2"."""
    text = ""
    for meter, count in zip(price.meters, units, strict=True):
        if count is not None:
            text = f"{text};{meter.unit}={count}" if text else f"{meter.unit}={count}"
    return text


def result_blob(ending: Ending, status: int, units: str, flags: str) -> str:
    """How a call went, as the settle script stores it unread: "completed,200,token=30,".

    Flags come last because they may hold commas themselves.
    """
    return f"{ending},{status},{units},{flags}"


def parse_postings(text: str) -> tuple[Posting, ...]:
    """The postings in a script's "12:1000 15:3".

    Raises: ValueError when the text is anything else.
    """
    if " " not in text:  # the common case: one grant pays, or none
        return (_posting(text),) if text else ()
    return tuple([_posting(pair) for pair in text.split()])


def parse_outbox(shard: int, outbox_id: str, fields: Mapping[bytes, bytes]) -> Settlement:
    """The settlement in an entry of a shard's outbox stream.

    Fields: i call id, x context "platform,account,key,route,price version", m held, t admitted_ms,
    n settled_ms, c charged, u uncollected, p postings, r the `result_blob`.

    Raises: ValueError when a field is missing or is not what the settle script writes.
    """
    try:
        context = fields[b"x"].split(b",")
        platform_id, account_id, key_id, route_id, price_version = map(int, context)
        ending, status, units, flags = fields[b"r"].decode().split(",", 3)
        return Settlement(
            call_id=fields[b"i"].decode(),
            shard=shard,
            outbox_id=outbox_id,
            platform_id=platform_id,
            account_id=account_id,
            key_id=key_id,
            route_id=route_id,
            price_version=price_version,
            admitted_ms=int(fields[b"t"]),
            settled_ms=int(fields[b"n"]),
            ending=Ending(ending).value,
            status=int(status),
            units=units,
            flags=flags,
            held_microcredits=int(fields[b"m"]),
            charged_microcredits=int(fields[b"c"]),
            uncollected_microcredits=int(fields[b"u"]),
            postings=parse_postings(fields[b"p"].decode()),
        )
    except KeyError as missing:
        raise ValueError(f"outbox entry {outbox_id} has no field {missing}") from None
    except ValueError as bad:
        raise ValueError(f"outbox entry {outbox_id} is malformed: {bad}") from None


def _posting(pair: str) -> Posting:
    grant_id, _, microcredits = pair.partition(":")
    return Posting(int(grant_id), int(microcredits))
