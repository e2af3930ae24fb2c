"""What is written down of a task, so that whichever worker sees its end can settle its hold.

A record is the call id, a space, and JSON: whose key it came with, what was reserved, and the terms
with their price as it was then. It needs nothing that may have changed since.
"""

from __future__ import annotations

import copy
import hashlib
from typing import TYPE_CHECKING

import orjson

from gateway.ledger.specs import price_from_spec, price_to_spec
from gateway.proxy.hold import Hold
from policies.decision import Admitted
from policies.meters.reading import NOTHING_READ, Reading
from policies.terms import Terms

if TYPE_CHECKING:
    from gateway.proxy.authenticate import Principal
    from gateway.proxy.offers import Offer
    from policies.catalog import Price

DIGEST_BYTES = 16


def task_digest(offer: Offer, task: str) -> str:
    """What a task of a route is called in Redis; agents may number theirs alike."""
    name = f"{offer.route.id}:{task}".encode(errors="surrogatepass")
    return hashlib.blake2b(name, digest_size=DIGEST_BYTES).hexdigest()


def record_of(hold: Hold) -> str:
    """What is to be known of a hold when its task is over."""
    call_id, principal, _, admitted, session, terms = hold
    price = terms.price
    document = {
        "key": principal.key_number,
        "session": session,
        "admitted_ms": admitted.admitted_ms,
        "epoch": admitted.epoch,
        "allocation": admitted.allocation,
        "counted": admitted.counted,
        "version": price.version if price is not None else 0,
        "price": price_to_spec(price) if price is not None else None,
        "reserves": terms.reserves,
        "held": terms.ceiling,
        "due": terms.due,
        "discount": terms.discount,
        "bound": terms.bound,
    }
    return f"{call_id} {orjson.dumps(document).decode()}"


def hold_of(record: str, principal: Principal, offer: Offer) -> Hold:
    """The hold of a record, for a call of the same account on the same route.

    Raises: ValueError, KeyError or TypeError when it is no record.
    """
    call_id, _, text = record.partition(" ")
    known = orjson.loads(text)
    price = known["price"]
    terms = Terms(
        None if price is None else price_from_spec(price, known["version"]),
        tuple(known["reserves"]),
        known["held"],
        known["due"],
        known["discount"],
        known["bound"],
    )
    admitted = Admitted(
        call_id,
        known["epoch"],
        0,
        0,
        known["allocation"],
        known["admitted_ms"],
        0,
        0,
        known["counted"],
    )
    return Hold(
        call_id, _with_key(principal, known["key"]), offer, admitted, known["session"], terms
    )


def reading_for(price: Price | None, offer: Offer, reading: Reading) -> Reading:
    """What meters of the route's price have read, for a price that may be older: by unit."""
    sold = offer.route.price
    if price is None or sold is None or not reading.units:
        return NOTHING_READ
    places = {meter.unit: place for place, meter in enumerate(sold.meters)}
    units = [places.get(meter.unit) for meter in price.meters]
    estimates = reading.estimates or (0,) * len(reading.units)
    return Reading(
        tuple([None if place is None else reading.units[place] for place in units]),
        tuple([0 if place is None else estimates[place] for place in units]),
    )


def _with_key(principal: Principal, key_number: int) -> Principal:
    """The same account by another of its keys: that with which the task was begun."""
    if principal.key_number == key_number:
        return principal
    other = copy.copy(principal)
    other.key_number = key_number
    other.key_id = b"%d" % key_number
    other.contexts = b"%d,%d,%d" % (principal.platform_id, principal.account_id, key_number)
    return other
