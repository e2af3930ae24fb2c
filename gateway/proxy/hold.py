"""What a running call holds, and the records that its end makes of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from policies.catalog import Ending, Rule
from policies.meters import UNITS_MAX
from policies.pricing import due_if_lost
from policies.settlement import (
    LateSettlement,
    Settlement,
    owed,
    parse_postings,
    units_text,
    with_overage,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.proxy.authenticate import Principal
    from gateway.proxy.offers import Offer
    from policies.decision import Admitted, Settled
    from policies.meters.reading import Reading
    from policies.terms import Step, Terms

_UNKNOWN = Ending.UNKNOWN


class Hold(NamedTuple):
    """A call that was admitted: who, for what, what Redis reserved, its session or "", its terms.

    Without a hold, on trust: then `admitted` has epoch 0 and no allocation.
    """

    call_id: str
    principal: Principal
    offer: Offer
    admitted: Admitted
    session: str
    terms: Terms

    @property
    def held(self) -> int:
        """Microcredits reserved by now."""
        return self.terms.ceiling

    def raised(self, held: int, allocation: str, counted: str) -> Hold:
        """The same after Redis has reserved more: `held` microcredits in all."""
        admitted = self.admitted._replace(allocation=allocation, counted=counted)
        return self._replace(admitted=admitted, terms=self.terms._replace(ceiling=held))


class Bill(NamedTuple):
    """What an ending makes a call owe in microcredits, and why: words, and units as text.

    `steps` say for which earlier use this is right, where a price has graduated tiers.
    """

    owed: int
    flags: str
    units: str
    steps: tuple[Step, ...]


NO_BILL = Bill(0, "", "", ())


class End(NamedTuple):
    """How a call ended, and what that makes it owe in microcredits."""

    ending: Ending
    status: int
    units: str
    flags: str
    owed: int
    ended_ms: int
    steps: tuple[Step, ...] = ()


class Receipt(NamedTuple):
    """What the client is told. `remaining` is None when Redis could not be asked.

    `charged` is then what the call owes; what of it can be collected is decided later. `reserved`
    is what a task keeps that outlives its call: nothing is charged yet.
    """

    charged_microcredits: int
    remaining_microcredits: int | None
    reserved_microcredits: int | None = None


def ending_of(status: int) -> Ending:
    """How a call has ended that was answered to the end."""
    if status < 400:
        return Ending.COMPLETED
    return Ending.CLIENT_ERROR if status < 500 else Ending.UPSTREAM_ERROR


def bill(hold: Hold, ending: Ending, reading: Reading) -> Bill:
    """What an ending costs, as far as it is known where in its tiers the account is.

    An end that nobody saw costs what the reaper would charge for it.
    """
    terms = hold.terms
    price = terms.price
    if price is None:
        return NO_BILL
    rule = hold.offer.route.rules[ending]
    if ending is _UNKNOWN:
        due = due_if_lost(terms, rule, reading)
        return Bill(due, "", units_text(price, reading), ())
    owing, flags, steps = owed(terms, rule, ending, reading)
    if steps:
        owing, flags, steps = owed(terms, rule, ending, reading, _positions(hold))
    return Bill(owing, flags, units_text(price, reading, steps), steps)


def beyond_bound(hold: Hold, ending: Ending, reading: Reading) -> int | None:
    """What an answer costs, if that is more than its caller allows."""
    terms = hold.terms
    if terms.bound is None or hold.offer.route.rules[ending] is not Rule.ACTUAL:
        return None
    free = terms._replace(bound=None)
    cost = owed(free, Rule.ACTUAL, ending, reading, _positions(hold)).microcredits
    return cost if cost > terms.bound else None


def steps_text(route_id: int, steps: Sequence[Step], *, exact: bool = True) -> bytes:
    """Steps as the settle script reads them; right for any earlier use unless `exact`."""
    if not steps:
        return b""
    spans = [(step.least, step.most) if exact else (0, UNITS_MAX) for step in steps]
    texts = [
        f"{route_id}:{step.unit}:{least}:{most}:{step.units}"
        for step, (least, most) in zip(steps, spans, strict=True)
    ]
    return " ".join(texts).encode("ascii")


def _positions(hold: Hold) -> list[int]:
    """What the account has used of each meter's unit before, as Redis has said last."""
    used, route_id, price = hold.principal.used, hold.offer.route.id, hold.terms.price
    meters = price.meters if price is not None else ()
    return [used.get((route_id, meter.unit), 0) for meter in meters]


def settlement_of(  # noqa: PLR0917 - for every call: no bag is made of what is at hand
    hold: Hold, ending: Ending, status: int, units: str, flags: str, outcome: Settled
) -> Settlement:
    """The row of a call that Redis has settled."""
    call_id, principal, offer, _, session, terms = hold
    price = terms.price
    postings = outcome.postings
    return Settlement(
        call_id,
        principal.keys.shard,
        outcome.outbox_id,
        principal.platform_id,
        principal.account_id,
        principal.key_number,
        offer.route.id,
        price.version if price is not None else 0,
        outcome.admitted_ms,
        outcome.settled_ms,
        ending,
        status,
        units,
        with_overage(flags, postings) if "o" in postings else flags,
        session,
        terms.ceiling,
        outcome.charged,
        outcome.uncollected,
        parse_postings(postings),
    )


def late_settlement_of(hold: Hold, end: End) -> LateSettlement:
    """What Postgres is told of a call that Redis could not settle."""
    call_id, principal, offer, admitted, session, terms = hold
    price = terms.price
    return LateSettlement(
        call_id=call_id,
        shard=principal.keys.shard,
        platform_id=principal.platform_id,
        account_id=principal.account_id,
        key_id=principal.key_number,
        route_id=offer.route.id,
        price_version=price.version if price is not None else 0,
        session=session,
        admitted_ms=admitted.admitted_ms,
        ended_ms=end.ended_ms,
        ending=end.ending,
        status=end.status,
        units=end.units,
        flags=end.flags,
        held_microcredits=terms.ceiling if admitted.epoch else 0,
        owed_microcredits=end.owed,
    )
