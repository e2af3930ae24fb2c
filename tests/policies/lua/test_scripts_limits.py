"""Limits and spend caps of accounts, keys, routes and sessions, as call after call sees them.

Times are exact: what a refusal names as `retry_after_ms` is when the same call passes, not before.
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
    settle,
    void,
)
from tests.support.lua_shard import key

if TYPE_CHECKING:
    from tests.support.lua_shard import LuaShard

DAY_END_MS = limits.window_end_ms("cd", NOW_MS)
MONTH_END_MS = limits.month_end_ms(NOW_MS)
ONE, TWO, THREE = (digit * 32 for digit in "123")


def refused_until_retry(shard: LuaShard, reply: list[Any], at: int, **call: Any) -> None:
    """The refusal's retry_after_ms is the moment from which the same call passes."""
    retry_after_ms = reply[at]
    shard.set_clock(NOW_US + (retry_after_ms - 1) * 1000)
    assert admit(shard, THREE, **call)[0] == reply[0]
    shard.set_clock(NOW_US + retry_after_ms * 1000)
    assert admit(shard, THREE, **call)[0] == "OK"


# Rates, quotas, concurrency.


def test_a_rate_per_minute_holds_until_its_retry_after_and_no_longer(open_shard: LuaShard) -> None:
    load(open_shard, lots={12: 100}, rpm=7)
    calls = [admit(open_shard, name * 32, amount=1) for name in "1245678"]
    assert [call[6:8] for call in calls] == [[7, left] for left in range(6, -1, -1)]
    refused = admit(open_shard, CALL)
    assert (refused[0], refused[3], refused[5]) == ("RATE", 7, "account")
    refused_until_retry(open_shard, refused, 4)


@pytest.mark.parametrize(
    ("rules", "at_once", "limit"),
    [("rs:2", 2, 2), ("rs:10:3", 3, 10), ("rm:600:4", 4, 600), ("rs:100:50 rm:5", 5, 5)],
)
def test_as_many_calls_come_at_once_as_the_burst_allows(
    open_shard: LuaShard, rules: str, at_once: int, limit: int
) -> None:
    load(open_shard, lots={12: 100}, rules=rules)
    calls = [admit(open_shard, f"{number:032x}", amount=1) for number in range(at_once + 1)]
    assert [call[0] for call in calls] == ["OK"] * at_once + ["RATE"]
    assert (calls[-1][3], calls[-1][5]) == (limit, "account")
    refused_until_retry(open_shard, calls[-1], 4)


def test_a_clock_that_goes_back_locks_nobody_out(open_shard: LuaShard) -> None:
    load(open_shard, lots={12: 100}, rpm=2, rules="rs:2", **{"k:5": "0 rm:2:2"})
    for name in "12":
        assert admit(open_shard, name * 32)[0] == "OK"
    open_shard.set_clock(NOW_US - 3_600_000_000)
    assert admit(open_shard, THREE)[0] == "OK"


def test_the_reply_tells_the_rate_per_minute_that_has_the_fewest_calls_left(
    open_shard: LuaShard,
) -> None:
    load(open_shard, lots={12: 100}, rpm=9, rules="rs:1000000:2", **{"k:5": "0 rm:600:5"})
    assert admit(open_shard, ONE)[6:8] == [600, 4]
    assert admit(open_shard, TWO, route_rules="R2 rm:3")[6:8] == [3, 2]


@pytest.mark.parametrize(
    ("seed", "route_rules", "source"),
    [
        ({"rules": "cc:1"}, "", "account"),
        ({"conc": 1}, "", "account"),
        ({"k:5": "0 cc:1"}, "", "key"),
        ({}, "R2 cc:1", "route"),
    ],
)
def test_concurrency_counts_running_calls_of_its_scope(
    open_shard: LuaShard, seed: dict[str, Any], route_rules: str, source: str
) -> None:
    load(open_shard, lots={12: 100}, **({"k:6": 0} | seed))
    assert admit(open_shard, ONE, route_rules=route_rules)[0] == "OK"
    assert admit(open_shard, ONE, route_rules=route_rules)[0] == "OK"  # a retry is no further call
    refused = admit(open_shard, TWO, route_rules=route_rules)
    assert (refused[0], *refused[3:]) == ("CONCURRENCY", 1, source)
    if source != "account":
        elsewhere = {"key": {"key_id": 6}, "route": {"route_rules": "R3 cc:1"}}[source]
        assert admit(open_shard, THREE, **elsewhere)[0] == "OK"
    settle(open_shard, 1, ONE)
    assert admit(open_shard, TWO, route_rules=route_rules)[0] == "OK"


def test_a_limit_of_one_account_leaves_others_alone(open_shard: LuaShard) -> None:
    for account_id, grant_id in ((7, 12), (107, 13)):
        load(open_shard, account_id, lots={grant_id: 100})
        assert admit(open_shard, f"{account_id:032x}", account_id=account_id, route_rules="R2 qm:1")
    refused = admit(open_shard, ONE, account_id=107, route_rules="R2 qm:1")
    assert (refused[0], refused[3], refused[5]) == ("QUOTA", 1, "route")


@pytest.mark.parametrize("seed", [{"rpmonth": 1}, {"rules": "qm:1"}, {"rules": "qp:1"}])
def test_a_used_up_month_starts_anew_with_the_next(
    open_shard: LuaShard, seed: dict[str, Any]
) -> None:
    load(open_shard, lots={12: 100}, **seed)
    assert admit(open_shard, ONE)[0] == "OK"
    refused = admit(open_shard, TWO)
    assert refused == ["QUOTA", 3, refused[2], 1, MONTH_END_MS - NOW_MS, "account"]
    refused_until_retry(open_shard, refused, 4)


def test_a_billing_period_ends_where_the_next_begins(open_shard: LuaShard) -> None:
    end_ms, next_ms = NOW_MS + 10_000, NOW_MS + 20_000
    load(open_shard, lots={12: 100}, rules=f"qp:1 pw:{end_ms}:{next_ms}")
    assert admit(open_shard, ONE)[0] == "OK"
    refused = admit(open_shard, TWO)
    assert refused[3:] == [1, 10_000, "account"]
    refused_until_retry(open_shard, refused, 4)
    assert admit(open_shard, "4" * 32)[3:5] == [1, 10_000]
    open_shard.set_clock(next_ms * 1000)  # nobody has told of a third: the calendar month
    assert admit(open_shard, "4" * 32)[0] == "OK"
    assert admit(open_shard, "5" * 32)[4] == limits.month_end_ms(next_ms) - next_ms


def test_a_new_billing_period_starts_its_quota_anew(open_shard: LuaShard) -> None:
    load(open_shard, lots={12: 100}, rules=f"qp:1 pw:{NOW_MS + 90_000}:{NOW_MS + 99_000}")
    assert [admit(open_shard, name)[0] for name in (ONE, TWO)] == ["OK", "QUOTA"]
    renewed = f"qp:1 pw:{NOW_MS + 30_000}:{NOW_MS + 60_000}"
    assert open_shard.run("amend", 7, 0, 0, "rules", renewed)[0] == "OK"
    assert [admit(open_shard, name)[0] for name in (TWO, THREE)] == ["OK", "QUOTA"]


@pytest.mark.parametrize(
    ("seed", "field", "kind"),
    [
        ({"rpmonth": 1}, "month_end", "qm"),
        ({"rules": "qm:99"}, "A.qm", "qm"),
        ({"rules": "cd:99"}, "A.cd", "cd"),
    ],
)
def test_windows_end_when_the_reference_says(
    open_shard: LuaShard, seed: dict[str, Any], field: str, kind: str
) -> None:
    load(open_shard, lots={12: 100}, **seed)
    # From 1970 on, into 2408; and each day of 2024.
    for day in {*range(0, 160_000, 1997), *range(19_722, 20_089)}:
        now_ms = day * limits.DAY_MS + 86_399_999
        open_shard.set_clock(now_ms * 1000)
        open_shard.client.hset(key("account", 7), mapping={"month_end": 0, "count": 0})
        assert admit(open_shard, f"{day:032x}", amount=0)[0] == "OK"
        kept = str(counter(open_shard, field)).partition(":")[0]
        assert int(kept) == limits.window_end_ms(kind, now_ms), day


def test_a_loaded_account_goes_on_counting(open_shard: LuaShard) -> None:
    load(open_shard, lots={12: 100}, rpmonth=5, month=202609, count=4)
    assert [admit(open_shard, name)[0] for name in (ONE, TWO)] == ["OK", "QUOTA"]
    load(open_shard, 107, lots={13: 100}, rpmonth=5, month=202608, count=5)
    assert admit(open_shard, THREE, account_id=107)[0] == "OK"
    counters = {"A.cm": f"{MONTH_END_MS}:95", "A.cd": f"{NOW_MS}:95"}
    load(open_shard, 207, lots={14: 100}, rules="cm:100 cd:100", **counters)
    refused = admit(open_shard, "4" * 32, account_id=207, amount=6)
    assert (refused[0], *refused[3:7]) == ("CAP", "account", "month", 100, 95)
    assert admit(open_shard, "4" * 32, account_id=207, amount=5)[0] == "OK"


# Spend caps.

CAPS = [
    ({"rules": "cd:10"}, {}, "account", "day", DAY_END_MS - NOW_MS),
    ({"rules": "cm:10"}, {}, "account", "month", MONTH_END_MS - NOW_MS),
    ({"rules": "ct:10"}, {}, "account", "total", 0),
    ({"k:5": "0 cd:10"}, {}, "key", "day", DAY_END_MS - NOW_MS),
    ({"k:5": "0 ct:10"}, {}, "key", "total", 0),
    ({}, {"route_rules": "R2 cm:10"}, "route", "month", MONTH_END_MS - NOW_MS),
    ({}, {"route_rules": "R2 ct:10"}, "route", "total", 0),
    ({"rules": "cs:10"}, {"session": "s"}, "session", "session", 0),
    ({"k:5": "0 cs:10"}, {"session": "s"}, "session", "session", 0),
]


@pytest.mark.parametrize(("seed", "call", "source", "window", "retry_after_ms"), CAPS)
def test_a_cap_counts_what_running_calls_hold(
    open_shard: LuaShard,
    seed: dict[str, Any],
    call: dict[str, Any],
    source: str,
    window: str,
    retry_after_ms: int,
) -> None:
    load(open_shard, lots={12: 100}, **seed)
    session = call.get("session", "")
    assert admit(open_shard, ONE, amount=6, **call)[0] == "OK"
    refused = admit(open_shard, TWO, amount=6, **call)
    assert refused[3:] == [source, window, 10, 6, retry_after_ms]
    settle(open_shard, 4, ONE, session)
    assert admit(open_shard, TWO, amount=6, **call)[0] == "OK"
    assert void(open_shard, TWO, session)[0] == "OK"
    assert admit(open_shard, THREE, amount=7, **call)[6] == 4
    if retry_after_ms:
        refused_until_retry(open_shard, refused, 7, amount=10, **call)


@pytest.mark.parametrize(("seed", "call", "source", "window", "retry_after_ms"), CAPS)
def test_what_a_call_costs_beyond_its_hold_counts_against_a_cap(
    open_shard: LuaShard,
    seed: dict[str, Any],
    call: dict[str, Any],
    source: str,
    window: str,
    retry_after_ms: int,
) -> None:
    load(open_shard, lots={12: 100}, **seed)
    admit(open_shard, ONE, amount=6, **call)
    assert settle(open_shard, 11, ONE, call.get("session", ""))[3] == 11
    assert admit(open_shard, TWO, amount=1, **call)[3:] == [source, window, 10, 11, retry_after_ms]


def test_time_does_not_help_a_call_that_holds_more_than_the_cap(open_shard: LuaShard) -> None:
    load(open_shard, lots={12: 100}, rules="cd:10")
    assert admit(open_shard, amount=11)[3:] == ["account", "day", 10, 0, 0]


def test_a_call_that_holds_nothing_passes_a_cap_that_is_reached(open_shard: LuaShard) -> None:
    load(open_shard, lots={12: 100}, rules="cd:10 ct:10 cs:10")
    assert admit(open_shard, ONE, amount=10, session="s")[0] == "OK"
    assert admit(open_shard, TWO, amount=1, session="s")[0] == "CAP"
    assert admit(open_shard, TWO, amount=0, session="s")[0] == "OK"


def test_a_call_that_ends_the_day_after_leaves_the_new_day_alone(open_shard: LuaShard) -> None:
    load(open_shard, lots={12: 100}, rules="cd:10 ct:100")
    admit(open_shard, ONE, amount=9)
    open_shard.set_clock(DAY_END_MS * 1000)
    admit(open_shard, TWO, amount=7)
    settle(open_shard, 2, ONE)
    assert counter(open_shard, "A.cd") == f"{DAY_END_MS + limits.DAY_MS}:7"
    assert counter(open_shard, "A.ct") == "0:9"


def test_a_session_begins_with_its_first_call_and_lasts_a_day_from_the_last(
    open_shard: LuaShard,
) -> None:
    load(open_shard, lots={12: 100}, rules="cs:10")
    assert open_shard.client.exists(key("session", 7, "s")) == 0
    admit(open_shard, ONE, amount=6, session="s")
    assert 86_300_000 < open_shard.client.pttl(key("session", 7, "s")) <= 86_400_000
    open_shard.client.pexpire(key("session", 7, "s"), 1000)
    admit(open_shard, TWO, amount=1, session="s")
    assert open_shard.client.pttl(key("session", 7, "s")) > 86_300_000
    assert admit(open_shard, THREE, amount=9, session="another")[0] == "OK"
    assert admit(open_shard, "4" * 32, amount=9)[0] == "OK"  # no session, no cap of one


def test_a_session_without_a_cap_leaves_no_trace(open_shard: LuaShard) -> None:
    load(open_shard, lots={12: 100})
    admit(open_shard, session="s")
    assert settle(open_shard, 3, session="s")[0] == "OK"
    assert open_shard.client.exists(key("session", 7, "s")) == 0


def test_a_session_that_is_gone_does_not_come_back_when_its_call_ends(open_shard: LuaShard) -> None:
    load(open_shard, lots={12: 100}, rules="cs:10")
    admit(open_shard, session="s")
    open_shard.client.delete(key("session", 7, "s"))
    assert settle(open_shard, 6, session="s")[0] == "OK"
    assert open_shard.client.exists(key("session", 7, "s")) == 0


@pytest.mark.parametrize("how", ["void", "expire undispatched", "expire dispatched", "settle"])
def test_however_a_call_ends_it_leaves_concurrency_and_counts_what_it_cost(
    open_shard: LuaShard, how: str
) -> None:
    load(open_shard, lots={12: 100}, rules="cd:50 cc:5 qm:9", **{"k:5": "0 ct:50 rm:9"})
    admit(open_shard, amount=6, due=4)
    if how == "expire dispatched":
        dispatch(open_shard)
    open_shard.set_clock(NOW_US + 2_000_000)
    end = {"void": void, "settle": lambda shard: settle(shard, 4)}.get(how, expire)
    assert end(open_shard)[0] in ("OK", "VOIDED")
    cost = 4 if how in ("expire dispatched", "settle") else 0
    assert counter(open_shard, "A.cd") == f"{DAY_END_MS}:{cost}"
    assert counter(open_shard, "K5.ct") == f"0:{cost}"
    assert counter(open_shard, "A.cc") == "0"
    assert counter(open_shard, "A.qm") == f"{MONTH_END_MS}:1"  # it was made, whatever became of it


def test_a_call_that_lost_its_hold_is_charged_without_being_counted(open_shard: LuaShard) -> None:
    load(open_shard, lots={12: 100}, rules="cd:50 cc:5")
    assert late(open_shard, 6)[3] == 6
    assert (counter(open_shard, "A.cd"), counter(open_shard, "A.cc")) == (None, None)


# All of them.


@pytest.mark.parametrize(
    "last",
    ["rs:1", "rm:1", "qm:1", "cc:1", "cd:7", "cm:7", "ct:7", "cs:7"],
)
def test_refused_calls_leave_no_trace(open_shard: LuaShard, last: str) -> None:
    rules = f"rs:5 rm:6 qm:7 cc:5 cd:100 cm:100 ct:100 cs:100 {last}"
    load(open_shard, lots={12: 100}, rules="rs:9 cd:100", **{"k:5": f"0 {rules}"})
    assert admit(open_shard, ONE, session="s")[0] == "OK"
    before = open_shard.state((7,), ("s",))
    assert admit(open_shard, TWO, session="s", route_rules="R2 cc:9")[0] in (
        *("RATE", "QUOTA", "CONCURRENCY", "CAP"),
    )
    assert admit(open_shard, TWO, key_id=9)[0] == "LOAD"
    assert open_shard.state((7,), ("s",)) == before


def test_a_call_without_credits_leaves_no_trace_in_counters(open_shard: LuaShard) -> None:
    load(open_shard, lots={12: 5}, rpm=1, rpmonth=1, conc=1, rules="rs:1 qm:1 cc:1 cd:9 cs:9")
    before = open_shard.state((7,), ("s",))
    assert admit(open_shard, amount=6, session="s")[0] == "CREDITS"
    assert open_shard.state((7,), ("s",)) == before


def test_a_repeated_call_counts_once_and_hears_where_it_is_counted(open_shard: LuaShard) -> None:
    load(open_shard, lots={12: 100}, rules="rs:1 qm:1 cc:1 cd:6 cs:6")
    first = admit(open_shard, session="s")
    assert first[8] == f"A.cc A.cd@{DAY_END_MS} S.A"
    before = open_shard.state((7,), ("s",))
    again = admit(open_shard, session="s")
    assert (again[3:6], again[8]) == (first[3:6], first[8])
    assert open_shard.state((7,), ("s",)) == before


def test_changed_rules_hold_for_the_next_call(open_shard: LuaShard) -> None:
    load(open_shard, lots={12: 100})
    assert admit(open_shard, ONE)[0] == "OK"
    assert open_shard.run("amend", 7, 0, 0, "k:5", "0 cc:1", "rules", "qm:1")[0] == "OK"
    assert [admit(open_shard, name)[0] for name in (TWO, THREE)] == ["OK", "QUOTA"]
    assert open_shard.run("amend", 7, 0, 0, "rules", "")[0] == "OK"
    assert admit(open_shard, THREE)[3:] == [1, "key"]
    assert open_shard.run("amend", 7, 0, 0, "k:5", "-1 cc:1")[0] == "OK"
    assert admit(open_shard, THREE)[0] == "KEY"


def test_the_rules_of_a_route_must_say_whose_they_are(open_shard: LuaShard) -> None:
    load(open_shard, lots={12: 100})
    with pytest.raises(redis.ResponseError, match="scope"):
        admit(open_shard, route_rules="cd:100")


def test_a_session_without_its_key_is_an_error(open_shard: LuaShard) -> None:
    load(open_shard, lots={12: 100})
    with pytest.raises(redis.ResponseError, match="takes"):
        open_shard.run("admit", 7, CALL, 0, 0, 5, 6, 1000, 0, "1,7,5,2,9,s", "", "s")
