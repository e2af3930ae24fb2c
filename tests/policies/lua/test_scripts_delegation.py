"""Keys that are carved out of keys: what binds their calls, and what comes back of a budget."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import pytest
import redis

from policies.delegation import DELEGATED_KEYS_MAX, DELEGATION_DEPTH_MAX
from tests.support.lua_calls import NOW_MS, NOW_US, admit, counter, load, settle, void
from tests.support.lua_shard import account_seed, flat

if TYPE_CHECKING:
    from tests.support.lua_shard import LuaShard

LATER_MS = NOW_MS + 60_000
ONE, TWO, THREE = "1" * 32, "2" * 32, "3" * 32
DAY_END_MS = NOW_MS - NOW_MS % 86_400_000 + 86_400_000


def carve(
    shard: LuaShard,
    key_id: int,
    budget: int = 40,
    parent: int = 5,
    *,
    rules: str = "",
    expires_ms: int = LATER_MS,
) -> Any:
    text = f"{expires_ms} ct:{budget} up:{parent} {rules}".strip()
    return shard.run("carve", 7, 0, 0, parent, key_id, budget, text)


def give_back(shard: LuaShard, key_id: int, last: int = 0) -> Any:
    return shard.run("giveback", 7, 0, 0, key_id, last)


def amend(shard: LuaShard, key_id: int, text: str) -> None:
    assert shard.run("amend", 7, 0, 0, f"k:{key_id}", text)[0] == "OK"


def fields(shard: LuaShard) -> dict[str, str]:
    found: dict[str, str] = shard.state((7,))["accounts"][7]
    return found


@pytest.fixture
def capped(open_shard: LuaShard) -> LuaShard:
    """Key 5 may spend 100 in total."""
    load(open_shard, lots={12: 1000}, **{"k:5": "0 ct:100"})
    return open_shard


# Carving.


def test_the_whole_budget_counts_in_the_parent_at_once(capped: LuaShard) -> None:
    assert carve(capped, 19, 70)[0] == "OK"
    assert counter(capped, "K5.ct") == "0:70"
    assert counter(capped, "K19.ct") == "0:0"
    assert counter(capped, "p:19") == "5:70"
    assert admit(capped, ONE, 31)[:6] == ["CAP", 3, 3, "key", "total", 100]
    assert admit(capped, ONE, 30)[0] == "OK"


def test_more_than_is_left_is_refused_and_says_what_is(capped: LuaShard) -> None:
    admit(capped, ONE, 25)
    before = capped.state((7,))
    assert carve(capped, 19, 76) == ["CAP", 3, 3, 75]
    assert capped.state((7,)) == before
    assert carve(capped, 19, 75)[0] == "OK"


def test_carving_again_counts_once(capped: LuaShard) -> None:
    carve(capped, 19, 70)
    before = capped.state((7,))
    assert carve(capped, 19, 70)[0] == "OK"
    assert capped.state((7,)) == before
    with pytest.raises(redis.ResponseError, match="carved otherwise"):
        carve(capped, 19, 60)


def test_a_budget_that_a_load_has_counted_already_counts_once(open_shard: LuaShard) -> None:
    row = {"k:19": f"{LATER_MS} ct:70 up:5", "p:19": "5:70", "K19.ct": "0:0", "K5.ct": "0:70"}
    load(open_shard, lots={12: 1000}, **{"k:5": "0 ct:100"}, **row)
    assert carve(open_shard, 19, 70)[0] == "OK"
    assert counter(open_shard, "K5.ct") == "0:70"


def test_a_load_that_has_counted_more_than_the_cap_lets_nothing_be_carved(
    open_shard: LuaShard,
) -> None:
    row = {"k:19": f"{LATER_MS} ct:70 up:5", "p:19": "5:70", "K19.ct": "0:0", "K5.ct": "0:110"}
    load(open_shard, lots={12: 1000}, **{"k:5": "0 ct:100"}, **row)
    assert carve(open_shard, 19, 70) == ["CAP", 3, 2, 0]


def test_only_carving_makes_a_delegated_key_usable(capped: LuaShard) -> None:
    amend(capped, 19, f"{LATER_MS} ct:70 up:5")
    told = account_seed(lots={12: 1000}, **{"k:19": f"{LATER_MS} ct:70 up:5", "p:19": "5:70"})
    assert capped.run("load", 7, 0, 0, 0, *flat(told))[0] == "KEPT"
    assert admit(capped, ONE, key_id=19)[0] == "KEY"
    assert carve(capped, 19, 70)[0] == "OK"
    assert admit(capped, ONE, key_id=19)[0] == "OK"
    assert counter(capped, "K5.ct") == "0:70"


def test_a_key_that_was_revoked_before_it_was_carved_stays_revoked(capped: LuaShard) -> None:
    amend(capped, 19, "-1 ct:70 up:5")
    assert carve(capped, 19, 70)[0] == "KEY"
    assert counter(capped, "p:19") is None


def test_what_redis_was_told_of_a_key_before_it_was_carved_is_newer(capped: LuaShard) -> None:
    amend(capped, 19, f"{NOW_MS + 5} ct:70 up:5 cc:1")
    assert carve(capped, 19, 70)[0] == "OK"
    assert counter(capped, "k:19") == f"{NOW_MS + 5} ct:70 up:5 cc:1"


def test_a_parent_without_a_cap_in_total_has_nothing_to_carve_from(open_shard: LuaShard) -> None:
    load(open_shard, lots={12: 1000})
    assert carve(open_shard, 19, 70)[0] == "OK"
    assert counter(open_shard, "K5.ct") is None
    assert admit(open_shard, ONE, 71, key_id=19)[:6] == ["CAP", 3, 3, "key", "total", 70]
    assert admit(open_shard, ONE, 70, key_id=19)[0] == "OK"


@pytest.mark.parametrize("state", ["-1", str(NOW_MS)])
def test_nothing_is_carved_from_what_is_over(open_shard: LuaShard, state: str) -> None:
    load(open_shard, lots={12: 1000}, **{"k:5": state})
    assert carve(open_shard, 19)[0] == "KEY"


def test_nothing_is_carved_that_is_over_or_for_an_account_that_is_suspended(
    capped: LuaShard,
) -> None:
    assert carve(capped, 19, expires_ms=NOW_MS)[0] == "KEY"
    assert carve(capped, 19, parent=6)[0] == "LOAD"
    capped.run("amend", 7, 0, 0, "status", "suspended")
    assert carve(capped, 19)[0] == "SUSPENDED"


def test_a_chain_of_keys_has_an_end(capped: LuaShard) -> None:
    chain = range(10, 10 + DELEGATION_DEPTH_MAX)
    for key_id in chain:
        assert carve(capped, key_id, 40, max(key_id - 1, 9) if key_id > 10 else 5)[0] == "OK"
    assert carve(capped, 20, 40, chain[-1])[0] == "DEPTH"
    assert admit(capped, ONE, key_id=chain[-1])[0] == "OK"
    amend(capped, 5, "-1")
    assert admit(capped, TWO, key_id=chain[-1])[0] == "KEY"


def test_a_chain_that_is_too_long_is_followed_no_further(open_shard: LuaShard) -> None:
    """Nothing carves one; whoever loads one, or a circle, must not keep Redis busy."""
    chain = [5, *range(10, 11 + DELEGATION_DEPTH_MAX)]
    keys: dict[str, Any] = {}
    for parent, key_id in itertools.pairwise(chain):
        keys |= {f"k:{key_id}": f"{LATER_MS} ct:9 up:{parent}", f"p:{key_id}": f"{parent}:9"}
    circle = {"k:30": f"{LATER_MS} ct:9 up:31", "p:30": "31:9"}
    circle |= {"k:31": f"{LATER_MS} ct:9 up:30", "p:31": "30:9"}
    load(open_shard, lots={12: 1000}, **keys, **circle)
    assert admit(open_shard, ONE, key_id=chain[-2])[0] == "OK"
    assert admit(open_shard, TWO, key_id=chain[-1])[0] == "KEY"
    assert admit(open_shard, TWO, key_id=30)[0] == "KEY"


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ((5, 19, 0, f"{LATER_MS} ct:0 up:5"), "budget"),
        ((5, 19, 40, f"{LATER_MS} ct:41 up:5"), "budget"),
        ((5, 19, 40, f"{LATER_MS} up:5"), "budget"),
        ((5, 19, 40, f"{LATER_MS} ct:40 up:6"), "names its parent"),
        ((5, 19, 40, f"{LATER_MS} ct:40"), "names its parent"),
        ((5, 19, 40, "x ct:40 up:5"), "no state"),
        (("x", 19, 40, f"{LATER_MS} ct:40 up:x"), "no such field"),
    ],
)
def test_a_text_that_is_not_that_of_the_key_is_an_error(
    capped: LuaShard, arguments: tuple[Any, ...], why: str
) -> None:
    before = capped.state((7,))
    with pytest.raises(redis.ResponseError, match=why):
        capped.run("carve", 7, 0, 0, *arguments)
    assert capped.state((7,)) == before


def test_an_account_takes_as_many_delegated_keys_as_it_may_have(open_shard: LuaShard) -> None:
    keys: dict[str, Any] = {}
    for key_id in range(100, 100 + DELEGATED_KEYS_MAX):
        keys |= {f"k:{key_id}": f"{LATER_MS} ct:9 up:5", f"p:{key_id}": "5:9"}
        keys |= {f"K{key_id}.{kind}": "0:0" for kind in ("ct", "cd", "cm", "qm")}
    load(open_shard, lots=dict.fromkeys(range(1, 301), 10), **keys)
    assert fields(open_shard)["p:599"] == "5:9"
    amended = {name: text for name, text in keys.items() if name[0] != "p"}
    assert open_shard.run("amend", 7, 0, 0, *flat(amended))[0] == "OK"
    assert admit(open_shard, ONE, 9, key_id=599)[0] == "OK"


# Calls.


def test_a_revoked_or_expired_ancestor_ends_its_descendants(capped: LuaShard) -> None:
    carve(capped, 19, 40, expires_ms=NOW_MS + 10)
    carve(capped, 20, 20, 19)
    assert admit(capped, ONE, key_id=20)[0] == "OK"
    capped.set_clock(NOW_US + 10_000)
    assert admit(capped, TWO, key_id=20)[0] == "KEY"
    assert capped.run("raise", 7, ONE, 0, 0, 20, 0, 0)[0] == "KEY"
    amend(capped, 19, f"{LATER_MS} ct:40 up:5")
    assert admit(capped, TWO, key_id=20)[0] == "OK"
    amend(capped, 5, "-1 ct:100")
    assert admit(capped, THREE, key_id=20)[0] == "KEY"
    assert capped.run("raise", 7, ONE, 0, 0, 20, 0, 0)[0] == "KEY"


def test_a_call_asks_the_limits_of_every_ancestor_but_their_total(capped: LuaShard) -> None:
    amend(capped, 5, "0 ct:100 cd:30 cc:1")
    carve(capped, 19, 100, rules="rs:1:2")
    carve(capped, 20, 100, 19)
    reply = admit(capped, ONE, 20, key_id=20)
    assert reply[8] == f"K20.ct@0 K5.cd@{DAY_END_MS} K5.cc"
    assert admit(capped, TWO, 1, key_id=20)[:5] == ["CONCURRENCY", 3, 6, 1, "key"]
    assert settle(capped, 15, ONE)[0] == "OK"
    assert counter(capped, "K5.cd") == f"{DAY_END_MS}:15"
    assert counter(capped, "K5.cc") == "0"
    refused = admit(capped, TWO, 16, key_id=20)
    assert refused[:7] == ["CAP", 3, 7, "key", "day", 30, 15]
    assert admit(capped, TWO, 15, key_id=20)[0] == "OK"
    assert void(capped, TWO)[0] == "OK"
    assert admit(capped, THREE, 1, key_id=20)[0] == "RATE"
    # The two that were carved: 20 counts its own calls, the others what was carved out of them.
    assert [counter(capped, f"K{key}.ct") for key in (20, 19, 5)] == ["0:15", "0:100", "0:100"]


def test_a_raise_is_bound_by_the_caps_of_ancestors(capped: LuaShard) -> None:
    amend(capped, 5, "0 ct:100 cd:30 cs:25")
    carve(capped, 19, 90)
    admit(capped, ONE, 5, key_id=19, session="s")
    raised = capped.run("raise", 7, ONE, 0, 0, 19, 0, 28, "", session="s")
    assert raised[3] == 25
    amend(capped, 5, "0 ct:100 cd:22")
    refused = capped.run("raise", 7, ONE, 0, 0, 19, 26, 28, "", session="s")
    assert refused[0] == "CAP"
    assert refused[3:6] == ["key", "day", 22]
    amend(capped, 5, "0 ct:100")
    assert capped.run("raise", 7, ONE, 0, 0, 19, 90, 90, "", session="s")[3] == 90
    assert capped.run("raise", 7, ONE, 0, 0, 19, 91, 91, "", session="s")[0] == "CAP"


def test_an_ancestor_that_is_not_here_is_read_from_postgres(open_shard: LuaShard) -> None:
    text = f"{LATER_MS} ct:40 up:6"
    load(open_shard, lots={12: 1000}, **{"k:19": text, "p:19": "6:40", "K19.ct": "0:0"})
    assert admit(open_shard, ONE, key_id=19)[0] == "LOAD"
    amend(open_shard, 6, "0")
    assert admit(open_shard, ONE, key_id=19)[0] == "OK"


# Guards.


def guarded(shard: LuaShard, call_id: str, version: int, key_id: int = 5) -> Any:
    arguments = (call_id, 0, 0, key_id, 6, 1000, 0, f"1,7,{key_id},2,9,", "", "", 0, version)
    return shard.run("admit", 7, *arguments)


def test_guards_that_changed_are_told_on_the_next_call(open_shard: LuaShard) -> None:
    load(open_shard, lots={12: 1000}, **{"k:5": "0 gv:2"})
    assert admit(open_shard, ONE) == ["GUARD", 3, 2, 2]
    assert guarded(open_shard, ONE, 1) == ["GUARD", 3, 2, 2]
    assert guarded(open_shard, ONE, 2)[0] == "OK"
    amend(open_shard, 5, "0 gv:3")
    assert guarded(open_shard, ONE, 2)[0] == "OK"  # it is admitted already
    assert guarded(open_shard, TWO, 2)[3:] == [3]
    amend(open_shard, 5, "0 cc:5")
    assert guarded(open_shard, TWO, 3)[3:] == [0]
    amend(open_shard, 5, "0")
    assert guarded(open_shard, TWO, 3)[3:] == [0]
    assert guarded(open_shard, TWO, 0)[0] == "OK"
    assert admit(open_shard, THREE)[0] == "OK"


def test_an_ancestors_guards_are_not_the_keys_own(capped: LuaShard) -> None:
    amend(capped, 5, "0 ct:100 gv:2")
    carve(capped, 19, 40, rules="gv:7")
    assert guarded(capped, ONE, 2, 19)[3:] == [7]
    assert guarded(capped, ONE, 7, 19)[0] == "OK"


@pytest.mark.parametrize("rules", ["up:5", "gv:1", "cd:1 gv:1", "x:1", "cd:", "cd", "CD:1"])
def test_an_account_has_neither_parent_nor_guards(open_shard: LuaShard, rules: str) -> None:
    load(open_shard, lots={12: 1000})
    with pytest.raises(redis.ResponseError, match="no rules"):
        open_shard.run("amend", 7, 0, 0, "rules", rules)


# Giving back.


def test_what_was_not_used_comes_back_once(capped: LuaShard) -> None:
    carve(capped, 19, 70)
    admit(capped, ONE, 30, key_id=19)
    settle(capped, 20, ONE)
    assert give_back(capped, 19)[0] == "ALIVE"
    amend(capped, 19, "-1 ct:70 up:5")
    assert give_back(capped, 19)[3] == 20
    assert (counter(capped, "K5.ct"), counter(capped, "p:19")) == ("0:20", "5:70:20")
    before = capped.state((7,))
    assert give_back(capped, 19)[3] == 20
    assert capped.state((7,)) == before
    assert carve(capped, 21, 80)[0] == "OK"


def test_what_running_calls_hold_comes_back_when_they_have_ended(capped: LuaShard) -> None:
    carve(capped, 19, 70)
    admit(capped, ONE, 30, key_id=19)
    admit(capped, TWO, 25, key_id=19)
    capped.set_clock(NOW_US + 60_000_000)
    assert give_back(capped, 19)[3] == 55
    assert counter(capped, "K5.ct") == "0:55"
    settle(capped, 10, ONE)
    assert counter(capped, "K5.ct") == "0:55"
    assert give_back(capped, 19)[3] == 35
    void(capped, TWO)
    assert give_back(capped, 19, last=1)[3] == 10
    assert counter(capped, "K5.ct") == "0:10"
    assert give_back(capped, 19, last=1)[3] == 0
    assert not [name for name in fields(capped) if "19" in name[:4]]


def test_what_a_call_cost_beyond_its_budget_counts_in_the_parent(capped: LuaShard) -> None:
    carve(capped, 19, 20)
    admit(capped, ONE, 20, key_id=19)
    settle(capped, 33, ONE)
    amend(capped, 19, "-1 ct:20 up:5")
    assert give_back(capped, 19)[3] == 33
    assert counter(capped, "K5.ct") == "0:33"


def test_a_key_that_gave_back_is_over_for_good(capped: LuaShard) -> None:
    carve(capped, 19, 70)
    capped.set_clock(NOW_US + 60_000_000)
    assert give_back(capped, 19)[0] == "OK"
    capped.set_clock(NOW_US)  # somebody has set the clock
    amend(capped, 19, f"{LATER_MS} ct:70 up:5")
    assert admit(capped, ONE, key_id=19)[0] == "KEY"
    assert carve(capped, 19, 70)[0] == "KEY"
    assert carve(capped, 20, 10, 19)[0] == "KEY"
    assert give_back(capped, 19)[0] == "OK"


def test_a_key_whose_ancestor_is_over_gives_back_and_then_its_parent_does(
    capped: LuaShard,
) -> None:
    carve(capped, 19, 70)
    carve(capped, 20, 50, 19)
    admit(capped, ONE, 30, key_id=20)
    settle(capped, 5, ONE)
    amend(capped, 19, "-1 ct:70 up:5")
    assert give_back(capped, 19)[3] == 50  # what was carved out of it is not back yet
    assert give_back(capped, 20)[3] == 5
    assert give_back(capped, 19)[3] == 5
    assert counter(capped, "K5.ct") == "0:5"
    assert give_back(capped, 20, last=1)[3] == 5
    assert give_back(capped, 19, last=1)[3] == 5
    assert counter(capped, "K5.ct") == "0:5"


def test_a_parent_without_a_cap_in_total_gets_nothing_back(open_shard: LuaShard) -> None:
    load(open_shard, lots={12: 1000})
    carve(open_shard, 19, 70)
    amend(open_shard, 19, "-1 ct:70 up:5")
    assert give_back(open_shard, 19)[3] == 0
    assert counter(open_shard, "K5.ct") is None


def test_a_key_that_is_not_here_has_nothing_to_give_back(capped: LuaShard) -> None:
    before = capped.state((7,))
    assert give_back(capped, 99)[3] == 0
    assert capped.state((7,)) == before


def test_a_load_that_read_postgres_before_a_key_was_closed_is_sent_back(
    open_shard: LuaShard,
) -> None:
    _, epoch, seq = admit(open_shard)
    assert give_back(open_shard, 19)[0] == "LOAD"
    told = account_seed(lots={12: 100}, **{"p:19": "5:70"})
    assert open_shard.run("load", 7, epoch, seq, 0, *flat(told))[0] == "LOAD"


def test_a_cap_in_total_that_comes_back_counts_what_postgres_says(capped: LuaShard) -> None:
    admit(capped, ONE, 30)
    amend(capped, 5, "0")
    assert counter(capped, "K5.ct") is None
    settle(capped, 20, ONE)
    admit(capped, TWO, 50)
    carve(capped, 19, 10)
    told = {"k:5": "0 ct:100", "K5.ct": "0:30", "p:19": "5:10"}
    capped.run("amend", 7, 0, 0, *flat(told))
    assert counter(capped, "K5.ct") == "0:30"


@pytest.mark.parametrize("told", [{}, {"p:19": "5:10"}, {"p:19": "5:10", "p:29": "5:25"}])
def test_of_shares_a_cap_that_is_new_counts_those_there_are_not_those_told(
    capped: LuaShard, told: dict[str, str]
) -> None:
    amend(capped, 5, "0")
    carve(capped, 19, 10)
    carve(capped, 20, 40)
    amend(capped, 20, "-1 ct:40 up:5")
    assert give_back(capped, 20)[3] == 0
    counted = 30 + sum(int(text.partition(":")[2]) for text in told.values())
    capped.run("amend", 7, 0, 0, *flat({"k:5": "0 ct:100", "K5.ct": f"0:{counted}", **told}))
    assert counter(capped, "K5.ct") == "0:40"
    assert "p:29" not in fields(capped)


def test_of_a_key_that_is_forgotten_a_new_cap_counts_what_it_used(capped: LuaShard) -> None:
    amend(capped, 5, "0")
    told = {"k:5": "0 ct:100", "K5.ct": "0:75", "p:19": "5:70", "K19.ct": "0:12"}
    capped.run("amend", 7, 0, 0, *flat(told))
    assert counter(capped, "K5.ct") == "0:17"


def test_an_account_that_is_loaded_is_told_no_cap_in_total_of_a_key_it_knows(
    capped: LuaShard,
) -> None:
    amend(capped, 5, "0")
    carve(capped, 19, 10)
    told = account_seed(**{"k:5": "0 ct:100", "K5.ct": "0:0", "k:6": "0 ct:9", "K6.ct": "0:8"})
    told |= {"k:21": f"{LATER_MS} ct:5 up:6", "p:21": "6:5", "K21.ct": "0:0"}
    assert capped.run("load", 7, 0, 0, 0, *flat(told))[0] == "KEPT"
    assert counter(capped, "K5.ct") is None
    assert counter(capped, "K6.ct") == "0:3", "21 is not carved yet"
    assert carve(capped, 21, 5, parent=6)[0] == "OK"
    assert counter(capped, "K6.ct") == "0:8"


def test_a_raise_does_not_count_in_a_cap_in_total_that_is_no_more(capped: LuaShard) -> None:
    admit(capped, ONE, 30)
    amend(capped, 5, "0")
    assert capped.run("raise", 7, ONE, 0, 0, 5, 40, 40)[3] == 40
    assert counter(capped, "K5.ct") is None


@pytest.mark.parametrize("share", ["", "5", "5:", "5:0", "5:x", "x:1", "5:1:", "5:1:2"])
def test_what_is_no_share_is_not_loaded(open_shard: LuaShard, share: str) -> None:
    with pytest.raises(redis.ResponseError, match=r"share|no integer"):
        load(open_shard, lots={12: 100}, **{"p:19": share})
