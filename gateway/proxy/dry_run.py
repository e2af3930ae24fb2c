"""Prices a call that was not made, by the very steps of one that was; see operations/dry_run.py.

Match → terms (what is held) → the answer's meters → the bill of its ending. No agent is called and
Redis is not asked, so that limits, caps and credits do not matter here.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, cast

from gateway import errors
from gateway.errors import Refusal
from gateway.operations.dry_run import Priced, PricedCall, Refused, SampleAnswer
from gateway.proxy.call_terms import call_terms
from gateway.proxy.decoders import METER_TOOLS
from gateway.proxy.heads import read_target
from gateway.proxy.hold import Hold, beyond_bound, bill, ending_of
from gateway.proxy.match import RouteTree
from gateway.proxy.offers import Offer
from policies.catalog import Ending
from policies.decision import Admitted
from policies.meters.reading import NOTHING_READ, Reading
from policies.pricing import floor

if TYPE_CHECKING:
    from gateway.operations.dry_run import SampleCall
    from gateway.proxy.authenticate import Principal
    from policies.catalog import Price, Route
    from policies.meters.facts import RequestFacts
    from policies.terms import Terms

# Whose offers are made for nothing but their prices: they have no agent, and no secrets.
_NOWHERE = "http://nowhere.invalid"
_ADMITTED = Admitted("", 0, 0, 0, "", 0, 0, 0)


@dataclass(slots=True)
class _Somebody:
    """What a bill asks of a principal."""

    used: dict[tuple[int, str], int] = field(default_factory=dict)


def price_sample(route: Route, sample: SampleCall) -> Priced:
    """What the route would hold and charge."""
    target = read_target(sample.target)
    if isinstance(target, Refusal):
        return _refused(target)
    path, query = target
    tree = RouteTree([(route.methods, route.pattern, route)])
    if tree.find(sample.method, path) is None:
        return _refused(errors.NO_ROUTE)
    offer = Offer(replace(route, headers=(), upstream=_NOWHERE), None)
    facts = None
    if offer.needs_request:
        body = sample.body
        facts = offer.facts_about(sample.method, path, query, body, len(body))
    terms = call_terms(offer, facts, sample.discount_basis_points, sample.most_microcredits)
    if isinstance(terms, Refusal):
        return _refused(terms)
    priced = Priced(
        free=terms.price is None,
        case=_case(route.price, terms.price),
        floor=floor(terms),
        held=terms.ceiling,
        calls=tuple(PricedCall(call.name, call.microcredits) for call in terms.calls),
    )
    return _ended(priced, offer, facts, terms, sample)


def _ended(
    priced: Priced, offer: Offer, facts: RequestFacts | None, terms: Terms, sample: SampleCall
) -> Priced:
    """The same with what its end would cost, where the sample says how it ends."""
    if sample.answer is None and sample.units is None and sample.ending is None:
        return priced
    reading = _reading(offer, facts, terms, sample)
    ending = sample.ending
    if ending is None:
        ending = Ending.COMPLETED if sample.answer is None else ending_of(sample.answer.status)
    used = {(offer.route.id, unit): units for unit, units in sample.used.items()}
    somebody = cast("Principal", _Somebody(used))
    hold = Hold("", somebody, offer, _ADMITTED, "", terms)
    cost = beyond_bound(hold, ending, reading)
    if cost is not None and terms.bound is not None:
        ending = Ending.EXHAUSTED
        priced = priced._replace(refused=_reason(errors.above_bound(cost, terms.bound)))
    billed = bill(hold, ending, reading)
    return priced._replace(
        charged=billed.owed,
        ending=ending,
        units=_units(terms.price, reading),
        flags=tuple(billed.flags.split(",")) if billed.flags else (),
    )


def _reading(offer: Offer, facts: RequestFacts | None, terms: Terms, sample: SampleCall) -> Reading:
    price, answer = terms.price, sample.answer
    if price is None:
        return NOTHING_READ
    if sample.units is not None:
        return Reading(tuple(sample.units.get(meter.unit) for meter in price.meters))
    if answer is None:
        return NOTHING_READ
    headers = _headers(answer)
    encoding = next((value for name, value in headers if name == b"content-encoding"), b"")
    plan = offer.answer_kind(
        (answer.content_type.encode("latin-1", "replace"), encoding)
    ).meter_plan
    if plan is None:
        return NOTHING_READ
    return plan.read_whole(METER_TOOLS, answer.body, headers, facts, answer.elapsed_ms, terms.calls)


def _headers(answer: SampleAnswer) -> list[tuple[bytes, bytes]]:
    """As an upstream's answer has them."""
    return [
        (name.lower().encode("latin-1", "replace"), value.encode("latin-1", "replace"))
        for name, value in answer.headers.items()
    ]


def _case(whole: Price | None, chosen: Price | None) -> str | None:
    """The value of a table whose price was chosen."""
    table = None if whole is None else whole.table
    cases = {} if table is None else table.cases
    return next((value for value, case in cases.items() if case is chosen), None)


def _units(price: Price | None, reading: Reading) -> dict[str, int | None]:
    meters = () if price is None else price.meters
    counts = reading.units or (None,) * len(meters)
    return {meter.unit: count for meter, count in zip(meters, counts, strict=True)}


def _refused(refusal: Refusal) -> Priced:
    return Priced(refused=_reason(refusal))


def _reason(refusal: Refusal) -> Refused:
    return Refused(refusal.status, refusal.code, refusal.detail)
