"""What each script promises beyond what any sequence shows: refusals, bounds, maxmemory, time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import redis

from policies.scripts import SCRIPTS, compose
from tests.support.lua_calls import (
    CALL,
    CONTEXT,
    NOW_MS,
    NOW_US,
    admit,
    dispatch,
    expire,
    load,
    lot,
    settle,
    void,
)
from tests.support.lua_shard import KEYS, LuaShard, account_seed, flat, key, source

if TYPE_CHECKING:
    from collections.abc import Iterator

AMOUNT_MAX = 2**53 - 1
CHANGE = "c" * 32
HOLD = f"h|7|{NOW_MS}|6|0|||12:6|{CONTEXT}"
ARGUMENTS = {
    "admit": (CALL, 0, 0, 5, 6, 1000, 0, CONTEXT),
    "raise": (CALL, 0, 0, 5, 6, 9, "R2 cd:1000"),
    "settle": (CALL, 0, 0, 6, "completed,200,,", "2:token:0:1000:5"),
    "void": (CALL, 0, 0),
    "expire": (CALL, 0, 0),
    "extend": (0, 0, 1000, CALL, 1, 3, "token=1"),
    "park": (CALL, 0, 0, 1000, 2000, f"{CALL} {{}}", 1),
    "touch": (0, 0, 1000, 2000, 9000),
    "unpark": (CALL,),
    "claim": (CALL, 0, 0, 5, "f" * 64, 1000, 5000, 100, "", 0),
    "remember": (CALL, "f" * 64, 1000, 5000, "answer", "receipt", 1000, 1000),
    "forget": (CALL,),
    "late": (CALL, 0, 0, 6, "completed,200,,", CONTEXT, 6, NOW_MS),
    "withdraw": (0, 0, CHANGE, "adjust", 12, 5, "", "1,7"),
    "acknowledge": (CALL, "1-1"),
    "credit": (0, 0, 13, 100, 0, 0, 0, 0, "12 13"),
    "load": (0, 0, 0, *flat(account_seed(lots={12: 100}))),
    "amend": (0, 0, "k:5", "-1"),
    "carve": (0, 0, 5, 19, 40, f"{NOW_MS + 9000} ct:40 up:5"),
    "giveback": (0, 0, 19, 0),
    "close": (4, 3),
    "restore": (4, "", 1000, CALL, HOLD, 1),
    "open": (4,),
    "resume": ("run 2",),
    "inspect": (),
}


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("change", ["one key less", "one argument more"])
def test_a_script_called_with_the_wrong_arity_writes_nothing(
    open_shard: LuaShard, script: str, change: str
) -> None:
    load(open_shard, lots={12: 100})
    admit(open_shard)
    before = open_shard.state((7,))
    names = [key(name, 7) for name in KEYS[script]]
    arguments = list(ARGUMENTS[script])
    if change == "one key less":
        names.pop()
    else:
        arguments.append("1")
    text = compose(script, source)
    with pytest.raises(redis.ResponseError, match="takes"):
        open_shard.client.eval(text, len(names), *names, *arguments)
    assert open_shard.state((7,)) == before


@pytest.mark.parametrize(
    ("script", "place"),
    [
        *(("admit", place) for place in (1, 4, 5, 6)),
        *(("raise", place) for place in (1, 4, 5)),
        *(("settle", place) for place in (1, 3)),
        *(("extend", place) for place in (0, 2, 5)),
        *(("claim", place) for place in (1, 5, 6, 7, 9)),
        *(("remember", place) for place in (2, 3, 6, 7)),
        *(("late", place) for place in (1, 3, 6, 7)),
        *(("withdraw", place) for place in (0, 5)),
        *(("credit", place) for place in (0, 3, 4, 5, 6, 7)),
        *(("load", place) for place in (0, 1, 6, 8, 10, 18, 20, 22, 24, 26)),
        *(("amend", place) for place in (0,)),
        *(("carve", place) for place in (0, 4)),
        *(("giveback", place) for place in (0,)),
        *(("close", place) for place in (0, 1)),
        *(("restore", place) for place in (0, 2)),
        *(("open", place) for place in (0,)),
    ],
)
def test_a_number_that_is_no_amount_is_an_error_and_writes_nothing(
    open_shard: LuaShard, script: str, place: int
) -> None:
    load(open_shard, lots={12: 100})
    admit(open_shard, "f" * 32)
    before = open_shard.state((7,))
    arguments = list(ARGUMENTS[script])
    unchanged = [""] if (script, place) == ("extend", 5) else []
    for bad in {"-1", "1.5", "x", "", "nan", "inf", str(2**53)} - {*unchanged}:
        arguments[place] = bad
        with pytest.raises(redis.ResponseError, match="no integer"):
            open_shard.run(script, 7, *arguments)
    assert open_shard.state((7,)) == before


def test_more_due_than_is_held_is_an_error(open_shard: LuaShard) -> None:
    load(open_shard, lots={12: 100})
    with pytest.raises(redis.ResponseError, match="due"):
        admit(open_shard, amount=5, due=6)
    assert admit(open_shard, amount=5, due=5)[0] == "OK"


@pytest.mark.parametrize("script", ["settle", "void", "expire", "late"])
def test_a_hold_cannot_be_ended_under_another_account(open_shard: LuaShard, script: str) -> None:
    load(open_shard, 7, lots={12: 100})
    load(open_shard, 107, lots={13: 100})
    admit(open_shard)
    open_shard.set_clock(NOW_US + 2_000_000)
    before = open_shard.state((7, 107))
    with pytest.raises(redis.ResponseError, match="another account"):
        open_shard.run(script, 107, *ARGUMENTS[script])
    assert open_shard.state((7, 107)) == before


def test_amounts_up_to_2_53_keep_every_digit(open_shard: LuaShard) -> None:
    load(open_shard, lots={12: AMOUNT_MAX})
    admitted = admit(open_shard, amount=AMOUNT_MAX - 2, due=AMOUNT_MAX - 4)
    assert admitted[3:5] == [2, f"12:{AMOUNT_MAX - 2}"]
    assert open_shard.state((7,))["accounts"][7]["h:12"] == str(AMOUNT_MAX - 2)
    settled = settle(open_shard, AMOUNT_MAX - 3)
    assert settled[3:7] == [AMOUNT_MAX - 3, 0, 3, f"12:{AMOUNT_MAX - 3}"]
    assert open_shard.state((7,))["accounts"][7]["s:12"] == str(AMOUNT_MAX - 3)
    assert settle(open_shard, 0) == settled


def test_a_context_may_hold_any_character_but_a_bar(open_shard: LuaShard) -> None:
    load(open_shard, lots={12: 100})
    context = "1,2,h,s,%d %s\n'é\""
    admit(open_shard, context=context)
    assert settle(open_shard, 6)[0] == "OK"
    (entry,) = open_shard.state((7,))["outbox"].values()
    assert entry["v"].split("|")[1] == context


def test_an_outbox_entry_is_complete(open_shard: LuaShard) -> None:
    load(open_shard, lots={12: 4, 13: 100})
    admit(open_shard, amount=6)
    open_shard.set_clock(NOW_US + 1_000_000)
    reply = settle(open_shard, 5)
    text = f"{CALL}|{CONTEXT}|6|{NOW_MS}|{NOW_MS + 1000}|5|0|12:4 13:1|completed,200,token=1,"
    assert open_shard.state((7,))["outbox"] == {reply[7]: {"v": text}}


def test_a_lot_pays_from_its_effective_time_until_just_before_its_expiry(
    open_shard: LuaShard,
) -> None:
    load(
        open_shard,
        lots={12: 100},
        effective_ms={12: NOW_MS + 10},
        expires_ms={12: NOW_MS + 20},
    )
    outcomes = []
    for offset_ms in (9, 10, 19, 20):
        open_shard.set_clock(NOW_US + offset_ms * 1000)
        outcomes.append(admit(open_shard, f"{offset_ms:032x}")[0])
    assert outcomes == ["CREDITS", "OK", "OK", "CREDITS"]


def test_an_expired_key_is_refused_from_its_expiry_on(open_shard: LuaShard) -> None:
    load(open_shard, lots={12: 100}, **{"k:5": NOW_MS + 1})
    assert admit(open_shard, "1" * 32)[0] == "OK"
    open_shard.set_clock(NOW_US + 1000)
    assert admit(open_shard, "2" * 32)[0] == "KEY"


def test_a_revoked_key_is_refused_on_the_next_call(open_shard: LuaShard) -> None:
    load(open_shard, lots={12: 100})
    assert admit(open_shard, "1" * 32)[0] == "OK"
    assert open_shard.run("amend", 7, 0, 0, "k:5", "-1")[0] == "OK"
    assert admit(open_shard, "2" * 32)[0] == "KEY"


def test_a_revocation_while_a_worker_reads_postgres_is_not_lost(open_shard: LuaShard) -> None:
    asked = admit(open_shard)
    assert asked[0] == "LOAD"
    read_before = account_seed(lots={12: 100})
    assert open_shard.run("amend", 7, 0, 0, "k:5", "-1")[0] == "LOAD"
    again = open_shard.run("load", 7, *asked[1:3], 0, *flat(read_before))
    assert again[0] == "LOAD"
    read_after = account_seed(lots={12: 100}, **{"k:5": -1})
    assert open_shard.run("load", 7, *again[1:3], 0, *flat(read_after))[0] == "OK"
    assert admit(open_shard)[0] == "KEY"


def test_the_note_of_a_change_to_an_account_that_nobody_loads_goes_away(
    open_shard: LuaShard,
) -> None:
    _, epoch, seq = open_shard.run("amend", 7, 0, 0, "k:5", "-1")
    assert 0 < open_shard.client.pttl(key("account", 7)) <= 60_000
    open_shard.run("load", 7, epoch, seq, 0, *flat(account_seed(lots={12: 100})))
    assert open_shard.client.pttl(key("account", 7)) == -1


@pytest.mark.parametrize(
    "field", ["a:12", "h:12", "s:12", "w:12", "lots", "running", "epoch", "tat", "k:"]
)
def test_amend_cannot_touch_credits_or_the_scripts_own_fields(
    open_shard: LuaShard, field: str
) -> None:
    load(open_shard, lots={12: 100})
    with pytest.raises(redis.ResponseError, match="no such field"):
        open_shard.run("amend", 7, 0, 0, field, "1000")


def test_a_new_account_without_lots_may_make_free_calls_only(open_shard: LuaShard) -> None:
    load(open_shard)
    assert admit(open_shard, "1" * 32, amount=0)[:5] == ["OK", 3, 3, 0, ""]
    assert admit(open_shard, "2" * 32, amount=1) == ["CREDITS", 3, 3, 0, 0]


def test_four_hundred_lots_pay_for_one_call(open_shard: LuaShard) -> None:
    load(open_shard, lots=dict.fromkeys(range(1, 401), 10))
    assert admit(open_shard, amount=4000)[3] == 0
    settled = settle(open_shard, 3995)
    assert settled[3:6] == [3995, 0, 5]
    assert settled[6].split()[-1] == "400:5"


def test_more_lots_or_keys_than_a_script_can_take_are_refused(open_shard: LuaShard) -> None:
    with pytest.raises(redis.ResponseError, match="too many"):
        load(open_shard, lots=dict.fromkeys(range(1, 601), 10))
    load(open_shard, lots=dict.fromkeys(range(1, 401), 10))
    with pytest.raises(redis.ResponseError, match="too many"):
        open_shard.run("credit", 7, 0, 0, 401, 10, 0, 0, 0, 0, "401")


def test_spent_lots_leave_room_for_new_ones(open_shard: LuaShard) -> None:
    load(open_shard, lots=dict.fromkeys(range(1, 401), 10))
    admit(open_shard, amount=3990)
    settle(open_shard, 3980)
    assert open_shard.run("credit", 7, 0, 0, 401, 10, 0, 0, 0, 0, "399 400 401")[0] == "OK"
    assert open_shard.state((7,))["accounts"][7]["lots"] == "399 400 401"
    assert open_shard.run("credit", 7, 0, 0, 1, 15, 10, 0, 0, 0, "1 400 401")[0] == "OK"
    assert open_shard.state((7,))["accounts"][7]["lots"] == "1 400 401 399"
    assert lot(open_shard, 1) == [5, 0, 10, 0]


@pytest.fixture
def full_memory(open_shard: LuaShard) -> Iterator[LuaShard]:
    """A shard with five running calls, two of them overdue, on a server at maxmemory."""
    load(open_shard, lots={12: 100}, rules="cd:1000 cc:50")
    for number in (1, 2, 5):
        admit(open_shard, str(number) * 32, lease_ms=60_000)
    for number in (3, 4):
        admit(open_shard, str(number) * 32, lease_ms=1, due=4)
    dispatch(open_shard, "3" * 32, lease_ms=1)
    open_shard.set_clock(NOW_US + 1_000_000)
    limits = open_shard.client.config_get("maxmemory*")
    open_shard.client.config_set("maxmemory-policy", "noeviction")
    open_shard.client.config_set("maxmemory", "1")
    yield open_shard
    for name in ("maxmemory", "maxmemory-policy"):
        open_shard.client.config_set(name, limits[name])


def test_at_maxmemory_running_calls_still_end(full_memory: LuaShard) -> None:
    assert settle(full_memory, 5, "1" * 32)[3:6] == [5, 0, 71]
    assert void(full_memory, "2" * 32)[0] == "OK"
    assert expire(full_memory, "3" * 32)[3:6] == [4, 0, 79]
    assert expire(full_memory, "4" * 32)[0] == "VOIDED"
    arguments = ("5" * 32, *ARGUMENTS["late"][1:])
    assert full_memory.run("late", 7, *arguments)[3:6] == [6, 0, 85]
    assert full_memory.state((7,))["leases"] == {}
    assert lot(full_memory) == [85, 0, 15, 0]


def test_at_maxmemory_running_calls_keep_their_leases(full_memory: LuaShard) -> None:
    calls = ("1" * 32, 1, 3, "token=1", "2" * 32, 0, "", "")
    assert full_memory.run("extend", 0, 0, 0, 90_000, *calls)[0] == "OK"
    state = full_memory.state((7,))
    assert state["leases"]["1" * 32] == 2 * (NOW_MS + 91_000) + 1
    assert state["holds"]["1" * 32].split("|")[4:6] == ["3", "token=1"]


@pytest.mark.parametrize(
    "script",
    ["admit", "claim", "remember", "load", "amend", "carve", "credit", "withdraw", "close"],
)
def test_at_maxmemory_nothing_new_starts_and_nothing_is_half_written(
    full_memory: LuaShard, script: str
) -> None:
    before = full_memory.state((7, 107))
    with pytest.raises(redis.ResponseError, match="maxmemory"):
        full_memory.run(script, 107 if script == "load" else 7, *ARGUMENTS[script])
    assert full_memory.state((7, 107)) == before
    assert not full_memory.client.exists(key("i"), key("ia"), key("ib"))


def test_the_production_clock_is_redis_own(client: redis.Redis) -> None:
    shard = LuaShard(client, test_clock=False)
    try:
        shard.start()
        load(shard, lots={12: 100})
        before = client.time()
        reply = admit(shard)
        after = client.time()
        assert (
            before[0] * 1000 + before[1] // 1000 <= reply[5] <= after[0] * 1000 + after[1] // 1000
        )
    finally:
        shard.clear()


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_opens_with_its_contract_and_an_arity_check(script: str) -> None:
    lines = source(f"{script}.lua").splitlines()
    header = [line for line in lines if line.startswith("--")]
    body = [line for line in lines if line and not line.startswith("--")]
    for heading in ("needs:", "KEYS", "ARGV", "Result", "Example:"):
        assert any(line.startswith(f"-- {heading}") for line in header), heading
    assert body[0].startswith("assert(")
    assert f"#KEYS == {len(KEYS[script])}" in body[0]
    assert "#ARGV" in body[0]


def test_only_the_clock_reads_the_time() -> None:
    texts = {
        name: compose(name, lambda file: "" if "clock" in file else source(file))
        for name in SCRIPTS
    }
    assert [name for name, text in texts.items() if "TIME" in text] == []
