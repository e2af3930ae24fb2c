"""A period ends while calls run: what they hold belongs to the grant it was taken from."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from gateway.operations.accounts import find_account
from gateway.operations.grants import add_grant
from tests.faults.clients import all_ended
from tests.faults.conftest import scaled
from tests.faults.kinds import CREDIT, FIXED, FIXED_CALL
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from tests.faults.stage import Stage

LASTS_MS = scaled(1_500, 5_000)


async def test_holds_of_an_expired_grant_settle_on_it_while_new_calls_pay_from_the_next(
    stage: Stage,
) -> None:
    count = scaled(60, 500)
    caller = await stage.caller(0)
    account = await find_account(stage.ledger, stage.platform_id, caller.name)
    expires_ms = int(time.time() * 1000) + LASTS_MS
    old = await add_grant(
        *(stage.ledger, stage.counters, account, count * CREDIT),
        source="plan",
        expires_ms=expires_ms,
    )
    calls = [caller.start(FIXED_CALL, ms=LASTS_MS + 1_000) for _ in range(count)]
    await stage.held(caller.account_id, count)
    new = await add_grant(
        *(stage.ledger, stage.counters, account, count * CREDIT),
        source="plan",
        effective_ms=expires_ms,
    )

    async def over() -> bool:
        return time.time() * 1000 > expires_ms

    await eventually(over)
    later = [await caller.call(FIXED_CALL) for _ in range(5)]
    seen = await all_ended(calls)
    assert all(call.went_well for call in [*seen, *later])
    assert await stage.verdict([*seen, *later]) == []
    grants = {row.grant_id: row for row in await stage.ledger.grants(caller.account_id)}
    assert grants[old].settled_microcredits == count * FIXED
    assert grants[new].settled_microcredits == len(later) * FIXED
