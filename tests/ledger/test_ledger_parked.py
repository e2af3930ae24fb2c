"""Parked holds are kept until their calls are settled, and no longer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.jobs.parked import ParkedHoldCleaning
from gateway.ledger.parked import ParkedHold
from tests.support.settlements import new_call_id, settlement

if TYPE_CHECKING:
    import pytest

    from gateway.ledger import Ledger


def parked(number: int, shard: int = 5) -> ParkedHold:
    call_id = new_call_id(number)
    hold = "h|7|1790000000123|6|2||P|12:6|1,7,5,2,9,"
    return ParkedHold(call_id, shard, 1, 7, f"{number:032x}", hold, f"{call_id} {{}}", 3_600_000)


async def test_a_parked_hold_comes_back_as_it_was_told_last(ledger: Ledger) -> None:
    first, second = parked(1), parked(2)
    for row in (second, first, first._replace(hold="h|7|1|6|3||P|12:6|1,7,5,2,9,", lease_ms=5)):
        await ledger.add_parked_hold(row)
    await ledger.add_parked_hold(parked(3, shard=6))

    changed = first._replace(hold="h|7|1|6|3||P|12:6|1,7,5,2,9,", lease_ms=5)
    assert await ledger.parked_holds(5) == [changed, second]
    await ledger.forget_parked_hold(first.call_id)
    await ledger.forget_parked_hold(first.call_id)
    assert await ledger.parked_holds(5) == [second]
    assert await ledger.parked_holds(7) == []


async def test_only_holds_of_settled_calls_are_cleaned(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.ledger.parked.CLEAN_ROWS_MAX", 2)
    monkeypatch.setattr("gateway.jobs.parked.CLEAN_ROWS_MAX", 2)
    rows = [parked(number) for number in range(6)]
    for row in rows:
        await ledger.add_parked_hold(row)
    await ledger.record_settlements([settlement(call_id=row.call_id) for row in rows[:5]])

    assert await ParkedHoldCleaning(ledger).clean() == 5
    assert await ledger.parked_holds(5) == rows[5:]
