"""Raising the hold of a running call: how far it goes, what stops it, and what it leaves alone."""

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
    settle,
    void,
    withdraw,
)
from tests.support.lua_shard import key

if TYPE_CHECKING:
    from tests.support.lua_shard import LuaShard

DAY_END_MS = limits.window_end_ms("cd", NOW_MS)
DAY_US = 86_400_000_000
OTHER = "2" * 32


def raised(shard: LuaShard, least: int, target: int, **others: Any) -> list[Any]:
    """Others: call_id, epoch, seq, key_id, route_rules, session."""
    values = {"call_id": CALL, "epoch": 0, "seq": 0, "key_id": 5, "route_rules": ""} | others
    session = values.pop("session", "")
    call_id, epoch, seq, key_id, route_rules = values.values()
    arguments = (call_id, epoch, seq, key_id, least, target, route_rules)
    reply: list[Any] = shard.run("raise", 7, *arguments, session=session)
    return reply


def amend(shard: LuaShard, **fields: Any) -> None:
    parts = [part for name, value in fields.items() for part in (name.replace("_", ":"), value)]
    assert shard.run("amend", 7, 0, 0, *parts)[0] == "OK"


@pytest.fixture
def running(open_shard: LuaShard) -> LuaShard:
    """A call that holds 6 of 100 for a second, of which 4 are due."""
    load(open_shard, lots={12: 100})
    admit(open_shard, due=4)
    return open_shard


# How far.


def test_a_hold_is_raised_to_its_target_and_charged_from_what_it_then_holds(
    running: LuaShard,
) -> None:
    assert raised(running, 7, 30) == ["OK", 3, 4, 30, 70, "12:30", ""]
    assert lot(running) == [70, 30, 0, 0]
    assert settle(running, 20)[3:7] == [20, 0, 80, "12:20"]
    assert lot(running) == [80, 0, 20, 0]


def test_a_hold_goes_as_far_above_the_least_as_there_are_credits(running: LuaShard) -> None:
    admit(running, OTHER, amount=54)
    assert raised(running, 46, 1000)[3:] == [46, 0, "12:46", ""]
    assert raised(running, 46, 1000)[3:] == [46, 0, "12:46", ""]
    assert lot(running) == [0, 100, 0, 0]


def test_less_than_the_least_is_refused_and_leaves_the_hold_as_it_was(running: LuaShard) -> None:
    admit(running, OTHER, amount=54)
    before = running.state((7,))
    # 40 are available, others hold 54, and 41 are lacking.
    assert raised(running, 47, 50) == ["CREDITS", 3, 4, 40, 54, 41]
    assert running.state((7,)) == before


def test_asking_for_less_than_is_held_lowers_nothing(running: LuaShard) -> None:
    before = running.state((7,))
    for least, target in ((0, 0), (0, 5), (6, 6)):
        assert raised(running, least, target) == ["OK", 3, 3, 6, 94, "12:6", ""]
    assert running.state((7,)) == before


def test_repeating_a_raise_does_not_raise_again(running: LuaShard) -> None:
    first = raised(running, 20, 30)
    before = running.state((7,))
    assert raised(running, 20, 30) == first
    assert raised(running, 7, 10) == first
    assert running.state((7,)) == before


def test_the_lease_the_stage_and_what_is_due_stay(running: LuaShard) -> None:
    dispatch(running)
    leases = running.state((7,))["leases"]
    raised(running, 50, 50)
    assert running.state((7,))["leases"] == leases
    running.set_clock(NOW_US + 1_000_000)
    assert expire(running)[3:7] == [4, 0, 96, "12:4"]


@pytest.mark.parametrize("end", ["void", "late", "expire"])
def test_every_end_of_a_raised_hold_gives_back_all_of_it(running: LuaShard, end: str) -> None:
    raised(running, 50, 50)
    running.set_clock(NOW_US + 1_000_000)
    ends = {"void": void, "expire": expire, "late": lambda shard: late(shard, 0)}
    ends[end](running)
    assert lot(running) == [100, 0, 0, 0]


def test_a_call_that_held_nothing_can_be_raised(open_shard: LuaShard) -> None:
    load(open_shard, lots={12: 100})
    admit(open_shard, amount=0)
    assert raised(open_shard, 1, 9)[3:] == [9, 91, "12:9", ""]


# From where.


def test_parts_of_a_raised_hold_stay_in_burn_down_order(open_shard: LuaShard) -> None:
    load(open_shard, lots={13: 20, 12: 100}, effective_ms={13: NOW_MS + 10}, overage={99: 50})
    admit(open_shard, amount=95)
    open_shard.set_clock(NOW_US + 10_000)
    assert raised(open_shard, 130, 130)[3:] == [130, -10, "13:20 12:100 99o:10", ""]
    assert settle(open_shard, 30)[6] == "13:20 12:10"


def test_a_part_whose_lot_is_no_longer_in_the_order_is_kept_and_comes_first(
    open_shard: LuaShard,
) -> None:
    load(open_shard, lots={12: 6})
    admit(open_shard, lease_ms=60_000)
    open_shard.client.delete(key("account", 7))
    load(open_shard, lots={11: 50, 13: 50})
    assert raised(open_shard, 16, 16)[5] == "12:6 11:10"
    assert settle(open_shard, 16)[3:7] == [16, 0, 84, "11:16"]


def test_only_lots_that_are_valid_now_are_drawn_on(open_shard: LuaShard) -> None:
    load(
        open_shard,
        lots={11: 50, 12: 50, 13: 50},
        expires_ms={11: NOW_MS + 10},
        effective_ms={13: NOW_MS + 11},
    )
    admit(open_shard)
    open_shard.set_clock(NOW_US + 10_000)
    assert raised(open_shard, 56, 100)[3:6] == [56, 0, "11:6 12:50"]
    assert raised(open_shard, 57, 100)[3:] == [0, 0, 1]


def test_overage_is_drawn_on_up_to_its_cap(open_shard: LuaShard) -> None:
    load(open_shard, lots={12: 10}, overage={99: 20})
    admit(open_shard)
    assert raised(open_shard, 7, 100)[3:6] == [30, -20, "12:10 99o:20"]
    assert raised(open_shard, 31, 31)[0] == "CREDITS"


# What stops it.


def test_a_revoked_key_and_a_suspended_account_are_told_even_when_nothing_is_asked_for(
    running: LuaShard,
) -> None:
    before = lot(running)
    amend(running, k_5="-1")
    for least, target in ((0, 0), (7, 9)):
        assert raised(running, least, target)[0] == "KEY"
    amend(running, k_5=str(NOW_MS + 1))
    assert raised(running, 0, 0)[0] == "OK"
    running.set_clock(NOW_US + 1000)
    assert raised(running, 0, 0)[0] == "KEY"
    amend(running, k_5="0 cd:9", status="suspended")
    for least, target in ((0, 0), (7, 9)):
        assert raised(running, least, target)[0] == "SUSPENDED"
    assert raised(running, 0, 0, key_id=6)[0] == "KEY"
    assert lot(running) == before


def test_a_hold_that_is_gone_is_not_raised(running: LuaShard) -> None:
    assert raised(running, 7, 9, call_id=OTHER)[0] == "GONE"
    settle(running, 5)
    assert raised(running, 7, 9)[0] == "GONE"
    admit(running, OTHER)
    running.client.delete(key("account", 7))
    assert raised(running, 7, 9, call_id=OTHER)[0] == "GONE"


def test_a_change_of_the_ledger_is_no_hold(running: LuaShard) -> None:
    withdraw(running, OTHER, "adjust", 12, 5)
    assert raised(running, 7, 9, call_id=OTHER)[0] == "GONE"


def test_an_account_of_an_older_epoch_is_not_raised_on(running: LuaShard) -> None:
    running.client.hset(key("account", 7), "epoch", 2)
    assert raised(running, 7, 9)[0] == "GONE"


def test_a_lost_shard_says_so(running: LuaShard) -> None:
    assert raised(running, 7, 9, epoch=2)[0] == "STALE"
    assert raised(running, 7, 9, epoch=3, seq=99)[0] == "REGRESSED"
    running.run("close", 0, 4, 3)
    assert raised(running, 7, 9, epoch=4)[0] == "CLOSED"


def test_at_maxmemory_a_raise_fails_before_it_has_written(running: LuaShard) -> None:
    client, before = running.client, running.state((7,))
    client.config_set("maxmemory", 1)
    try:
        with pytest.raises(redis.ResponseError, match="maxmemory"):
            raised(running, 7, 9)
    finally:
        client.config_set("maxmemory", 0)
    assert running.state((7,)) == before


def test_what_is_told_wrongly_writes_nothing(running: LuaShard) -> None:
    before = running.state((7,))
    with pytest.raises(redis.ResponseError, match="least is above"):
        raised(running, 9, 8)
    with pytest.raises(redis.ResponseError, match="another account"):
        running.run("raise", 8, CALL, 0, 0, 5, 7, 9)
    assert running.state((7,)) == before


# Caps.


def test_a_cap_bounds_a_raise_and_counts_what_is_raised(open_shard: LuaShard) -> None:
    load(open_shard, lots={12: 100}, rules="cd:20 ct:1000", **{"k:5": "0 cm:30"})
    admit(open_shard)
    counted = f"A.cd@{DAY_END_MS} A.ct@0 K5.cm@{limits.month_end_ms(NOW_MS)}"
    assert raised(open_shard, 7, 90)[3:] == [20, 80, "12:20", counted]
    assert counter(open_shard, "A.cd") == f"{DAY_END_MS}:20"
    assert counter(open_shard, "A.ct") == "0:20"
    refused = raised(open_shard, 21, 90)
    assert refused[0] == "CAP"
    assert refused[3:] == ["account", "day", 20, 20, 0]
    settle(open_shard, 11)
    assert counter(open_shard, "A.cd") == f"{DAY_END_MS}:11"
    assert counter(open_shard, "K5.cm") == f"{limits.month_end_ms(NOW_MS)}:11"


def test_a_cap_that_others_fill_lets_the_same_raise_pass_in_the_next_window(
    open_shard: LuaShard,
) -> None:
    load(open_shard, lots={12: 100}, rules="cd:20")
    admit(open_shard, lease_ms=60_000)
    admit(open_shard, OTHER, amount=10)
    refused = raised(open_shard, 11, 15)
    assert refused[3:] == ["account", "day", 20, 16, DAY_END_MS - NOW_MS]
    open_shard.set_clock(DAY_END_MS * 1000 - 1000)
    assert raised(open_shard, 11, 15)[0] == "CAP"
    open_shard.set_clock(DAY_END_MS * 1000)
    assert raised(open_shard, 11, 15)[3] == 15


def test_a_call_that_is_raised_on_the_next_day_is_counted_there_with_all_it_holds(
    open_shard: LuaShard,
) -> None:
    load(open_shard, lots={12: 1000}, rules="cd:20")
    admit(open_shard)
    open_shard.set_clock(NOW_US + DAY_US)
    end_ms = DAY_END_MS + 86_400_000
    admit(open_shard, OTHER, amount=4)
    assert raised(open_shard, 7, 90)[3:] == [16, 980, "12:16", f"A.cd@{end_ms}"]
    assert counter(open_shard, "A.cd") == f"{end_ms}:20"
    settle(open_shard, 9)
    assert counter(open_shard, "A.cd") == f"{end_ms}:13"


def test_caps_of_the_route_bind_as_they_are_told(open_shard: LuaShard) -> None:
    load(open_shard, lots={12: 100})
    admit(open_shard, route_rules="R2 cd:20")
    refused = raised(open_shard, 21, 21, route_rules="R2 cd:20")
    assert refused[3:] == ["route", "day", 20, 6, 0]
    assert raised(open_shard, 7, 90, route_rules="R2 cd:20")[3] == 20
    assert raised(open_shard, 30, 30)[3] == 30
    assert counter(open_shard, "R2.cd") == f"{DAY_END_MS}:30"


def test_a_cap_binds_at_the_limit_that_it_has_now(open_shard: LuaShard) -> None:
    load(open_shard, lots={12: 100}, rules="ct:20")
    admit(open_shard)
    amend(open_shard, rules="ct:8")
    assert raised(open_shard, 7, 90)[3] == 8
    amend(open_shard, rules="ct:3")
    assert raised(open_shard, 8, 90)[3] == 8
    assert raised(open_shard, 9, 90)[3:] == ["account", "total", 3, 8, 0]
    amend(open_shard, rules="")
    assert raised(open_shard, 9, 90)[3] == 90
    assert counter(open_shard, "A.ct") == "0:90"


def test_a_cap_that_came_after_the_call_does_not_count_it(open_shard: LuaShard) -> None:
    load(open_shard, lots={12: 100})
    admit(open_shard)
    amend(open_shard, rules="ct:8")
    assert raised(open_shard, 7, 90)[3] == 90
    assert counter(open_shard, "A.ct") is None


def test_caps_of_a_session_bind_and_count(open_shard: LuaShard) -> None:
    load(open_shard, lots={12: 100}, rules="cs:20", **{"k:5": "0 cs:50"})
    admit(open_shard, session="s1")
    name = key("session", 7, "s1")
    open_shard.client.persist(name)
    assert raised(open_shard, 7, 90, session="s1")[3:] == [20, 80, "12:20", "S.A S.K5"]
    assert open_shard.client.hgetall(name) == {"A": "20", "K5": "20"}
    assert open_shard.client.pttl(name) > 0
    assert raised(open_shard, 21, 90, session="s1")[3:] == ["session", "session", 20, 20, 0]
    with pytest.raises(redis.ResponseError, match="session"):
        raised(open_shard, 7, 90)
    open_shard.client.delete(name)
    amend(open_shard, rules="")
    assert raised(open_shard, 30, 30, session="s1")[3] == 30
    assert open_shard.client.hgetall(name) == {"A": "30", "K5": "30"}
    settle(open_shard, 25, session="s1")
    assert open_shard.client.hgetall(name) == {"A": "25", "K5": "25"}


def test_other_calls_of_the_session_and_of_the_key_leave_less_to_raise(
    open_shard: LuaShard,
) -> None:
    load(open_shard, lots={12: 100}, rules="cs:20", **{"k:5": "0 ct:17"})
    admit(open_shard, session="s1")
    admit(open_shard, OTHER, amount=10, session="s1")
    assert raised(open_shard, 8, 8, session="s1")[0] == "CAP"
    amend(open_shard, k_5="0 ct:30")
    assert raised(open_shard, 11, 11, session="s1")[3:] == ["session", "session", 20, 16, 0]
    assert raised(open_shard, 7, 90, session="s1")[3] == 10
    assert open_shard.client.hgetall(key("session", 7, "s1")) == {"A": "20"}
    assert counter(open_shard, "K5.ct") == "0:20"


def test_raising_does_not_count_the_call_again(open_shard: LuaShard) -> None:
    load(open_shard, lots={12: 100}, rules="cc:3 qp:9", rpmonth=9, rpm=9)
    admit(open_shard)
    before = open_shard.state((7,))["accounts"][7]
    raised(open_shard, 50, 50)
    after = open_shard.state((7,))["accounts"][7]
    assert {name for name in after if after[name] != before[name]} == {"a:12", "h:12"}
