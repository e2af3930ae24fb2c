"""What a request may cost, before anything is held: its terms, or why it can't be sold.

A price that does not look into requests, for an account without a discount and a caller without a
bound, has the same terms for every call: they are computed once per offer.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from gateway import errors
from gateway.errors import Refusal
from gateway.proxy.jsonrpc import read_calls
from policies.catalog import Price, Protocol
from policies.pricing import NotListed, TooDear, Unclear, terms_of
from policies.terms import Terms

if TYPE_CHECKING:
    from gateway.proxy.offers import Offer
    from policies.meters.facts import RequestFacts
    from policies.terms import RpcCall


def free_terms(offer: Offer, discount: int) -> Terms:
    """Those of a call that holds and pays nothing, whatever its route asks for others.

    Its answer is metered all the same: it may be the one that says what its task has used.
    """
    price = offer.route.price
    if price is None:
        return offer.terms
    meters = tuple([replace(meter, picocredits_per_unit=0, tiers=()) for meter in price.meters])
    free = Price(version=price.version, meters=meters)
    return Terms(free, (0,) * len(meters), 0, 0, discount)


def call_terms(
    offer: Offer, facts: RequestFacts | None, discount: int, bound: int | None
) -> Terms | Refusal:
    """The terms of one call. `facts` may be None where the offer does not need its request.

    `discount` is the account's, in ten-thousandths; `bound` the caller's, in microcredits.
    """
    if facts is None and not discount and bound is None:
        return offer.terms
    price = offer.route.price
    calls: tuple[RpcCall, ...] = ()
    if offer.rpc is not None and facts is not None:
        asked = read_calls(offer.route, offer.rpc, facts)
        if isinstance(asked, Refusal):
            return asked
        calls = asked
        if not calls and offer.route.protocol is Protocol.MCP:
            price = None  # what opens, lists, listens or closes is free
    sold = partial(
        terms_of, price, offer.rule_if_lost, facts, discount=discount, bound=bound, calls=calls
    )
    terms = sold()
    if not isinstance(terms, Terms):
        return _refused(terms)
    if bound is not None and (offer.sells_tasks or offer.costs_its_hold):
        # A task can't be stopped when it reaches the bound, so this has to cover what may be held:
        # else a small one would be the way to get a dear task cheaply. The same where calls cost
        # what is held.
        full = sold(bound=None)
        if isinstance(full, Terms) and full.ceiling > bound:
            return errors.above_bound(full.ceiling, bound)
    return terms


def _refused(denied: TooDear | NotListed | Unclear) -> Refusal:
    match denied:
        case TooDear(floor=floor, bound=most):
            return errors.above_bound(floor, most)
        case NotListed(value=value):
            return errors.not_listed(value)
        case Unclear(why=why):
            return errors.unclear(why)
