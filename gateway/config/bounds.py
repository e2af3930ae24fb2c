"""What plans, routes and keys share: limits and caps, and which of them can't go together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from policies.catalog import Caps, Limits
from policies.units import format_credits

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.config.section import Section

# The limiter's clock counts whole microseconds, and its sums stay below 2^53 of them.
REQUESTS_PER_SECOND_MAX = 1_000_000
REQUESTS_PER_MINUTE_MAX = 1_000_000
BURST_MAX = 1_000_000
LIMIT_MAX = 1_000_000_000
# The longer window comes second. Sessions last as long as they are used.
_WITHIN = (("day", "month"), ("day", "total"), ("month", "total"), ("session", "total"))


def read_limits(section: Section) -> Limits:
    """The limits of the table that has them; 0 or left out is none."""
    limits = Limits(
        requests_per_second=section.integer(
            "requests_per_second", 0, least=0, most=REQUESTS_PER_SECOND_MAX
        ),
        requests_per_minute=section.integer(
            "requests_per_minute", 0, least=0, most=REQUESTS_PER_MINUTE_MAX
        ),
        burst=section.integer("burst", 0, least=0, most=BURST_MAX),
        requests_per_month=section.integer("requests_per_month", 0, least=0, most=LIMIT_MAX),
        concurrency=section.integer("concurrency", 0, least=0, most=LIMIT_MAX),
    )
    for key, message in contradictions(limits, Caps()):
        section.complain(key, message)
    return limits


def read_caps(section: Section, *, sessions: bool) -> Caps:
    """A table of caps; "0" or left out is none. `sessions`: it may have one per session."""
    amounts = {window: section.amount(window) for window in ("day", "month", "total")}
    if sessions:
        amounts["session"] = section.amount("session")
    elif "session" in section:
        section.complain("session", "is for a plan or a key: sessions pass several routes")
    section.close()
    caps = Caps(**amounts)
    for key, message in contradictions(Limits(), caps):
        section.complain(key, message)
    return caps


def contradictions(limits: Limits, caps: Caps) -> Iterator[tuple[str, str]]:
    """What can't be meant: the field, and why."""
    if limits.burst and not (limits.requests_per_second or limits.requests_per_minute):
        yield "burst", "is of no use without requests_per_second or requests_per_minute"
    for short, long in _WITHIN:
        narrow, wide = getattr(caps, short), getattr(caps, long)
        if wide and narrow > wide:
            yield short, f'is above {long}, "{format_credits(wide)}", and would never be reached'
