"""What a route would charge for a call that was not made: the question, and its answer.

The proxy answers it with the code that prices calls (gateway/proxy/dry_run.py); nobody's credits
are looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from policies.catalog import Ending, Route

_NOTHING: Mapping[str, int] = MappingProxyType({})


class SampleAnswer(NamedTuple):
    """What an agent might answer. `elapsed_ms`: how long all of the call took."""

    status: int = 200
    content_type: str = "application/json"
    headers: Mapping[str, str] = MappingProxyType({})
    body: bytes = b""
    elapsed_ms: int = 0


class SampleCall(NamedTuple):
    """A call. `target` is its path, and its query behind a "?".

    `ending` None: that of its answer's status. `units` stand in for what would be read of the
    answer. `used` is what the account has used of tiered units before, in its billing period.
    """

    method: str
    target: str
    body: bytes = b""
    answer: SampleAnswer | None = None
    ending: Ending | None = None
    units: Mapping[str, int] | None = None
    used: Mapping[str, int] = _NOTHING
    discount_basis_points: int = 0
    most_microcredits: int | None = None  # the caller's own bound: X-Max-Credits


class Refused(NamedTuple):
    """Why the call, or its answer, would be refused."""

    status: int
    code: str
    detail: str


class PricedCall(NamedTuple):
    """A JSON-RPC call of the request that has a price of its own."""

    name: str
    microcredits: int


class Priced(NamedTuple):
    """What the call would cost, in microcredits. None: it would be refused, or nobody knows yet.

    `floor` is what it costs without metered work, `held` what is reserved for it, `charged` what
    its end costs. `case` is that of the price's table, None without one or for values that it does
    not list. `units` has None where nothing could be read of the answer. `flags` are words about
    the charge, as in a settlement.
    """

    refused: Refused | None = None
    free: bool = False
    case: str | None = None
    floor: int | None = None
    held: int | None = None
    charged: int | None = None
    ending: Ending | None = None
    units: Mapping[str, int | None] = MappingProxyType({})
    calls: tuple[PricedCall, ...] = ()
    flags: tuple[str, ...] = ()


PriceSample = Callable[[Route, SampleCall], Priced]
