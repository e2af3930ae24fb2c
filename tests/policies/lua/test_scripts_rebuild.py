"""A shard that was lost: closed by one, filled while it is closed, opened by the same."""

from __future__ import annotations

from typing import Any

import pytest

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
)
from tests.support.lua_shard import LuaShard, account_seed, flat, key

OTHER = "0190" + "b" * 28
HOLD = f"h|7|{NOW_MS}|6|4||A.cc|12:6|{CONTEXT}"


@pytest.fixture
def closed(open_shard: LuaShard) -> LuaShard:
    """Closed under epoch 4 with two running calls, the second of them dispatched."""
    load(open_shard, lots={12: 100})
    admit(open_shard, CALL)
    admit(open_shard, OTHER)
    dispatch(open_shard, OTHER)
    assert open_shard.run("close", 0, 4, 3) == ["OK", 4, 0]
    return open_shard


def restore(shard: LuaShard, *calls: Any, epoch: int = 4, worker: str = "w1") -> list[Any]:
    reply: list[Any] = shard.run("restore", 0, epoch, worker, 30_000, *calls)
    return reply


def test_of_two_that_saw_the_same_loss_one_closes_the_shard(open_shard: LuaShard) -> None:
    load(open_shard, lots={12: 100})
    admit(open_shard)
    assert open_shard.run("close", 0, 4, 3) == ["OK", 4, 0]
    before = open_shard.state((7,))
    assert open_shard.run("close", 0, 5, 3) == ["KEPT", 4, 0]
    assert open_shard.run("close", 0, 6, 0) == ["KEPT", 4, 0]
    assert open_shard.state((7,)) == before


@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        ("admit", (CALL, 0, 0, 5, 6, 1000, 0, CONTEXT)),
        ("settle", (CALL, 4, 0, 6, "completed,200,,")),
        ("void", (CALL, 4, 0)),
        ("expire", (CALL, 4, 0)),
        ("extend", (4, 0, 1000, CALL, 1, "", "")),
        ("late", (CALL, 0, 0, 6, "completed,200,,", CONTEXT, 6, NOW_MS)),
        ("late", (CALL, 3, 5, 6, "completed,200,,", CONTEXT, 6, NOW_MS)),
        ("withdraw", (3, 5, "c" * 32, "adjust", "", "all", "", "1,7")),
        ("withdraw", (4, 0, "c" * 32, "adjust", "", "all", "", "1,7")),
        ("credit", (4, 0, 12, 200, 0, 0, 0, 0, "12")),
        ("load", (0, 0, 0, *flat(account_seed(lots={12: 100})))),
        ("amend", (4, 0, "k:5", "-1")),
    ],
)
def test_while_it_is_closed_nobody_calls(
    closed: LuaShard, script: str, arguments: tuple[Any, ...]
) -> None:
    before = closed.state((7,))
    assert closed.run(script, 7, *arguments) == ["CLOSED", 4, 0]
    assert closed.state((7,)) == before


def test_holds_are_put_aside_as_they_were_found(closed: LuaShard) -> None:
    state = closed.state((7,))
    assert (state["holds"], state["leases"]) == ({}, {})
    assert list(state["old"]) == [CALL, OTHER]
    assert state["oldleases"] == {
        CALL: 2 * (NOW_MS + 1000),
        OTHER: 2 * (NOW_MS + 1000) + 1,
    }


def test_a_rebuild_that_was_not_finished_loses_no_hold(closed: LuaShard) -> None:
    """Its rebuilder died after one hold was put back and its lease renewed."""
    text = closed.state((7,))["old"][CALL]
    restore(closed, CALL, text, 1)
    restore(closed)
    assert closed.run("close", 0, 5, 4) == ["OK", 5, 0]
    state = closed.state((7,))
    assert state["old"].keys() == state["oldleases"].keys() == {CALL, OTHER}
    assert state["oldleases"][CALL] == 2 * (NOW_MS + 30_000) + 1
    assert (state["holds"], state["reports"]) == ({}, {})


def test_a_settlement_on_its_way_survives_the_closing(open_shard: LuaShard) -> None:
    load(open_shard, lots={12: 100})
    admit(open_shard)
    outbox_id = settle(open_shard, 5)[7]
    open_shard.run("close", 0, 4, 3)
    state = open_shard.state((7,))
    assert list(state["outbox"]) == [outbox_id]
    assert (state["old"], state["holds"]) == ({}, {})  # it happened: nothing to put back


def test_restoring_twice_is_restoring_once(closed: LuaShard) -> None:
    assert restore(closed, CALL, HOLD, 1) == ["OK", 4, 0]
    before = closed.state((7,))
    assert restore(closed, CALL, HOLD, 1) == ["OK", 4, 0]
    assert closed.state((7,)) == before
    assert before["holds"] == {CALL: HOLD}
    assert before["leases"] == {CALL: 2 * (NOW_MS + 30_000) + 1}
    assert before["reports"] == {}


def test_a_worker_has_reported_when_it_says_so(closed: LuaShard) -> None:
    restore(closed, CALL, HOLD, 0)
    assert restore(closed, worker="") == ["OK", 4, 0]
    assert closed.state(())["reports"] == {}
    assert restore(closed) == ["OK", 4, 0]
    assert closed.state(())["reports"] == {"w1": "4"}


@pytest.mark.parametrize("epoch", [3, 5])
def test_what_is_meant_for_another_closing_is_kept_out(closed: LuaShard, epoch: int) -> None:
    before = closed.state((7,))
    assert restore(closed, CALL, HOLD, 1, epoch=epoch) == ["KEPT", 4, 0]
    assert closed.run("open", 0, epoch) == ["KEPT", 4, 0]
    assert closed.state((7,)) == before


def test_an_open_shard_is_neither_filled_nor_opened(open_shard: LuaShard) -> None:
    load(open_shard, lots={12: 100})
    before = open_shard.state((7,))
    assert restore(open_shard, CALL, HOLD, 1, epoch=3) == ["KEPT", 3, 2]
    assert open_shard.run("open", 0, 3) == ["KEPT", 3, 2]
    assert open_shard.state((7,)) == before


def test_a_call_lives_on_after_the_rebuild(closed: LuaShard) -> None:
    """Its hold is put back, its account loaded less what it holds, and then it settles."""
    restore(closed, CALL, HOLD, 1)
    restore(closed)
    counted = {"running": 1, "A.cc": 1, "h:12": 6}
    fields = account_seed(lots={12: 94}, rules="cc:2", **counted)
    assert closed.run("load", 7, 4, 0, 0, *flat(fields)) == ["OK", 4, 0]
    assert closed.run("open", 0, 4) == ["OK", 4, 1]
    state = closed.state((7,))
    assert (state["old"], state["oldleases"], state["reports"]) == ({}, {}, {})
    assert settle(closed, 5)[3:6] == [5, 0, 95]
    assert lot(closed) == [95, 0, 5, 0]
    assert closed.state((7,))["accounts"][7]["A.cc"] == "0"


def test_a_hold_that_nobody_renews_after_the_rebuild_expires_by_its_stage(closed: LuaShard) -> None:
    restore(closed, CALL, HOLD, 0, OTHER, HOLD, 1)
    fields = account_seed(lots={12: 88}, **{"running": 2, "h:12": 12})
    closed.run("load", 7, 4, 0, 0, *flat(fields))
    closed.run("open", 0, 4)
    closed.set_clock(NOW_US + 30_000_000)
    assert expire(closed, CALL)[0] == "VOIDED"
    assert expire(closed, OTHER)[3] == 4
    assert lot(closed) == [96, 0, 4, 0]


def test_the_rebuilder_charges_before_anybody_calls(closed: LuaShard) -> None:
    assert late(closed, 6, epoch=4)[0] == "LOAD"
    closed.run("load", 7, 4, 0, 0, *flat(account_seed(lots={12: 100})))
    first = late(closed, 6, epoch=4)
    assert first[:7] == ["OK", 4, 0, 6, 0, 94, "12:6"]
    assert late(closed, 6, epoch=4) == first
    closed.run("open", 0, 4)
    assert settle(closed, 0)[3:5] == [6, 0]


def test_loading_again_while_it_is_closed_is_absolute(closed: LuaShard) -> None:
    """Also with running calls, whose holds the load brings: a rebuild may begin again."""
    seed = account_seed(lots={12: 94}, **{"running": 1, "h:12": 6})
    for _ in range(2):
        assert closed.run("load", 7, 4, 0, 1, *flat(seed)) == ["OK", 4, 0]
    assert lot(closed) == [94, 6, 0, 0]


def test_accounts_of_the_lost_epoch_are_read_again(closed: LuaShard) -> None:
    closed.run("open", 0, 4)
    assert admit(closed, "1" * 32)[0] == "LOAD"
    assert closed.client.hget(key("account", 7), "epoch") == "3"


def test_a_shard_that_was_open_on_another_run_of_the_server_is_closed_once(
    open_shard: LuaShard,
) -> None:
    load(open_shard, lots={12: 100})
    admit(open_shard)
    before = open_shard.state((7,))
    assert open_shard.run("resume", 0, "run 2") == ["CLOSED", 3, 0]
    assert open_shard.run("resume", 0, "run 2") == ["OK", 3, 0]
    assert admit(open_shard, OTHER) == ["CLOSED", 3, 0]
    after = open_shard.state((7,))
    assert after == {**before, "meta": {"epoch": "3", "run": "run 2"}}  # for its rebuild to find


def test_a_rebuild_that_was_under_way_on_another_run_cannot_go_on(closed: LuaShard) -> None:
    assert closed.run("resume", 0, "run 2") == ["STALE", 0, 0]
    assert restore(closed, CALL, HOLD, 1) == ["KEPT", 0, 0]
    assert closed.run("open", 0, 4) == ["KEPT", 0, 0]
    assert closed.run("close", 0, 5, 0) == ["OK", 5, 0]
    assert list(closed.state(())["old"]) == [CALL, OTHER]


def test_an_empty_shard_is_left_to_whoever_finds_it(shard: LuaShard) -> None:
    shard.set_clock(NOW_US)
    assert shard.run("resume", 0, "run 2") == ["OK", 0, 0]
    assert shard.state(())["meta"] == {}
