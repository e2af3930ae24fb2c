"""Turns units of work into microcredits: before the call (terms) and after it (final).

A cost is

    per_request + JSON-RPC calls + sum over meters of (units beyond the included) x unit price
    less the account's discount,                        rounded up once, to a microcredit,
    then kept between minimum and maximum,              then at most the caller's own bound

Unit prices are picocredits, so splitting work over several meters never changes what it costs. A
meter with tiers is graduated: a unit costs what its place among the units that the account has used
in its billing period says. Every amount here is an integer in [0, `AMOUNT_MICROCREDITS_MAX`].
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from policies.catalog import OnMissing, Rule, named_sources
from policies.meters.reading import NOTHING_READ, Reading
from policies.terms import ESTIMATED, UNITS_MISSING, Step, Terms
from policies.units import (
    AMOUNT_MICROCREDITS_MAX,
    BASIS_POINTS,
    PICOCREDITS_PER_MICROCREDIT,
    format_credits,
    round_up_to_microcredits,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from policies.catalog import MeterSpec, Price, Source, Table, Tier
    from policies.terms import RpcCall

# The last unit that a tier can reach: with none of its own it has no end that anybody could see.
POSITION_MAX = 2**53 - 1
_REQUEST = "request."
_HELD_MIN_MICROCREDITS = 1
_NO_UNITS: tuple[int, ...] = ()


class RequestFacts(Protocol):
    """What a price asks of a request; None: the request does not say."""

    def text(self, source: Source) -> str | None:
        """A value to choose a table's case by."""

    def units(self, source: Source) -> int | None:
        """A count of units."""

    def doubt(self, source: Source) -> str | None:
        """Why the agent may read another value, as the end of a sentence; None: it can't."""


class TooDear(NamedTuple):
    """A call that costs more than its caller allows, whatever comes: in microcredits."""

    floor: int
    bound: int


class NotListed(NamedTuple):
    """A request with a value that the price's table does not list; None: without one."""

    value: str | None


class Unclear(NamedTuple):
    """A request that may ask its agent for something else than what would be paid for.

    `why` is the end of a sentence about it.
    """

    why: str


class Final(NamedTuple):
    """What a call cost, words about how that came to be, and how far it moved through tiers."""

    microcredits: int
    flags: tuple[str, ...]
    steps: tuple[Step, ...]


def needs_request(price: Price) -> bool:
    """Whether what a call may cost can be said only from its request."""
    if price.table is not None or price.rpc is not None:
        return True
    return any(
        meter.reserve_from
        or any(source.kind.startswith(_REQUEST) for source in named_sources(meter))
        for meter in price.meters
    )


def graduated(price: Price) -> bool:
    """Whether some call of it costs less or more for what its account has used before."""
    cases = price.table.cases.values() if price.table is not None else ()
    return any(meter.tiers for each in (price, *cases) for meter in each.meters)


def terms_of(
    price: Price | None,
    rule_if_lost: Rule,
    facts: RequestFacts | None,
    *,
    discount: int = 0,
    bound: int | None = None,
    calls: tuple[RpcCall, ...] = (),
) -> Terms | TooDear | NotListed | Unclear:
    """What one call may cost, fixed before its hold.

    `rule_if_lost` is the rule of the ending `unknown`; `facts` None says as much as an empty
    request; `discount` is in ten-thousandths, `bound` in microcredits. The ceiling is what is to
    be held: every meter at its reserve, tiers at their dearest price; and something of every call
    that may cost anything, since what holds nothing is never refused.
    Denies: TooDear, when even a call without metered work is above `bound`; NotListed; Unclear.
    """
    if price is None:
        return Terms(None, _NO_UNITS, 0, 0, discount, bound)
    if price.table is not None:
        case = _case_of(price, price.table, facts)
        if isinstance(case, NotListed | Unclear):
            return case
        price = case
    unclear = _unclear_units(price, facts)
    if unclear is not None:
        return unclear
    reserves = tuple([_reserve(meter, facts) for meter in price.meters])
    terms = Terms(price, reserves, 0, 0, discount, None, calls)
    least_held = _HELD_MIN_MICROCREDITS if _may_cost(price, discount) else 0
    if bound is not None:
        least = max(floor(terms), least_held)
        if least > bound:
            return TooDear(least, bound)
        terms = terms._replace(bound=bound)
    full = _amount(price, terms, _at_dearest(price, reserves))
    terms = terms._replace(ceiling=max(full, least_held))
    return terms._replace(due=due_if_lost(terms, rule_if_lost, NOTHING_READ))


def ceiling(price: Price) -> int:
    """Microcredits to reserve for a call of which nothing is known, without a discount.

    No call of the same terms costs more as long as it stays within the units that were reserved.
    """
    return _ceiling(price, [meter.reserve_units for meter in price.meters])


def floor(terms: Terms) -> int:
    """Microcredits of a call that did no metered work. Never above the ceiling."""
    return 0 if terms.price is None else _amount(terms.price, terms, 0)


def at_most(terms: Terms, units: Sequence[int]) -> int:
    """Microcredits of so many units, one entry per meter: tiers at their dearest, no bound."""
    if terms.price is None:
        return 0
    free = terms._replace(bound=None)
    return _amount(terms.price, free, _at_dearest(terms.price, units))


def final(
    terms: Terms, reading: Reading, *, whole: bool, positions: Sequence[int] = _NO_UNITS
) -> Final:
    """Microcredits of what was read, for an answer that was complete (`whole`) or cut.

    What is missing counts as the meter's `on_missing` says: by default as reserved if the answer
    was complete, because an agent that stops reporting its usage must not make its calls free;
    else as estimated from what passed. An estimate counts at most what was reserved.
    `positions`: how much of each meter's unit the account had used before in its billing period,
    where the meter has tiers; empty: nothing.
    """
    price = terms.price
    if price is None:
        return Final(0, (), ())
    counts: Sequence[int | None] = reading.units
    flags: tuple[str, ...] = ()
    if None in counts or len(counts) != len(price.meters) or reading.unanswered:
        counts, flags = _filled(price, terms, reading, whole=whole)
    picocredits, steps = _work(price, counts, positions)
    return Final(_amount(price, terms, picocredits, reading.failed), flags, steps)


def due_if_lost(terms: Terms, rule: Rule, reading: Reading) -> int:
    """Microcredits of a call that was sent on and whose end nobody saw: at most its ceiling.

    `rule` is that of the ending `unknown`; `reading` is what was read until then. What was not
    counts as nothing, not as the reserve: here it is ourselves who stopped reading.
    """
    price = terms.price
    if price is None or rule is Rule.NOTHING:
        return 0
    if rule is Rule.RESERVED:
        return terms.ceiling
    picocredits, _ = _work(price, _units_of(price, reading), _NO_UNITS)
    return min(terms.ceiling, _amount(price, terms, picocredits, reading.failed))


def least_ceiling(price: Price) -> int:
    """Microcredits that the cheapest call of a route holds, whatever its request says."""
    table = price.table
    sold = [] if table is not None and table.listed_only else [price]
    sold += table.cases.values() if table is not None else ()
    return min([_ceiling(each, _least_reserves(each)) for each in sold], default=0)


def mistake_in(price: Price) -> str | None:
    """Tries a price on sample usage; what is wrong with it, for the person who wrote it.

    The cases of its table are prices of their own: `mistake_in_case`.
    """
    mistake = _mistake_in_amounts(price)
    if mistake is not None:
        return mistake
    sold = price.table is None or not price.table.listed_only
    # JSON-RPC calls that are not priced are free, and hold nothing.
    return _RESERVES_NOTHING if sold and price.rpc is None and ceiling(price) == 0 else None


def mistake_in_case(case: Price) -> str | None:
    """The same of a case of a table, which may cost nothing, if all of it says so."""
    mistake = _mistake_in_amounts(case)
    if mistake is not None or case.rpc is not None or ceiling(case) > 0:
        return mistake
    return None if _costs_nothing(case) else _RESERVES_NOTHING


_RESERVES_NOTHING = (
    "a call would reserve nothing and could never be refused: give per_request, minimum, "
    "or a meter with credits_per_unit and reserve_units above zero (or say free = true)"
)


def _mistake_in_amounts(price: Price) -> str | None:
    maximum = price.maximum_microcredits
    if maximum is not None and maximum < price.minimum_microcredits:
        return (
            f'maximum "{format_credits(maximum)}" is below '
            f'minimum "{format_credits(price.minimum_microcredits)}"'
        )
    picocredits = _at_dearest(price, [meter.reserve_units for meter in price.meters])
    cost = price.per_request_microcredits + round_up_to_microcredits(picocredits)
    if cost > AMOUNT_MICROCREDITS_MAX and maximum is None:
        return "a call at its reserve_units costs 2^53 microcredits or more; reserve fewer units"
    return None


def _ceiling(price: Price, reserves: Sequence[int]) -> int:
    return _amount(price, Terms(price, tuple(reserves), 0, 0), _at_dearest(price, reserves))


def _least_reserves(price: Price) -> list[int]:
    return [0 if meter.reserve_from else meter.reserve_units for meter in price.meters]


def _may_cost(price: Price, discount: int) -> bool:
    """Whether metered work can cost anything, whatever the request asks for."""
    if discount == BASIS_POINTS or price.maximum_microcredits == 0:
        return False
    return any(dearest(meter) for meter in price.meters)


def _costs_nothing(price: Price) -> bool:
    return (
        price.per_request_microcredits == 0
        and price.minimum_microcredits == 0
        and all(dearest(meter) == 0 for meter in price.meters)
    )


def _case_of(price: Price, table: Table, facts: RequestFacts | None) -> Price | NotListed | Unclear:
    """The case of a table that is this request's, else the price around it, or none.

    That around it is for requests without a listed value, not for those that hide theirs: it may be
    the cheapest.
    """
    why = None if facts is None else facts.doubt(table.source)
    if why is not None:
        return Unclear(why)
    value = None if facts is None else facts.text(table.source)
    case = None if value is None else table.cases.get(value)
    if case is None and table.listed_only:
        return NotListed(value)
    return case or price


def _unclear_units(price: Price, facts: RequestFacts | None) -> Unclear | None:
    """Whether units that the request itself orders can't be counted for sure."""
    if facts is None:
        return None
    for meter in price.meters:
        for source in meter.sources:
            if source.kind.startswith(_REQUEST):
                why = facts.doubt(source)
                if why is not None:
                    return Unclear(why)
    return None


def _reserve(meter: MeterSpec, facts: RequestFacts | None) -> int:
    if facts is not None:
        for source in meter.reserve_from:
            units = facts.units(source)
            if units is not None:
                return units
    return meter.reserve_units


def _units_of(price: Price, reading: Reading) -> Sequence[int | None]:
    """The units of a reading, one entry per meter.

    Raises: ValueError when they are of another price.
    """
    if len(reading.units) == len(price.meters):
        return reading.units
    if reading.units:
        raise ValueError(f"{len(reading.units)} units for {len(price.meters)} meters")
    return (None,) * len(price.meters)


def _filled(
    price: Price, terms: Terms, reading: Reading, *, whole: bool
) -> tuple[list[int | None], tuple[str, ...]]:
    """The units of a reading with what stands in for missing ones, and words about that."""
    flags = [UNITS_MISSING] if reading.unanswered else []
    counts = list(_units_of(price, reading))
    for index, meter in enumerate(price.meters):
        if counts[index] is None:
            word = meter.on_missing
            if word is None:
                word = OnMissing.RESERVED if whole else OnMissing.ESTIMATE
            counts[index] = _stand_in(word, terms, reading, index)
            flags += [UNITS_MISSING, ESTIMATED] if word is OnMissing.ESTIMATE else [UNITS_MISSING]
    return counts, tuple(dict.fromkeys(flags))


def _stand_in(word: OnMissing, terms: Terms, reading: Reading, index: int) -> int:
    """How many units are taken where none could be read."""
    if word is OnMissing.MINIMUM:
        return 0
    reserve = terms.reserves[index]
    if word is OnMissing.RESERVED:
        return reserve
    return min(reading.estimates[index], reserve) if reading.estimates else 0


def _work(
    price: Price, counts: Sequence[int | None], positions: Sequence[int]
) -> tuple[int, tuple[Step, ...]]:
    """Picocredits of metered work, and how it moves the account through tiers."""
    picocredits = 0
    steps: tuple[Step, ...] = ()
    for index, meter in enumerate(price.meters):
        count = (counts[index] or 0) - meter.included_units
        if count <= 0:
            continue
        if meter.tiers:
            cost, step = _graduated(meter, positions[index] if positions else 0, count)
            picocredits += cost
            steps += (step,)
        else:
            picocredits += count * meter.picocredits_per_unit
    return picocredits, steps


def _graduated(meter: MeterSpec, position: int, count: int) -> tuple[int, Step]:
    """Picocredits of `count` units (above 0) after the first `position`, and where that holds.

    Within one tier it holds wherever these units lie in it; across an edge only at this place.
    """
    tiers = meter.tiers
    end = position + count
    picocredits = 0
    begin = 0  # units before the tier
    step = Step(meter.unit, position, position, count)
    for tier in tiers:
        up_to = _last_unit(tier, end)
        inside = min(end, up_to) - max(position, begin)
        if inside > 0:
            picocredits += inside * tier.picocredits_per_unit
        if inside == count:
            most = POSITION_MAX if tier.up_to is None else tier.up_to - count
            step = Step(meter.unit, begin, most, count)
        begin = up_to
    return picocredits, step


def _last_unit(tier: Tier, end: int) -> int:
    return max(end, POSITION_MAX) if tier.up_to is None else tier.up_to


def dearest(meter: MeterSpec) -> int:
    """Picocredits of the dearest unit there can be."""
    if not meter.tiers:
        return meter.picocredits_per_unit
    return max([tier.picocredits_per_unit for tier in meter.tiers])


def _at_dearest(price: Price, units: Sequence[int]) -> int:
    """Picocredits of these units, one entry per meter, whatever was used before."""
    return sum(
        [
            max(0, count - meter.included_units) * dearest(meter)
            for meter, count in zip(price.meters, units, strict=True)
        ]
    )


def _amount(price: Price, terms: Terms, picocredits: int, failed: Sequence[int] = ()) -> int:
    """Microcredits of metered work at the terms of a call, and of all that comes on top of it."""
    _, _, _, _, discount, bound, calls = terms
    fixed = price.per_request_microcredits
    if calls:
        fixed += _of_calls(price, calls, failed)
    cost = round_up_to_microcredits(fixed * PICOCREDITS_PER_MICROCREDIT + picocredits, discount)
    cost = max(cost, price.minimum_microcredits)
    maximum = price.maximum_microcredits
    cost = min(cost, AMOUNT_MICROCREDITS_MAX if maximum is None else maximum)
    return cost if bound is None or cost <= bound else bound


def _of_calls(price: Price, calls: Sequence[RpcCall], failed: Sequence[int]) -> int:
    """Microcredits of JSON-RPC calls: those that failed cost what the price says of them."""
    rpc = price.rpc
    if rpc is not None and failed and rpc.tool_error in {Rule.NOTHING, Rule.MINIMUM}:
        return sum([call.microcredits for index, call in enumerate(calls) if index not in failed])
    return sum([call.microcredits for call in calls])
