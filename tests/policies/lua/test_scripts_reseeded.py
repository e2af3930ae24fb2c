"""Calls that outlive their account's hash: it was deleted and loaded again while they ran.

Nothing in the gateway does that, people with redis-cli do. Whatever the calls take and give back
then, no credit may appear or vanish: a lot's available, held and settled still make up its grant.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.lua_calls import NOW_US, admit, dispatch, lot, settle
from tests.support.lua_shard import account_seed, flat, key

if TYPE_CHECKING:
    from tests.support.lua_shard import LuaShard


@pytest.fixture
def reseeded(shard: LuaShard) -> LuaShard:
    """Two calls hold 6, and 3 + 1 of lots 12 and 13; the account was loaded again, without 13."""
    shard.set_clock(NOW_US)
    shard.start()
    shard.run("load", 7, 0, 0, 0, *flat(account_seed(lots={12: 9, 13: 20})))
    admit(shard, "1" * 32, 6)
    assert admit(shard, "2" * 32, 4)[4] == "12:3 13:1"
    shard.client.delete(key("account", 7))
    shard.run("load", 7, 0, 0, 0, *flat(account_seed(lots={12: 9})))
    return shard


def test_a_settlement_charges_the_lots_that_are_there(reseeded: LuaShard) -> None:
    assert settle(reseeded, 5, "1" * 32)[3:7] == [5, 0, 4, "12:5"]
    assert settle(reseeded, 6, "2" * 32)[3:7] == [4, 2, 0, "12:4"]
    assert lot(reseeded) == [0, 0, 9, 0]


def test_a_void_gives_back_no_more_than_is_held(reseeded: LuaShard) -> None:
    assert reseeded.run("void", 7, "1" * 32, 0, 0)[3] == 9
    admit(reseeded, "3" * 32, 2)
    assert reseeded.run("void", 7, "2" * 32, 0, 0)[3] == 9
    assert lot(reseeded) == [9, 0, 0, 0]


@pytest.mark.parametrize("script", ["settle", "void"])
def test_the_count_of_running_calls_never_goes_below_none(reseeded: LuaShard, script: str) -> None:
    arguments = (0, "completed,200,,") if script == "settle" else ()
    assert reseeded.run(script, 7, "1" * 32, 0, 0, *arguments)[0] == "OK"
    assert reseeded.state((7,))["accounts"][7]["running"] == "0"


def test_credits_given_back_to_a_lot_out_of_order_cannot_be_spent(shard: LuaShard) -> None:
    """A lot whose id left the burn-down order keeps what is given back, for the audit to see."""
    shard.set_clock(NOW_US)
    shard.start()
    shard.run("load", 7, 0, 0, 0, *flat(account_seed(lots={12: 9, 13: 20})))
    admit(shard, "1" * 32, 9)
    shard.client.hset(key("account", 7), "lots", "13")
    assert settle(shard, 4, "1" * 32)[3:7] == [4, 0, 20, "12:4"]
    assert lot(shard) == [5, 0, 4, 0]


@pytest.mark.parametrize("script", ["settle", "void", "expire"])
def test_a_hold_whose_account_is_gone_waits_for_it(reseeded: LuaShard, script: str) -> None:
    reseeded.client.delete(key("account", 7))
    dispatch(reseeded, "1" * 32)
    reseeded.set_clock(NOW_US + 2_000_000)
    arguments = (3, "completed,200,,") if script == "settle" else ()
    assert reseeded.run(script, 7, "1" * 32, 0, 0, *arguments)[0] == "GONE"
    reseeded.run("load", 7, 0, 0, 0, *flat(account_seed(lots={12: 9})))
    assert reseeded.run(script, 7, "1" * 32, 0, 0, *arguments)[0] == "OK"


def test_a_forced_load_waits_for_running_calls(shard: LuaShard) -> None:
    shard.set_clock(NOW_US)
    shard.start()
    seed = flat(account_seed(lots={12: 9}))
    shard.run("load", 7, 0, 0, 0, *seed)
    admit(shard, "1" * 32, 6)
    assert shard.run("load", 7, 0, 0, 1, *seed)[0] == "BUSY"
    assert lot(shard) == [3, 6, 0, 0]
    settle(shard, 6, "1" * 32)
    assert shard.run("load", 7, 0, 0, 1, *seed)[0] == "OK"
