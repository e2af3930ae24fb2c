"""Which lots of credits pay for a call: the order, and the arithmetic of reserve and settle.

Pure values in, pure values out. The Lua scripts do the same inside Redis and are held against this
file by `tests/policies/lua`; a settlement that cannot reach Redis uses it directly.
"""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

from policies.settlement import Posting

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class Lot(NamedTuple):
    """A grant's credits as they stand, in microcredits; times in ms, `expires_ms` 0 for never.

    `withdrawn` left it for other reasons than calls. A lot of overage is credit that a plan gives
    beyond its grants: what is available of it is room, what is used of it is debt.
    """

    grant_id: int
    available: int
    held: int
    settled: int
    expires_ms: int
    effective_ms: int
    priority: int
    created_ms: int
    withdrawn: int = 0
    overage: bool = False

    def spendable(self, now_ms: int) -> bool:
        """Whether it may pay now: from its effective time until just before its expiry."""
        return self.effective_ms <= now_ms and (self.expires_ms == 0 or now_ms < self.expires_ms)


class Drawn(NamedTuple):
    """What lots could give towards an amount, and what was missing."""

    postings: tuple[Posting, ...]
    missing: int


class Split(NamedTuple):
    """What a hold's end does to its parts.

    `charged` and `released` name only grants with an amount above 0, in the hold's order; `excess`
    is what was owed beyond the hold.
    """

    charged: tuple[Posting, ...]
    released: tuple[Posting, ...]
    excess: int


def order(lots: Iterable[Lot]) -> list[Lot]:
    """The burn-down order: lowest priority number, soonest expiry (never comes last), oldest."""
    by_age = sorted(lots, key=attrgetter("priority", "created_ms", "grant_id"))
    by_expiry = sorted(by_age, key=attrgetter("expires_ms"))
    never_last = sorted(by_expiry, key=lambda lot: lot.expires_ms == 0)
    return sorted(never_last, key=attrgetter("priority"))


def remaining(lots: Iterable[Lot], now_ms: int) -> int:
    """What is left to spend now, in microcredits; debt of overage counts against it.

    So it is negative once the debt is above what the other lots have.
    """
    return sum(
        -(lot.held + lot.settled + lot.withdrawn) if lot.overage else lot.available
        for lot in lots
        if lot.spendable(now_ms)
    )


def available(lots: Iterable[Lot], now_ms: int) -> int:
    """What a new call could hold now, in microcredits, with the room that overage has left."""
    return sum(lot.available for lot in lots if lot.spendable(now_ms))


def draw(lots: Sequence[Lot], amount: int, now_ms: int) -> Drawn:
    """Take an amount from the spendable lots in the order given, as far as they go."""
    postings = []
    for lot in lots:
        part = min(lot.available, amount) if lot.spendable(now_ms) else 0
        if part:
            postings.append(Posting(lot.grant_id, part))
            amount -= part
    return Drawn(tuple(postings), amount)


def allocate(lots: Sequence[Lot], amount: int, now_ms: int) -> tuple[Posting, ...] | None:
    """The parts of a hold, from the spendable lots in the order given.

    Denies: None when they do not cover the whole amount. An amount of 0 needs no lot.
    """
    drawn = draw(lots, amount, now_ms)
    return None if drawn.missing else drawn.postings


def split(allocation: Iterable[Posting], owed: int) -> Split:
    """Charge what is owed to the parts of a hold in their order; the rest of each goes back."""
    charged, released = [], []
    for grant_id, part in allocation:
        charge = min(part, owed)
        owed -= charge
        if charge:
            charged.append(Posting(grant_id, charge))
        if part > charge:
            released.append(Posting(grant_id, part - charge))
    return Split(tuple(charged), tuple(released), owed)
