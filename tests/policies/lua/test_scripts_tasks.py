"""Holds that live with a task: parked, found again by their task, and ended like any other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import redis

from tests.support.lua_calls import (
    CALL,
    NOW_MS,
    NOW_US,
    admit,
    counter,
    dispatch,
    expire,
    load,
    lot,
    settle,
)
from tests.support.lua_shard import key

if TYPE_CHECKING:
    from tests.support.lua_shard import LuaShard

OTHER = "2" * 32
LEASE_MS, KEPT_MS, AGE_MS = 60_000, 90_000, 100_000


def park(shard: LuaShard, call_id: str = CALL, *, ended: bool = True, note: str = "{}") -> Any:
    told = (call_id, 0, 0, LEASE_MS, KEPT_MS, f"{call_id} {note}", int(ended))
    return shard.run("park", 7, *told)


def touch(shard: LuaShard, lease_ms: int = LEASE_MS) -> Any:
    return shard.run("touch", 7, 0, 0, lease_ms, KEPT_MS, AGE_MS)


def kept_for_ms(shard: LuaShard) -> int:
    left: Any = shard.client.pttl(key("task"))
    return int(left)


def begun(shard: LuaShard, call_id: str = CALL, **seed: Any) -> None:
    """An account with 100 microcredits, and a call that holds 6 of them and was sent on."""
    load(shard, lots={12: 100}, **seed)
    assert admit(shard, call_id, due=2)[0] == "OK"
    dispatch(shard, call_id)


def test_a_parked_hold_outlives_the_lease_of_its_call(open_shard: LuaShard) -> None:
    begun(open_shard)
    assert park(open_shard)[0] == "OK"
    open_shard.set_clock(NOW_US + (LEASE_MS - 1) * 1000)
    assert expire(open_shard)[0] == "EARLY"
    assert lot(open_shard) == [94, 6, 0, 0]
    open_shard.set_clock(NOW_US + LEASE_MS * 1000)
    assert expire(open_shard)[3:5] == [2, 0]
    assert lot(open_shard) == [98, 0, 2, 0]


def test_a_task_that_is_heard_of_keeps_its_hold_and_its_record(open_shard: LuaShard) -> None:
    begun(open_shard)
    park(open_shard, note='{"held":6}')
    open_shard.set_clock(NOW_US + (LEASE_MS - 1) * 1000)
    open_shard.client.pexpire(key("task"), 5_000)
    assert touch(open_shard)[3:] == [f'{CALL} {{"held":6}}', 1]
    assert KEPT_MS - 5_000 < kept_for_ms(open_shard) <= KEPT_MS
    open_shard.set_clock(NOW_US + (AGE_MS - 1) * 1000)
    assert expire(open_shard)[0] == "EARLY"


def test_no_task_keeps_its_hold_beyond_the_greatest_age_however_often_it_is_heard_of(
    open_shard: LuaShard,
) -> None:
    begun(open_shard)
    park(open_shard)
    for passed_ms in range(0, AGE_MS, LEASE_MS // 2):
        open_shard.set_clock(NOW_US + passed_ms * 1000)
        assert touch(open_shard)[4] == 1
    open_shard.set_clock(NOW_US + AGE_MS * 1000)
    assert expire(open_shard)[3:5] == [2, 0]
    assert lot(open_shard) == [98, 0, 2, 0]


def test_a_lease_is_never_shortened(open_shard: LuaShard) -> None:
    begun(open_shard)
    park(open_shard)
    touch(open_shard, 10)
    open_shard.run("extend", 7, 0, 0, 10, CALL, 1, "", "")
    assert open_shard.state((7,))["leases"] == {CALL: 2 * (NOW_MS + LEASE_MS) + 1}


def test_a_parked_hold_settles_once_and_exactly(open_shard: LuaShard) -> None:
    begun(open_shard)
    park(open_shard)
    first = settle(open_shard, 4)
    assert first[3:5] == [4, 0]
    assert settle(open_shard, 5)[3:9] == first[3:9]
    assert lot(open_shard) == [96, 0, 4, 0]


def test_a_task_whose_call_has_ended_takes_no_place_of_running_calls(open_shard: LuaShard) -> None:
    begun(open_shard, conc=1)
    assert admit(open_shard, OTHER)[0] == "CONCURRENCY"
    assert "|P|" in park(open_shard)[3]
    assert park(open_shard)[0] == "OK"  # again
    assert counter(open_shard, "running") == "0"
    assert admit(open_shard, OTHER)[0] == "OK"
    settle(open_shard, 4)
    assert counter(open_shard, "running") == "1"


@pytest.mark.parametrize("end", ["settled", "expired"])
def test_a_parked_hold_leaves_each_counter_right(open_shard: LuaShard, end: str) -> None:
    rules = "cc:1 ct:1000"
    load(open_shard, lots={12: 100}, **{"k:5": f"0 {rules}"}, rules=rules)
    admit(open_shard, session="S1", due=2)
    dispatch(open_shard)
    park(open_shard)
    hold = open_shard.state((7,))["holds"][CALL].split("|")
    assert hold[6].split() == ["P", "A.ct@0", "K5.ct@0"]
    assert [counter(open_shard, name) for name in ("A.cc", "K5.cc", "K5.ct")] == ["0", "0", "0:6"]
    admit(open_shard, OTHER)
    if end == "settled":
        settle(open_shard, 2, session="S1")
    else:
        open_shard.set_clock(NOW_US + LEASE_MS * 1000)
        expire(open_shard, session="S1")
    assert counter(open_shard, "running") == "1"
    assert [counter(open_shard, name) for name in ("A.cc", "K5.cc", "K5.ct")] == ["1", "1", "0:8"]


def test_a_call_that_is_noted_while_it_runs_still_counts_as_running(open_shard: LuaShard) -> None:
    begun(open_shard)
    assert park(open_shard, ended=False)[3:] == []
    assert counter(open_shard, "running") == "1"
    assert touch(open_shard)[4] == 1
    settle(open_shard, 4)
    assert counter(open_shard, "running") == "0"


def test_a_task_has_one_live_hold(open_shard: LuaShard) -> None:
    begun(open_shard)
    admit(open_shard, OTHER)
    park(open_shard)
    before = open_shard.state((7,))
    assert park(open_shard, OTHER)[0] == "TAKEN"
    assert open_shard.state((7,)) == before
    settle(open_shard, 4)
    assert park(open_shard, OTHER)[0] == "OK"
    assert touch(open_shard)[3] == f"{OTHER} {{}}"


def test_a_hold_that_is_over_is_not_parked_and_found_to_be_over(open_shard: LuaShard) -> None:
    begun(open_shard)
    park(open_shard)
    settle(open_shard, 4)
    assert park(open_shard)[0] == "GONE"
    assert touch(open_shard)[3:] == [f"{CALL} {{}}", 0]
    assert park(open_shard, OTHER)[0] == "GONE"


def test_a_record_goes_with_its_own_call_only(open_shard: LuaShard) -> None:
    begun(open_shard)
    park(open_shard)
    open_shard.run("unpark", 7, OTHER)
    assert touch(open_shard)[0] == "OK"
    open_shard.run("unpark", 7, CALL)
    assert touch(open_shard)[0] == "GONE"
    assert lot(open_shard) == [94, 6, 0, 0]


def test_a_closed_or_lost_shard_neither_parks_nor_finds(open_shard: LuaShard) -> None:
    begun(open_shard)
    park(open_shard)
    assert open_shard.run("touch", 7, 3, 99, LEASE_MS, KEPT_MS, AGE_MS)[0] == "REGRESSED"
    open_shard.run("close", 0, 4, 3)
    assert touch(open_shard)[0] == "CLOSED"
    assert park(open_shard)[0] == "CLOSED"


def test_a_record_of_another_call_is_refused(open_shard: LuaShard) -> None:
    begun(open_shard)
    with pytest.raises(redis.ResponseError, match="of another call"):
        open_shard.run("park", 7, CALL, 0, 0, LEASE_MS, KEPT_MS, f"{OTHER} {{}}", 1)
