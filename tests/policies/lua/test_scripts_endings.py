"""How calls end: by their worker, by the reaper, late; and what else takes or adds credits."""

from __future__ import annotations

import pytest
import redis

from tests.support.lua_calls import (
    CALL,
    CONTEXT,
    NOW_MS,
    NOW_US,
    admit,
    dispatch,
    expire,
    late,
    load,
    lot,
    settle,
    void,
    withdraw,
)
from tests.support.lua_shard import LuaShard, key

CHANGE = "c" * 32
OTHER = "2" * 32


@pytest.fixture
def running(open_shard: LuaShard) -> LuaShard:
    """A call that holds 6 of 100, of which 4 are due; its lease is a second."""
    load(open_shard, lots={12: 100})
    admit(open_shard, amount=6, due=4)
    return open_shard


def overdue(shard: LuaShard) -> None:
    shard.set_clock(NOW_US + 1_000_000)


def extend(shard: LuaShard, *calls: object) -> list[object]:
    reply: list[object] = shard.run("extend", 0, 0, 0, 1000, *calls)
    return reply


# By the reaper.


def test_a_hold_that_was_not_dispatched_costs_nothing_when_it_expires(running: LuaShard) -> None:
    overdue(running)
    reply = expire(running)
    assert (reply[0], reply[3:]) == ("VOIDED", [100])
    assert lot(running) == [100, 0, 0, 0]
    assert running.state((7,))["outbox"] == {}
    assert settle(running, 6)[0] == "GONE"


def test_a_dispatched_hold_costs_what_is_due_when_it_expires(running: LuaShard) -> None:
    dispatch(running)
    overdue(running)
    reply = expire(running)
    assert reply[3:7] == [4, 0, 96, "12:4"]
    (entry,) = running.state((7,))["outbox"].values()
    assert entry["v"].endswith("|unknown,0,,expired")


def test_a_lease_ends_with_its_deadline_in_either_stage(running: LuaShard) -> None:
    running.set_clock(NOW_US + 999_000)
    assert expire(running)[0] == "EARLY"
    dispatch(running)
    assert expire(running)[0] == "EARLY"
    overdue(running)
    assert expire(running)[0] == "OK"


def test_a_settlement_after_the_expiry_gets_that_one(running: LuaShard) -> None:
    dispatch(running)
    overdue(running)
    expired = expire(running)
    settled = settle(running, 6)
    assert settled == ["EXPIRED", *expired[1:]]
    assert late(running, 6) == settled
    assert expire(running) == expired
    assert void(running)[0] == "SETTLED"


# Leases.


def test_a_renewed_lease_runs_from_now_and_keeps_the_checkpoint(running: LuaShard) -> None:
    running.set_clock(NOW_US + 900_000)
    assert extend(running, CALL, 1, 5, "token=9")[3:] == []
    running.set_clock(NOW_US + 1_899_000)
    assert expire(running)[0] == "EARLY"
    running.set_clock(NOW_US + 1_900_000)
    assert expire(running)[3] == 5
    (entry,) = running.state((7,))["outbox"].values()
    assert entry["v"].endswith("|unknown,0,token=9,expired")


def test_a_renewal_without_a_checkpoint_keeps_what_is_due(running: LuaShard) -> None:
    extend(running, CALL, 1, 5, "token=9")
    extend(running, CALL, 1, "", "")
    running.set_clock(NOW_US + 1_000_000)
    assert expire(running)[3] == 5


def test_more_due_than_is_held_is_cut_and_keeps_no_other_call_from_being_renewed(
    running: LuaShard,
) -> None:
    """Its worker knows of a raise that the shard has lost."""
    admit(running, OTHER)
    assert extend(running, CALL, 1, 7, "token=9", OTHER, 1, 3, "")[3:] == []
    running.set_clock(NOW_US + 1_000_000)
    assert expire(running)[3] == 6
    assert expire(running, OTHER)[3] == 3


def test_a_stage_never_goes_back(running: LuaShard) -> None:
    dispatch(running)
    extend(running, CALL, 0, "", "")
    overdue(running)
    assert expire(running)[0] == "OK"


def test_a_mark_that_comes_after_the_renewal_does_not_shorten_it(running: LuaShard) -> None:
    running.set_clock(NOW_US + 500_000)
    extend(running, CALL, 1, "", "")
    before = running.state((7,))["leases"]
    dispatch(running)
    assert running.state((7,))["leases"] == before


def test_a_renewal_names_the_calls_that_have_no_hold(running: LuaShard) -> None:
    settle(running, 1)
    running.run("admit", 7, "1" * 32, 0, 0, 5, 1, 1000, 0, CONTEXT)
    reply = extend(running, CALL, 1, "", "", "1" * 32, 0, "", "", "2" * 32, 1, 3, "token=1")
    assert reply[3:] == [CALL, "2" * 32]
    assert list(running.state((7,))["leases"]) == ["1" * 32]


def test_a_mark_for_a_call_that_has_ended_makes_no_lease(running: LuaShard) -> None:
    settle(running, 1)
    dispatch(running)
    assert running.state((7,))["leases"] == {}


# Late.


def test_a_late_settlement_of_a_running_call_settles_its_hold(running: LuaShard) -> None:
    assert late(running, 5)[:1] + late(running, 5)[3:7] == ["OK", 5, 0, 95, "12:5"]
    assert lot(running) == [95, 0, 5, 0]


def test_a_late_settlement_without_a_hold_takes_what_there_is(open_shard: LuaShard) -> None:
    load(open_shard, lots={12: 4, 13: 7}, expires_ms={12: NOW_MS})
    reply = late(open_shard, 9)
    assert reply[3:7] == [7, 2, 0, "13:7"]
    (entry,) = open_shard.state((7,))["outbox"].values()
    assert entry["v"].split("|")[1:8] == [CONTEXT, "6", f"{NOW_MS}", f"{NOW_MS}", "7", "2", "13:7"]
    assert late(open_shard, 9) == reply  # once, until it is acknowledged
    assert open_shard.state((7,))["accounts"][7]["running"] == "0"


def test_a_late_settlement_waits_for_its_account(open_shard: LuaShard) -> None:
    assert late(open_shard, 6)[0] == "LOAD"


# Once.


def test_a_settled_call_is_told_again_until_it_is_acknowledged(running: LuaShard) -> None:
    first = settle(running, 5)
    admit(running, "1" * 32, amount=10)
    again = settle(running, 0)
    assert again[3:5] + again[6:] == first[3:5] + first[6:]
    assert again[5] == first[5] - 10  # what is left is what is left now
    running.client.hdel(key("holds"), CALL)
    assert settle(running, 5)[0] == "GONE"


def test_an_acknowledgment_that_is_half_done_does_no_harm(running: LuaShard) -> None:
    outbox_id = settle(running, 5)[7]
    running.client.xdel(key("outbox"), outbox_id)
    assert settle(running, 5)[0] == "GONE"
    assert late(running, 5)[0] == "GONE"
    assert lot(running) == [95, 0, 5, 0]


# What else takes.


@pytest.mark.parametrize("kind", ["expire", "revoke", "adjust"])
def test_what_is_held_stays_held_whatever_is_withdrawn(running: LuaShard, kind: str) -> None:
    reply = withdraw(running, CHANGE, kind, 12)
    assert reply[3:6] == [94, 0, "12:94"]
    assert lot(running) == [0, 6, 0, 94]
    (entry,) = running.state((7,))["outbox"].values()
    assert entry == {"c": f"{CHANGE}|{kind}|1,7|{NOW_MS}||12:94"}
    settle(running, 4)  # the hold settles on the lot that is over
    assert lot(running) == [2, 0, 4, 94]


def test_a_late_debit_counts_as_settled(running: LuaShard) -> None:
    assert withdraw(running, CHANGE, "late", "", 7)[3:6] == [7, 87, "12:7"]
    assert lot(running) == [87, 6, 7, 0]


def test_a_repeated_withdrawal_takes_once(running: LuaShard) -> None:
    first = withdraw(running, CHANGE, "adjust", "", 50)
    seq = running.state(())["meta"]
    assert withdraw(running, CHANGE, "adjust", "", 50) == first
    assert running.state(())["meta"] == seq
    assert lot(running) == [44, 6, 0, 50]


def test_a_withdrawal_follows_the_burn_down_order_over_valid_lots(open_shard: LuaShard) -> None:
    load(open_shard, lots={12: 5, 13: 5, 14: 5}, expires_ms={12: NOW_MS}, effective_ms={13: NOW_MS})
    assert withdraw(open_shard, CHANGE, "adjust", "", 7)[5] == "13:5 14:2"
    assert withdraw(open_shard, "d" * 32, "expire", 12)[5] == "12:5"


@pytest.mark.parametrize("lot_id", [12, 99, ""])
def test_taking_nothing_writes_nothing(open_shard: LuaShard, lot_id: int | str) -> None:
    load(open_shard, lots={12: 0})
    before = open_shard.state((7,))
    assert withdraw(open_shard, CHANGE, "expire", lot_id)[3:] == [0, 0, "", ""]
    assert open_shard.state((7,)) == before


def test_a_late_debit_waits_until_its_calls_settlement_is_acknowledged(running: LuaShard) -> None:
    dispatch(running)
    overdue(running)
    outbox_id = expire(running)[7]
    with pytest.raises(redis.ResponseError, match="on its way"):
        withdraw(running, CALL, "late", "", 2)
    running.client.hdel(key("holds"), CALL)
    running.client.xdel(key("outbox"), outbox_id)
    assert withdraw(running, CALL, "late", "", 2)[3] == 2
    assert settle(running, 6)[0] == "GONE"  # and not the change of this id
    assert late(running, 6)[0] == "GONE"


# What adds.


def credit(
    shard: LuaShard, total: int, settled: int = 0, withdrawn: int = 0, lots: str = ""
) -> str:
    """Of lot 12, which never expires; the status."""
    told = (12, total, settled, withdrawn, 0, 0, lots or "12")
    return str(shard.run("credit", 7, 0, 0, *told)[0])


def test_a_credit_told_twice_or_late_adds_once(running: LuaShard) -> None:
    settle(running, 5)
    assert credit(running, 130) == "OK"
    assert lot(running) == [125, 0, 5, 0]
    assert credit(running, 130) == "KEPT"
    assert credit(running, 110) == "KEPT"  # read before it was raised to 130
    assert lot(running) == [125, 0, 5, 0]


def test_a_credit_counts_what_was_taken_and_is_held(running: LuaShard) -> None:
    withdraw(running, CHANGE, "adjust", 12, 20)
    assert credit(running, 101) == "OK"
    assert lot(running) == [75, 6, 0, 20]


def test_a_new_lot_begins_with_what_postgres_says_is_left(open_shard: LuaShard) -> None:
    load(open_shard)
    assert credit(open_shard, 100, settled=30, withdrawn=20) == "OK"
    assert lot(open_shard) == [50, 0, 30, 20]
    with pytest.raises(redis.ResponseError, match="more was taken"):
        credit(open_shard, 100, settled=90, withdrawn=20)


def test_a_credit_sets_the_times_and_the_order_of_its_lot(open_shard: LuaShard) -> None:
    load(open_shard, lots={12: 5, 13: 5}, overage={99: 10})
    told = (13, 5, 0, 0, NOW_MS + 9, NOW_MS - 9, "13 77 12")
    assert open_shard.run("credit", 7, 0, 0, *told)[0] == "OK"
    fields = open_shard.state((7,))["accounts"][7]
    assert (fields["e:13"], fields["f:13"]) == (str(NOW_MS + 9), str(NOW_MS - 9))
    assert fields["lots"] == "13 12 99o"  # 77 is told by its own credit; overage stays last
    assert lot(open_shard, 13) == [5, 0, 0, 0]


def test_what_is_acknowledged_twice_leaves_what_came_after_it(running: LuaShard) -> None:
    """A hold that a rebuild found in an older Redis; a change that has yet to be carried."""
    outbox_id = settle(running, 5)[7]
    hold = f"h|7|{NOW_MS}|6|4|||12:6|{CONTEXT}"
    running.client.hset(key("holds"), CALL, hold)
    running.client.xdel(key("outbox"), outbox_id)
    change = withdraw(running, CHANGE, "adjust", 12, 5)[6]
    before = running.state((7,))
    assert running.run("acknowledge", 0, CALL, CHANGE, outbox_id, "1-1") == ["OK", 0, 0]
    assert running.state((7,)) == before
    assert running.run("acknowledge", 0, CALL, CHANGE, outbox_id, change) == ["OK", 0, 0]
    state = running.state((7,))
    assert (state["holds"], state["outbox"]) == ({CALL: hold}, {})
