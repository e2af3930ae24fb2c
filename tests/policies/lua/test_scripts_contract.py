"""What each script promises beyond what any sequence shows: refusals, bounds, maxmemory, time."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
import redis

from policies import limits
from policies.scripts import SCRIPTS, compose
from tests.support.lua_shard import KEYS, LuaShard, account_seed, flat, key, source

if TYPE_CHECKING:
    from collections.abc import Iterator

NOW_US = 1_790_000_000_000_123
NOW_MS = NOW_US // 1000
CALL = "0190" + "a" * 28
CONTEXT = "1,7,5,2,9"
AMOUNT_MAX = 2**53 - 1


@pytest.fixture
def open_shard(shard: LuaShard) -> LuaShard:
    shard.set_clock(NOW_US)
    assert shard.run("open", 7, 3, 0) == ["OK", 3, 0]
    return shard


def load(shard: LuaShard, account_id: int = 7, **seed: Any) -> None:
    fields = account_seed(**seed)
    assert shard.run("load", account_id, 0, 0, 1, *flat(fields))[0] == "OK"


def admit(shard: LuaShard, call_id: str = CALL, amount: int = 6, **others: Any) -> Any:
    values = {"account_id": 7, "key_id": 5, "lease_ms": 1000, "floor": 0, "context": CONTEXT}
    account_id, key_id, lease_ms, floor, context = (values | others).values()
    arguments = (call_id, 0, 0, key_id, amount, lease_ms, floor, context)
    return shard.run("admit", account_id, *arguments)


def settle(shard: LuaShard, owed: int, call_id: str = CALL) -> Any:
    return shard.run("settle", 7, call_id, 0, 0, owed, "completed,200,token=1,")


ARGUMENTS = {
    "admit": (CALL, 0, 0, 5, 6, 1000, 0, CONTEXT),
    "settle": (CALL, 0, 0, 6, "completed,200,,"),
    "void": (CALL, 0, 0),
    "expire": (CALL, 0, 0),
    "load": (0, 0, 0, *flat(account_seed(lots={12: 100}))),
    "open": (4, 3),
    "amend": (0, 0, "k:5", "-1"),
    "grant": (0, 0, 13, 100, 0, 0, "12 13"),
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
        *(("settle", place) for place in (1, 3)),
        *(("load", place) for place in (0, 1, 6, 8, 10, 16, 18)),
        *(("amend", place) for place in (0,)),
        *(("grant", place) for place in (0, 3, 4, 5)),
        *(("open", place) for place in (0, 1)),
    ],
)
def test_a_number_that_is_no_amount_is_an_error_and_writes_nothing(
    open_shard: LuaShard, script: str, place: int
) -> None:
    load(open_shard, lots={12: 100})
    admit(open_shard, "f" * 32)
    before = open_shard.state((7,))
    arguments = list(ARGUMENTS[script])
    for bad in ("-1", "1.5", "x", "", "nan", "inf", str(2**53)):
        arguments[place] = bad
        with pytest.raises(redis.ResponseError, match="no integer"):
            open_shard.run(script, 7, *arguments)
    assert open_shard.state((7,)) == before


def test_a_floor_above_the_amount_is_an_error(open_shard: LuaShard) -> None:
    load(open_shard, lots={12: 100})
    with pytest.raises(redis.ResponseError, match="floor"):
        admit(open_shard, amount=5, floor=6)


@pytest.mark.parametrize("script", ["settle", "void", "expire"])
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
    admitted = admit(open_shard, amount=AMOUNT_MAX - 2, floor=AMOUNT_MAX - 4)
    assert admitted[3:5] == [2, f"12:{AMOUNT_MAX - 2}"]
    assert open_shard.state((7,))["accounts"][7]["h:12"] == str(AMOUNT_MAX - 2)
    settled = settle(open_shard, AMOUNT_MAX - 3)
    assert settled[3:7] == [AMOUNT_MAX - 3, 0, 3, f"12:{AMOUNT_MAX - 3}"]
    assert open_shard.state((7,))["accounts"][7]["s:12"] == str(AMOUNT_MAX - 3)
    assert settle(open_shard, 0) == settled


def test_a_context_may_hold_any_character(open_shard: LuaShard) -> None:
    load(open_shard, lots={12: 100})
    context = "1|2|h|s|%d %s\n'é\""
    admit(open_shard, context=context)
    assert settle(open_shard, 6)[0] == "OK"
    (entry,) = open_shard.state((7,))["outbox"].values()
    assert entry["x"] == context


def test_an_outbox_entry_is_complete(open_shard: LuaShard) -> None:
    load(open_shard, lots={12: 4, 13: 100})
    admit(open_shard, amount=6)
    open_shard.set_clock(NOW_US + 1_000_000)
    reply = settle(open_shard, 5)
    assert open_shard.state((7,))["outbox"] == {
        reply[7]: {
            "i": CALL,
            "x": CONTEXT,
            "m": "6",
            "t": str(NOW_MS),
            "n": str(NOW_MS + 1000),
            "c": "5",
            "u": "0",
            "p": "12:4 13:1",
            "r": "completed,200,token=1,",
        }
    }


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


@pytest.mark.parametrize("field", ["a:12", "h:12", "s:12", "lots", "running", "epoch", "tat", "k:"])
def test_amend_cannot_touch_credits_or_the_scripts_own_fields(
    open_shard: LuaShard, field: str
) -> None:
    load(open_shard, lots={12: 100})
    with pytest.raises(redis.ResponseError, match="does not change"):
        open_shard.run("amend", 7, 0, 0, field, "1000")


def test_a_new_account_without_lots_may_make_free_calls_only(open_shard: LuaShard) -> None:
    load(open_shard)
    assert admit(open_shard, "1" * 32, amount=0)[:5] == ["OK", 3, 2, 0, ""]
    assert admit(open_shard, "2" * 32, amount=1) == ["CREDITS", 3, 2, 0, 0]


def test_five_hundred_lots_pay_for_one_call(open_shard: LuaShard) -> None:
    load(open_shard, lots=dict.fromkeys(range(1, 501), 10))
    assert admit(open_shard, amount=5000)[3] == 0
    settled = settle(open_shard, 4995)
    assert settled[3:6] == [4995, 0, 5]
    assert settled[6].split()[-1] == "500:5"


def test_more_lots_or_keys_than_a_script_can_take_are_refused(open_shard: LuaShard) -> None:
    with pytest.raises(redis.ResponseError, match="too many"):
        load(open_shard, lots=dict.fromkeys(range(1, 601), 10))
    load(open_shard, lots=dict.fromkeys(range(1, 501), 10))
    with pytest.raises(redis.ResponseError, match="too many"):
        open_shard.run("grant", 7, 0, 0, 501, 10, 0, 0, "501")


@pytest.fixture
def full_memory(open_shard: LuaShard) -> Iterator[LuaShard]:
    """A shard with three running calls, one of them overdue, on a server at maxmemory."""
    load(open_shard, lots={12: 100})
    for number in (1, 2):
        admit(open_shard, str(number) * 32, lease_ms=60_000)
    admit(open_shard, "3" * 32, lease_ms=1, floor=4)
    open_shard.set_clock(NOW_US + 1_000_000)
    limits = open_shard.client.config_get("maxmemory*")
    open_shard.client.config_set("maxmemory-policy", "noeviction")
    open_shard.client.config_set("maxmemory", "1")
    yield open_shard
    for name in ("maxmemory", "maxmemory-policy"):
        open_shard.client.config_set(name, limits[name])


def test_at_maxmemory_running_calls_still_end(full_memory: LuaShard) -> None:
    assert settle(full_memory, 5, "1" * 32)[3:6] == [5, 0, 83]
    assert full_memory.run("void", 7, "2" * 32, 0, 0)[0] == "OK"
    assert full_memory.run("expire", 7, "3" * 32, 0, 0)[3:6] == [4, 0, 91]
    assert full_memory.state((7,))["leases"] == {}


@pytest.mark.parametrize("script", ["admit", "load", "amend", "grant", "open"])
def test_at_maxmemory_nothing_new_starts_and_nothing_is_half_written(
    full_memory: LuaShard, script: str
) -> None:
    before = full_memory.state((7, 107))
    with pytest.raises(redis.ResponseError, match="maxmemory"):
        full_memory.run(script, 107 if script == "load" else 7, *ARGUMENTS[script])
    assert full_memory.state((7, 107)) == before


def test_of_two_workers_that_saw_the_same_loss_one_opens_the_shard(open_shard: LuaShard) -> None:
    assert open_shard.run("open", 7, 4, 3) == ["OK", 4, 0]
    load(open_shard, lots={12: 100})
    admit(open_shard)
    before = open_shard.state((7,))
    assert open_shard.run("open", 7, 5, 3) == ["KEPT", 4, 2]
    assert open_shard.run("open", 7, 6, 0) == ["KEPT", 4, 2]
    assert open_shard.state((7,)) == before


def test_the_production_clock_is_redis_own(client: redis.Redis) -> None:
    shard = LuaShard(client, test_clock=False)
    try:
        shard.run("open", 7, 1, 0)
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
    assert re.match(rf"assert\(#KEYS == {len(KEYS[script])} and #ARGV", body[0])


def test_only_the_clock_reads_the_time() -> None:
    texts = {
        name: compose(name, lambda file: "" if "clock" in file else source(file))
        for name in SCRIPTS
    }
    assert [name for name, text in texts.items() if "TIME" in text] == []


def test_the_quotas_month_ends_when_the_reference_says(open_shard: LuaShard) -> None:
    load(open_shard, lots={12: 100}, rpmonth=1)
    # From 1970 on, into 2408; and each day of 2024.
    for day in {*range(0, 160_000, 997), *range(19_722, 20_089)}:
        now_ms = day * limits.DAY_MS + 86_399_999
        open_shard.set_clock(now_ms * 1000)
        open_shard.client.hset(key("account", 7), mapping={"month_end": 0, "count": 0})
        assert admit(open_shard, f"{day:032x}", amount=0)[0] == "OK"
        kept = open_shard.client.hget(key("account", 7), "month_end")
        assert int(kept) == limits.month_end_ms(now_ms), day


def test_a_used_up_quota_starts_anew_with_the_next_month(open_shard: LuaShard) -> None:
    load(open_shard, lots={12: 100}, rpmonth=1)
    assert admit(open_shard, "1" * 32)[0] == "OK"
    refused = admit(open_shard, "2" * 32)
    assert (refused[0], refused[3]) == ("QUOTA", 1)
    open_shard.set_clock(NOW_US + (refused[4] - 1) * 1000)
    assert admit(open_shard, "2" * 32)[0] == "QUOTA"
    open_shard.set_clock(NOW_US + refused[4] * 1000)
    assert admit(open_shard, "2" * 32)[0] == "OK"
    assert admit(open_shard, "3" * 32)[0] == "QUOTA"


def test_a_loaded_account_goes_on_counting_its_month(open_shard: LuaShard) -> None:
    load(open_shard, lots={12: 100}, rpmonth=5, month=202609, count=4)
    assert [admit(open_shard, name * 32)[0] for name in "12"] == ["OK", "QUOTA"]
    load(open_shard, 107, lots={13: 100}, rpmonth=5, month=202608, count=5)
    assert admit(open_shard, "3" * 32, account_id=107)[0] == "OK"


def test_a_rate_refusal_holds_until_its_retry_after_and_no_longer(open_shard: LuaShard) -> None:
    load(open_shard, lots={12: 100}, rpm=7)
    assert [admit(open_shard, name * 32, amount=1)[7] for name in "1234567"] == list(
        range(6, -1, -1)
    )
    status, _, _, limit, retry_after_ms = admit(open_shard, "8" * 32)
    assert (status, limit) == ("RATE", 7)
    open_shard.set_clock(NOW_US + (retry_after_ms - 1) * 1000)
    assert admit(open_shard, "8" * 32)[0] == "RATE"
    open_shard.set_clock(NOW_US + retry_after_ms * 1000)
    assert admit(open_shard, "8" * 32)[0] == "OK"


def test_a_clock_that_goes_back_locks_nobody_out(open_shard: LuaShard) -> None:
    load(open_shard, lots={12: 100}, rpm=2)
    for name in "12":
        assert admit(open_shard, name * 32)[0] == "OK"
    open_shard.set_clock(NOW_US - 3_600_000_000)
    assert admit(open_shard, "3" * 32)[0] == "OK"


def test_a_concurrency_limit_counts_running_calls(open_shard: LuaShard) -> None:
    load(open_shard, lots={12: 100}, conc=2)
    outcomes = [admit(open_shard, name * 32)[0] for name in "123"]
    assert outcomes == ["OK", "OK", "CONCURRENCY"]
    assert admit(open_shard, "2" * 32)[0] == "OK"  # a retry is no further call
    settle(open_shard, 1, "1" * 32)
    assert admit(open_shard, "3" * 32)[0] == "OK"


def test_refused_calls_leave_no_trace(open_shard: LuaShard) -> None:
    load(open_shard, lots={12: 5}, rpm=1, rpmonth=1, conc=1)
    before = open_shard.state((7,))
    assert admit(open_shard, amount=6)[0] == "CREDITS"
    assert admit(open_shard, key_id=9)[0] == "LOAD"
    assert open_shard.state((7,)) == before
