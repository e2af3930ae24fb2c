"""Keys that are carved out of keys, and guards that changed, as values."""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import TYPE_CHECKING

import pytest

from gateway.counters import CommandRefused
from policies.catalog import Caps, Limits
from policies.decision import (
    AccountSuspended,
    Admitted,
    Carved,
    CarveRefused,
    ChainTooLong,
    GivenBack,
    GuardChanged,
    KeyAlive,
    KeyRefused,
    NotLoaded,
    ShardLost,
    SpendCapReached,
)
from policies.limits import delegated_rules_text, key_text, rules_text
from tests.counters.conftest import CONTEXT, Account
from tests.support.settlements import new_call_id as new_id

if TYPE_CHECKING:
    from policies.decision import Carving

BUDGET = 400


def text(budget: int = BUDGET, parent: int = 5, *, lasts_s: int = 60) -> str:
    rules = delegated_rules_text(
        Limits(), Caps(), parent_key_id=parent, budget_microcredits=budget, guard_version=2
    )
    return key_text((int(time.time()) + lasts_s) * 1000, rules)


async def carve(account: Account, key_id: int, budget: int = BUDGET, parent: int = 5) -> Carving:
    told = text(budget, parent)
    return await account.counters.carve(account.keys, parent, key_id, budget, told)


async def test_a_carved_key_spends_its_budget_and_gives_back_the_rest(account: Account) -> None:
    counters, keys = account.counters, account.keys
    await counters.amend(keys, {"k:5": "0 ct:1000"})
    assert await carve(account, 19) == Carved()
    assert await carve(account, 20, 601) == CarveRefused(600)
    call = new_id()
    context = b"1,7,19,2,9,"
    admitted = await counters.admit(keys, call, b"19", 400, 60_000, 0, context, guard=2)
    assert isinstance(admitted, Admitted)
    asked = await counters.ask(keys, new_id(), b"19", 1, guard=2)
    assert asked == SpendCapReached("key", "total", BUDGET, BUDGET, 0)
    await account.settle(call, 150)
    assert await counters.give_back(keys, 19, last=False) == KeyAlive()
    await counters.amend(keys, {"k:19": f"-1 {text().partition(' ')[2]}"})
    assert await counters.give_back(keys, 19, last=False) == GivenBack(150)
    assert await counters.give_back(keys, 19, last=True) == GivenBack(150)
    assert await counters.give_back(keys, 19, last=True) == GivenBack(0)
    assert (await counters.inspect(keys)).fields["K5.ct"] == "0:150"
    assert await carve(account, 20, 850) == Carved()


async def test_guards_that_changed_are_told_with_their_version(account: Account) -> None:
    counters, keys = account.counters, account.keys
    await counters.amend(keys, {"k:5": key_text(0, rules_text(Limits(), Caps(), 7))})
    assert await account.admit(new_id()) == GuardChanged(7)
    assert await counters.ask(keys, new_id(), b"5", 1, guard=6) == GuardChanged(7)
    assert isinstance(await counters.ask(keys, new_id(), b"5", 1, guard=7), Admitted)
    call = (keys, new_id(), b"5", 1, 60_000, 0, CONTEXT)
    assert isinstance(await counters.admit(*call, guard=7), Admitted)
    other = (keys, new_id(), b"5", 1, 60_000, 0, b"1,7,5,2,9,mine")
    assert isinstance(await counters.admit(*other, b"R2 cd:9", b"mine", guard=7), Admitted)
    await counters.amend(keys, {"k:5": "0"})
    assert await counters.ask(keys, new_id(), b"5", 1, guard=7) == GuardChanged(0)


async def test_why_nothing_was_carved_is_a_value(account: Account) -> None:
    counters, keys = account.counters, account.keys
    assert isinstance(await carve(account, 19, parent=8), NotLoaded)
    chain = (5, 10, 11, 12, 13)
    for parent, key_id in itertools.pairwise(chain):
        assert await carve(account, key_id, parent=parent) == Carved()
    assert await carve(account, 19, parent=13) == ChainTooLong()
    await counters.amend(keys, {"status": "suspended"})
    assert await carve(account, 19) == AccountSuspended()
    await counters.amend(keys, {"k:5": "-1"})
    assert await carve(account, 19) == KeyRefused()
    with pytest.raises(CommandRefused, match="names its parent"):
        await counters.carve(keys, 6, 19, BUDGET, text())
    await counters.command("DEL", keys.name)
    assert isinstance(await carve(account, 19), NotLoaded)
    assert isinstance(await counters.give_back(keys, 19, last=True), NotLoaded)
    await counters.command("DEL", keys.state.meta)
    assert isinstance(await carve(account, 19), ShardLost)
    assert isinstance(await counters.give_back(keys, 19, last=True), ShardLost)


async def test_keys_carved_side_by_side_never_get_more_than_there_is(account: Account) -> None:
    await account.counters.amend(account.keys, {"k:5": "0 ct:1000"})
    outcomes = await asyncio.gather(*(carve(account, key, 90) for key in range(100, 130)))
    assert outcomes.count(Carved()) == 11
    assert outcomes.count(CarveRefused(10)) == 19
    assert (await account.counters.inspect(account.keys)).fields["K5.ct"] == "0:990"
