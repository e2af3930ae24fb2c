"""What sees to shards that somebody of a process finds lost, or that were never used."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from gateway.operations.publish import publisher
from gateway.recovery.carry import Carrier
from gateway.recovery.late import LateApplier
from gateway.recovery.rebuild import Rebuilder
from gateway.recovery.shards import Shards

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.counters import Counters
    from gateway.ledger import Ledger


def rebuilder_of(ledger: Ledger, counters: Counters, *, lease_s: int) -> Rebuilder:
    """Rebuilds shards for a process that runs no calls itself."""
    carrier = Carrier(counters, ledger)
    return Rebuilder(
        counters,
        ledger,
        carrier,
        LateApplier(counters, ledger, carrier),
        lease_ms=lease_s * 1000,
        publish=publisher(ledger, counters),
    )


@asynccontextmanager
async def seeing_to_shards(
    ledger: Ledger, counters: Counters, *, lease_s: int
) -> AsyncIterator[Shards]:
    """Those of one process; `lease_s` is for how long workers hold credits without a word."""
    shards = Shards(rebuilder_of(ledger, counters, lease_s=lease_s), counters)
    try:
        yield shards
    finally:
        await shards.close()
