"""What one call is sold at: decided from its request before the hold, kept until it settles."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from policies.catalog import Price

# Words about a cost, in a settlement's flags: units of a meter, or the answer to a priced JSON-RPC
# call, could not be read; what stands in for them was estimated from what passed.
UNITS_MISSING = "units_missing"
ESTIMATED = "estimated"


class RpcCall(NamedTuple):
    """A JSON-RPC call of the request that has a price of its own, in microcredits."""

    id: str  # as JSON: 7 or "7" with its quotes
    name: str  # of the tool, else of the method
    microcredits: int


class Terms(NamedTuple):
    """What a call may cost, in microcredits, and from what its cost will be computed."""

    price: Price | None  # with the table's case already chosen; None: free
    reserves: tuple[int, ...]  # units that are reserved, one per meter; estimates stay within them
    ceiling: int  # to hold: at most `bound`
    due: int  # what it costs if it is lost after it was sent on, at most the ceiling
    discount: int = 0  # the account's, in ten-thousandths
    bound: int | None = None  # the caller's own, from X-Max-Credits
    calls: tuple[RpcCall, ...] = ()


class Step(NamedTuple):
    """The part of a settlement that moves an account through graduated tiers.

    What is owed is right as long as the account had used `least` to `most` of the unit before on
    this route in this billing period; `units` come on top.
    """

    unit: str
    least: int
    most: int
    units: int
