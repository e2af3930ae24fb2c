"""What a call's price may hang on in Redis: its account's discount, and its place in tiers.

And asking what an admission would say, without one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import redis

from policies import limits
from tests.support.lua_calls import (
    CALL,
    NOW_MS,
    NOW_US,
    admit,
    counter,
    dispatch,
    expire,
    late,
    load,
    lot,
    void,
)
from tests.support.lua_shard import key

if TYPE_CHECKING:
    from tests.support.lua_shard import LuaShard

MONTH_END_MS = limits.month_end_ms(NOW_MS)
ANY = 2**53 - 1
ONE, TWO, THREE = (digit * 32 for digit in "123")


def discounted(shard: LuaShard, discount: int, call_id: str = CALL) -> list[Any]:
    context = "1,7,5,2,9,"
    arguments = (call_id, 0, 0, 5, 6, 1000, 0, context, "", "", discount)
    reply: list[Any] = shard.run("admit", 7, *arguments)
    return reply


def stepped(shard: LuaShard, steps: str, call_id: str = CALL, owed: int = 5) -> list[Any]:
    reply: list[Any] = shard.run("settle", 7, call_id, 0, 0, owed, "completed,200,,", steps)
    return reply


# Discounts.


def test_another_discount_than_was_assumed_is_told_and_nothing_is_held(
    open_shard: LuaShard,
) -> None:
    load(open_shard, lots={12: 100}, rules="cd:9000 dp:1500", rpm=2)
    before = open_shard.state((7,))
    assert admit(open_shard) == ["TERMS", 3, 2, 1500]
    for assumed in (0, 1499, 1501):
        assert discounted(open_shard, assumed) == ["TERMS", 3, 2, 1500]
    assert open_shard.state((7,)) == before
    assert discounted(open_shard, 1500)[0] == "OK"


def test_a_discount_that_has_ended_is_noticed_by_the_next_call(open_shard: LuaShard) -> None:
    load(open_shard, lots={12: 100}, rules="dp:1500")
    assert discounted(open_shard, 1500, ONE)[0] == "OK"
    open_shard.run("amend", 7, 0, 0, "rules", "cd:9000")
    assert discounted(open_shard, 1500, TWO)[3:] == [0]
    open_shard.run("amend", 7, 0, 0, "rules", "")
    assert discounted(open_shard, 1500, TWO)[3:] == [0]
    assert discounted(open_shard, 0, TWO)[0] == "OK"
    assert admit(open_shard, THREE)[0] == "OK"


def test_a_call_that_is_admitted_already_keeps_its_discount(open_shard: LuaShard) -> None:
    load(open_shard, lots={12: 100}, rules="dp:1500")
    first = discounted(open_shard, 1500)
    open_shard.run("amend", 7, 0, 0, "rules", "")
    assert discounted(open_shard, 1500)[4:6] == first[4:6]


def test_who_may_not_call_is_told_so_before_any_terms(open_shard: LuaShard) -> None:
    load(open_shard, lots={12: 100}, rules="dp:1500", status="suspended")
    assert discounted(open_shard, 0)[0] == "SUSPENDED"
    open_shard.run("amend", 7, 0, 0, "k:5", "-1")
    assert discounted(open_shard, 0)[0] == "KEY"


# Dry runs.


@pytest.mark.parametrize(
    ("seed", "call"),
    [
        ({}, {}),
        ({"rules": "cd:9 rs:5 qp:3", "rpm": 9, "rpmonth": 7, "conc": 3}, {}),
        ({"k:5": "0 cc:1 ct:50"}, {"route_rules": "R2 rm:4 cd:20", "session": "s1"}),
        ({"rules": "cs:10 rm:3"}, {"session": "s1"}),
        ({"overage": {99: 50}}, {"amount": 120}),
    ],
)
def test_a_dry_run_replies_as_the_admission_would_and_writes_nothing(
    open_shard: LuaShard, seed: dict[str, Any], call: dict[str, Any]
) -> None:
    load(open_shard, lots={12: 100}, **seed)
    before = open_shard.state((7,), ("s1",))
    asked = admit(open_shard, lease_ms=0, **call)
    assert open_shard.state((7,), ("s1",)) == before
    admitted = admit(open_shard, **call)
    assert admitted[0] == "OK"
    assert asked == ["OK", 3, int(before["meta"]["seq"]), admitted[3], "", *admitted[5:]]


@pytest.mark.parametrize(
    ("seed", "status"),
    [
        ({"k:5": "-1"}, "KEY"),
        ({"status": "suspended"}, "SUSPENDED"),
        ({"rules": "dp:100"}, "TERMS"),
        ({"rpm": 1}, "RATE"),
        ({"rpmonth": 1}, "QUOTA"),
        ({"conc": 1}, "CONCURRENCY"),
        ({"rules": "cd:9"}, "CAP"),
        ({"lots": {12: 9}}, "CREDITS"),
    ],
)
def test_a_dry_run_is_refused_as_the_admission_would_be(
    open_shard: LuaShard, seed: dict[str, Any], status: str
) -> None:
    load(open_shard, **({"lots": {12: 100}} | seed))
    admit(open_shard, ONE)
    before = open_shard.state((7,))
    asked = admit(open_shard, lease_ms=0)
    assert asked[0] == status
    assert admit(open_shard) == asked
    assert open_shard.state((7,)) == before


# Tiers.


@pytest.fixture
def running(open_shard: LuaShard) -> LuaShard:
    """Calls ONE, TWO and THREE hold 6 of 100 each."""
    load(open_shard, lots={12: 100})
    for call_id in (ONE, TWO, THREE):
        admit(open_shard, call_id, due=4)
    return open_shard


def test_a_step_that_begins_where_it_was_assumed_to_moves_the_account_on(
    running: LuaShard,
) -> None:
    assert stepped(running, "2:token:0:0:600", ONE)[3:7] == [5, 0, 83, "12:5"]
    assert counter(running, "u:2:token") == f"{MONTH_END_MS}:600"
    assert stepped(running, "2:token:0:999:600", TWO)[0] == "OK"
    assert counter(running, "u:2:token") == f"{MONTH_END_MS}:1200"
    assert lot(running) == [84, 6, 10, 0]


def test_a_step_that_begins_elsewhere_settles_nothing_and_says_where(running: LuaShard) -> None:
    stepped(running, "2:token:0:0:600", ONE)
    before = running.state((7,))
    for least, most in ((0, 599), (601, ANY)):
        steps = f"2:token:{least}:{most}:50 2:image:0:0:1"
        assert stepped(running, steps, TWO) == ["MOVED", 3, 6, 600, 0]
    assert running.state((7,)) == before
    assert stepped(running, "2:token:600:600:50 2:image:0:0:1", TWO)[0] == "OK"
    assert counter(running, "u:2:token") == f"{MONTH_END_MS}:650"
    assert counter(running, "u:2:image") == f"{MONTH_END_MS}:1"


def test_one_step_that_begins_elsewhere_moves_none(running: LuaShard) -> None:
    assert stepped(running, "2:image:0:0:1 2:token:1:9:50", ONE)[3:] == [0, 0]
    assert counter(running, "u:2:image") is None


def test_units_of_each_route_and_unit_are_counted_apart(running: LuaShard) -> None:
    stepped(running, "2:token:0:0:600", ONE)
    assert stepped(running, "3:token:0:0:7 2:image_4k:0:0:1", TWO)[0] == "OK"
    assert counter(running, "u:2:token") == f"{MONTH_END_MS}:600"
    assert counter(running, "u:3:token") == f"{MONTH_END_MS}:7"


def test_a_repeated_settlement_is_the_stored_one_and_moves_nothing(running: LuaShard) -> None:
    first = stepped(running, "2:token:0:0:600", ONE)
    before = running.state((7,))
    for steps in ("2:token:0:0:600", "2:token:600:600:600"):
        assert stepped(running, steps, ONE, owed=6) == first
    assert running.state((7,)) == before


@pytest.mark.parametrize(
    ("rules", "begins_ms"),
    [
        ("", MONTH_END_MS),
        (f"cd:9000 pw:{NOW_MS + 5000}:{NOW_MS + 9000}", NOW_MS + 5000),
        (f"pw:{NOW_MS - 5}:{NOW_MS + 9000} dp:5", NOW_MS + 9000),
        (f"pw:{NOW_MS - 9}:{NOW_MS - 5}", MONTH_END_MS),
    ],
)
def test_a_new_window_begins_with_nothing_used(
    open_shard: LuaShard, rules: str, begins_ms: int
) -> None:
    load(open_shard, lots={12: 100}, rules=rules)
    discount = 5 if "dp" in rules else 0
    for call_id in (ONE, TWO, THREE):
        open_shard.run("admit", 7, call_id, 0, 0, 5, 6, 10**10, 0, "1,7,5,2,9,", "", "", discount)
    assert stepped(open_shard, "2:token:0:0:600", ONE)[0] == "OK"
    assert counter(open_shard, "u:2:token") == f"{begins_ms}:600"
    open_shard.set_clock(begins_ms * 1000 - 1000)
    assert stepped(open_shard, "2:token:0:0:1", TWO)[3:] == [600]
    open_shard.set_clock(begins_ms * 1000)
    assert stepped(open_shard, "2:token:0:0:1", TWO)[0] == "OK"


def test_every_way_of_settling_takes_the_step(open_shard: LuaShard) -> None:
    """One lot, several lots, a cap that counts the call: the quick way and the general one."""
    load(open_shard, lots={12: 6, 13: 100}, rules="ct:1000")
    admit(open_shard, ONE, amount=16)
    assert stepped(open_shard, "2:token:0:0:600", ONE, owed=9)[6] == "12:6 13:3"
    admit(open_shard, TWO)
    assert stepped(open_shard, "2:token:600:600:1", TWO, owed=50)[3] == 50
    assert counter(open_shard, "u:2:token") == f"{MONTH_END_MS}:601"


def test_calls_that_end_otherwise_leave_the_account_where_it_is(running: LuaShard) -> None:
    stepped(running, "2:token:0:0:600", ONE)
    void(running, TWO)
    dispatch(running, THREE)
    running.set_clock(NOW_US + 1_000_000)
    expired = expire(running, THREE)
    assert stepped(running, "2:token:600:600:9", THREE) == ["EXPIRED", *expired[1:]]
    late(running, 5)
    assert stepped(running, "2:token:600:600:9", TWO)[0] == "GONE"
    assert counter(running, "u:2:token") == f"{MONTH_END_MS}:600"


def test_an_account_that_is_gone_settles_nothing_however_it_is_told(running: LuaShard) -> None:
    running.client.delete(key("account", 7))
    assert stepped(running, "2:token:5:5:9", ONE)[0] == "MOVED"
    assert stepped(running, "2:token:0:0:9", ONE)[0] == "GONE"
    assert running.state((7,))["accounts"][7] == {}


def test_a_count_of_units_stays_exact_up_to_its_bound(running: LuaShard) -> None:
    stepped(running, f"2:token:0:0:{ANY - 1}", ONE)
    assert counter(running, "u:2:token") == f"{MONTH_END_MS}:{ANY - 1}"
    stepped(running, f"2:token:{ANY - 1}:{ANY}:5", TWO)
    assert counter(running, "u:2:token") == f"{MONTH_END_MS}:{ANY}"


@pytest.mark.parametrize(
    "steps",
    ["x", "2:token:0:0", "2:token:0:0:1.5", "2:token:-1:0:1", ":token:0:0:1", "2:To:0:0:1"],
)
def test_what_is_no_step_settles_nothing(running: LuaShard, steps: str) -> None:
    before = running.state((7,))
    with pytest.raises(redis.ResponseError, match="no step"):
        stepped(running, steps, ONE)
    assert running.state((7,)) == before


def test_settling_with_steps_works_at_maxmemory(running: LuaShard) -> None:
    running.client.config_set("maxmemory", 1)
    try:
        assert stepped(running, "2:token:0:0:600", ONE)[0] == "OK"
    finally:
        running.client.config_set("maxmemory", 0)
    assert counter(running, "u:2:token") == f"{MONTH_END_MS}:600"


def test_what_was_used_before_is_loaded_and_added_where_it_is_not_known(
    open_shard: LuaShard,
) -> None:
    load(open_shard, lots={12: 100}, **{"u:2:token": f"{MONTH_END_MS}:70"})
    assert counter(open_shard, "u:2:token") == f"{MONTH_END_MS}:70"
    told = ("u:2:token", f"{MONTH_END_MS}:5", "u:3:token", f"{MONTH_END_MS}:8")
    open_shard.run("amend", 7, 0, 0, *told)
    assert counter(open_shard, "u:2:token") == f"{MONTH_END_MS}:70"
    assert counter(open_shard, "u:3:token") == f"{MONTH_END_MS}:8"
    for field, value in (("u:2:token", "x"), ("u:x:token", "1:2"), ("u:2:", "1:2")):
        with pytest.raises(redis.ResponseError, match=r"no count|no such field"):
            open_shard.run("amend", 7, 0, 0, field, value)
