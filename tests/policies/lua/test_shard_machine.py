"""Any sequence of scripts and faults: replies, complete state and invariants, step by step.

The same random operations run on a real Redis and on `ShardModel`. Every reply must be equal, then
the whole state; and Redis' own state must add up (I1, I3, I4; caps count what was charged or is
held), which `Sums` knows from the replies alone.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.support.shard_machine import ShardMachine

if TYPE_CHECKING:
    from tests.support.lua_shard import LuaShard


def test_any_sequence_of_calls_and_faults_keeps_replies_state_and_invariants(
    shard: LuaShard,
) -> None:
    run_state_machine_as_test(
        lambda: ShardMachine(shard),
        settings=settings(
            max_examples=int(os.environ.get("SHARD_MACHINE_EXAMPLES", "100")),
            stateful_step_count=60,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
