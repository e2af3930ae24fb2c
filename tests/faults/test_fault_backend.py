"""Agents that refuse, hang and die: the client is told, the route's rule is charged."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.faults.kinds import DIE_CALL, FAIL_CALL, FIXED, HANG_CALL, KINDS, REFUSE_CALL
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from tests.faults.stage import Stage

HOLD_GONE_S = 1.0


@pytest.mark.parametrize(
    ("name", "status", "charged"),
    [
        (REFUSE_CALL.name, 502, 0),
        (HANG_CALL.name, 504, FIXED),  # the route says "reserved"
        (FAIL_CALL.name, 400, 0),
        (DIE_CALL.name, 200, FIXED),  # the route says "actual"
    ],
)
async def test_an_agent_that_fails_is_told_and_costs_what_the_route_says(
    stage: Stage, name: str, status: int, charged: int
) -> None:
    caller = await stage.caller()
    seen = await caller.call(KINDS[name], ms=100)

    async def gone() -> bool:
        return not await stage.holds(caller.account_id)

    await eventually(gone, deadline_s=HOLD_GONE_S)
    assert seen.status == status
    assert seen.in_order
    assert await stage.verdict([seen]) == []
    charges = [one for one in (await stage.charges()).values() if one.account_id == seen.account_id]
    assert [one.net for one in charges] == [charged]
