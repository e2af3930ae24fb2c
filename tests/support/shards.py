"""What a shard is filled with by hand, and what it has to tell."""

from __future__ import annotations

from typing import TYPE_CHECKING

from policies.settlement import parse_entry

if TYPE_CHECKING:
    from gateway.counters import Counters
    from policies.settlement import LedgerChange, Settlement


def state(microcredits: int, lots: str = "12") -> dict[str, str | int]:
    """What Postgres says of an account without limits whose lots have so much each."""
    fields: dict[str, str | int] = {"status": "active", "rpm": 0, "rpmonth": 0, "conc": 0}
    fields |= {"rules": "", "lots": lots, "k:5": 0}
    for lot in lots.split():
        fields |= {
            f"a:{lot}": microcredits,
            f"s:{lot}": 0,
            f"w:{lot}": 0,
            f"e:{lot}": 0,
            f"f:{lot}": 0,
        }
    return fields


async def outbox_of(counters: Counters, shard: int) -> list[Settlement | LedgerChange]:
    """Everything in a shard's outbox, oldest first."""
    page = await counters.outbox_page(shard, 0, 100_000)
    return [parse_entry(shard, entry_id, fields) for entry_id, fields in page]
