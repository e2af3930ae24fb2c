"""What a running call holds, and the records that its end makes of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from policies.catalog import Ending
from policies.settlement import (
    LateSettlement,
    Settlement,
    due_if_lost,
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

_UNKNOWN = Ending.UNKNOWN


class Hold(NamedTuple):
    """A call that was admitted: who, for what, what Redis reserved, and its session or "".

    Without a hold, on trust: then `admitted` has epoch 0 and no allocation.
    """

    call_id: str
    principal: Principal
    offer: Offer
    admitted: Admitted
    session: str


class End(NamedTuple):
    """How a call ended, and what that makes it owe in microcredits."""

    ending: Ending
    status: int
    units: str
    flags: str
    owed: int
    ended_ms: int


class Receipt(NamedTuple):
    """What the client is told. `remaining` is None when Redis could not be asked.

    `charged` is then what the call owes; what of it can be collected is decided later.
    """

    charged_microcredits: int
    remaining_microcredits: int | None


def owed_by(offer: Offer, ending: Ending, units: Sequence[int | None]) -> tuple[int, str, str]:
    """Microcredits that an ending costs, the flags of that, and the units as text.

    An end that nobody saw costs what the reaper would charge for it.
    """
    route = offer.route
    price = route.price
    if price is None:
        return 0, "", ""
    if ending is _UNKNOWN:
        due, flags = due_if_lost(price, route.rules[ending], offer.ceiling, units), ""
    else:
        due, flags = owed(price, route.rules[ending], offer.ceiling, units)
    return due, flags, units_text(price, units)


def settlement_of(  # noqa: PLR0917 - for every call: no bag is made of what is at hand
    hold: Hold, ending: Ending, status: int, units: str, flags: str, outcome: Settled
) -> Settlement:
    """The row of a call that Redis has settled."""
    call_id, principal, offer, _, session = hold
    price = offer.route.price
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
        offer.ceiling,
        outcome.charged,
        outcome.uncollected,
        parse_postings(postings),
    )


def late_settlement_of(hold: Hold, end: End) -> LateSettlement:
    """What Postgres is told of a call that Redis could not settle."""
    call_id, principal, offer, admitted, session = hold
    price = offer.route.price
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
        held_microcredits=offer.ceiling if admitted.epoch else 0,
        owed_microcredits=end.owed,
    )
