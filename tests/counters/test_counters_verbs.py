"""Each verb of `Counters` on a real Redis: what is sent, and what its answers become."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import pytest

from gateway.counters import CommandRefused, Counters
from policies.decision import (
    AccountSuspended,
    Admitted,
    AlreadySettled,
    ConcurrencyLimited,
    HoldGone,
    InsufficientCredits,
    KeyRefused,
    LeaseRunning,
    NotLoaded,
    QuotaExceeded,
    RateLimited,
    Settled,
    ShardLost,
    Voided,
)
from policies.settlement import Settlement

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.faulty_redis import OwnRedis

SETTLED_CALL = Settlement(
    "", 0, None, 1, 7, 5, 2, 9, 0, 0, "completed", 200, "", "", 1000, 700, 0, ()
)


def new_id() -> str:
    return uuid.uuid4().hex


async def test_an_admitted_call_says_what_it_holds_and_what_is_left(
    account: Any, call_id: str
) -> None:
    admitted = await account.admit(call_id)
    assert isinstance(admitted, Admitted)
    assert admitted[:5] == (call_id, 1, 2, 999_000, "12:1000")
    assert (admitted.rpm_limit, admitted.rpm_remaining) == (0, 0)
    assert await account.lot() == (999_000, 1000, 0)


async def test_a_settled_call_says_what_it_cost_and_when(account: Any, call_id: str) -> None:
    admitted = await account.admit(call_id)
    settled = await account.settle(call_id)
    assert isinstance(settled, Settled)
    assert settled[:4] == (700, 0, 999_300, "12:700")
    assert settled.admitted_ms == admitted.admitted_ms <= settled.settled_ms
    assert settled.outbox_id.endswith("-0")
    assert await account.settle(call_id, owed=5) == settled
    assert await account.lot() == (999_300, 0, 700)


async def test_a_voided_call_costs_nothing(account: Any, call_id: str) -> None:
    void = account.counters.void
    await account.admit(call_id)
    assert await void(account.keys, call_id) == Voided(1_000_000)
    assert await void(account.keys, call_id) == HoldGone()
    assert await account.settle(call_id) == HoldGone()
    await account.admit(settled := new_id())
    await account.settle(settled)
    assert await void(account.keys, settled) == AlreadySettled()
    assert await account.admit(settled) == AlreadySettled()


async def test_only_a_lease_that_is_over_expires_at_its_floor(account: Any, call_id: str) -> None:
    counters, keys = account.counters, account.keys
    await account.admit(call_id)
    assert await counters.expire(keys, call_id) == LeaseRunning()
    assert await counters.expire(keys, new_id()) == HoldGone()
    await account.admit(late := new_id(), lease_ms=0)
    expired = await counters.expire(keys, late)
    assert isinstance(expired, Settled)
    assert expired.charged == 100


@pytest.mark.parametrize(
    ("fields", "fits"),
    [
        ({"k:5": -1}, lambda d: d == KeyRefused()),
        ({"status": "suspended"}, lambda d: d == AccountSuspended()),
        (
            {"rpm": 1},
            lambda d: isinstance(d, RateLimited) and d.limit == 1 and d.retry_after_ms > 0,
        ),
        ({"rpmonth": 1}, lambda d: isinstance(d, QuotaExceeded) and d.limit == 1),
        ({"conc": 1}, lambda d: d == ConcurrencyLimited(1)),
        ({"a:12": 1500}, lambda d: d == InsufficientCredits(1000, 500, 1000) and d.in_flight),
        ({"lots": ""}, lambda d: d == InsufficientCredits(1000, 0, 0) and not d.in_flight),
    ],
)
async def test_a_denial_is_the_value_that_says_why(
    account: Any, fields: dict[str, str | int], fits: Callable[[Any], bool]
) -> None:
    account.keys = account.counters.keys(8)
    await account.seed(**fields)
    await account.admit(new_id())
    assert fits(await account.admit(new_id()))


async def test_an_account_nobody_loaded_is_not_loaded_and_a_new_shard_is_lost(
    account: Any, call_id: str
) -> None:
    counters = account.counters
    known = account.keys.shard
    sibling = next(i for i in range(8, 9999) if counters.keys(i).shard == known)
    foreign = next(i for i in range(8, 9999) if counters.keys(i).shard != known)
    account.keys = counters.keys(sibling)
    assert await account.admit(call_id) == NotLoaded(1, 1)
    account.keys = counters.keys(foreign)
    assert not counters.knows(account.keys.shard)
    assert await account.admit(call_id) == ShardLost("STALE", 0, 0)
    assert await account.settle(call_id) == ShardLost("STALE", 0, 0)
    assert await counters.void(account.keys, call_id) == ShardLost("STALE", 0, 0)
    assert await counters.expire(account.keys, call_id) == ShardLost("STALE", 0, 0)


async def test_an_account_is_loaded_once_unless_forced(account: Any, call_id: str) -> None:
    counters, keys = account.counters, account.keys
    fields = {"status": "active", "rpm": 0, "rpmonth": 0, "conc": 0, "lots": "12"}
    fields |= {"a:12": 5, "s:12": 0, "e:12": 0, "f:12": 0}
    assert not await counters.load(keys, fields)
    assert await account.lot() == (1_000_000, 0, 0)
    assert await counters.load(keys, fields, force=True)
    assert await account.lot() == (5, 0, 0)


async def test_what_was_read_before_an_amendment_is_not_loaded(account: Any, call_id: str) -> None:
    counters = account.counters
    sibling = next(i for i in range(8, 9999) if counters.keys(i).shard == account.keys.shard)
    account.keys = keys = counters.keys(sibling)
    asked = await account.admit(call_id)
    assert isinstance(asked, NotLoaded)
    assert not await counters.amend(keys, {"k:5": -1})
    fields = {"status": "active", "rpm": 0, "rpmonth": 0, "conc": 0, "lots": "", "k:5": 0}
    assert not await counters.load(keys, fields, asked)
    again = await account.admit(call_id)
    assert await counters.load(keys, fields | {"k:5": -1}, again)
    assert await account.admit(call_id) == KeyRefused()


async def test_a_grant_arrives_once(account: Any) -> None:
    counters, keys = account.counters, account.keys
    lot = {"amount": 50, "expires_ms": 0, "effective_ms": 0, "lots": "13 12"}
    assert await counters.grant(keys, 13, **lot)
    assert not await counters.grant(keys, 13, **lot)
    fields = (await counters.inspect(keys)).fields
    assert (fields["lots"], fields["a:13"], fields["h:13"]) == ("13 12", "50", "0")


async def test_amendments_work_at_once(account: Any, call_id: str) -> None:
    assert await account.counters.amend(account.keys, {"k:5": -1})
    assert await account.admit(call_id) == KeyRefused()


async def test_acknowledged_settlements_are_forgotten_and_others_stay(
    account: Any, call_id: str
) -> None:
    counters, keys = account.counters, account.keys
    kept, running = new_id(), new_id()
    for each in (call_id, kept, running):
        await account.admit(each)
    outcomes = {each: await account.settle(each) for each in (call_id, kept)}
    rows = [
        SETTLED_CALL._replace(
            call_id=call_id, shard=keys.shard, outbox_id=outcomes[call_id].outbox_id
        ),
        SETTLED_CALL._replace(call_id=running, shard=keys.shard, outbox_id=None),
    ]
    await counters.acknowledge(rows)
    await counters.acknowledge(rows)
    page = await counters.outbox_page(keys.shard, 0, 10)
    assert [fields[b"i"].decode() for _, fields in page] == [kept]
    assert await account.settle(call_id) == HoldGone()
    assert await account.settle(kept) == outcomes[kept]
    assert list((await counters.inspect(keys)).holds) == [running]


async def test_the_outbox_is_read_page_by_page_oldest_first(account: Any) -> None:
    counters, keys = account.counters, account.keys
    ids = [new_id() for _ in range(5)]
    for each in ids:
        await account.admit(each)
        await account.settle(each)
    first = await counters.outbox_page(keys.shard, 0, 3)
    rest = await counters.outbox_page(keys.shard, 0, 3, after=first[-1][0])
    assert [fields[b"i"].decode() for _, fields in first + rest] == ids
    assert first[0][1][b"x"] == b"1,7,5,2,9"
    assert first[0][1][b"r"] == b"completed,200,,"
    assert await counters.outbox_page(keys.shard, 60_000, 10) == []


async def test_overdue_holds_are_found_and_leases_without_a_hold_go(
    account: Any, call_id: str
) -> None:
    counters, keys = account.counters, account.keys
    await account.admit(call_id, lease_ms=0)
    await account.admit(new_id())
    leases = f"tk:{{s{keys.shard:03d}}}:leases"
    await counters.command("ZADD", leases, 1, "orphan")
    assert await counters.overdue(keys.shard, 10) == [(call_id, 7)]
    assert await counters.overdue(keys.shard, 10) == [(call_id, 7)]
    assert await counters.command("ZSCORE", leases, "orphan") is None


async def test_a_snapshot_has_the_account_and_its_live_holds(account: Any, call_id: str) -> None:
    await account.admit(call_id)
    await account.admit(ended := new_id())
    await account.settle(ended)
    epoch, seq, fields, holds = await account.counters.inspect(account.keys)
    assert (epoch, seq, fields["h:12"]) == (1, 4, "1000")
    assert list(holds) == [call_id]
    assert holds[call_id].startswith("h|7|")


async def test_the_server_says_what_start_up_checks_ask(account: Any) -> None:
    facts = await account.counters.server_facts()
    assert facts.version.startswith("6.2")
    assert (facts.maxmemory_policy, facts.aof_enabled) == ("noeviction", True)


async def test_a_refused_command_says_so_in_redis_own_words(account: Any) -> None:
    with pytest.raises(CommandRefused, match=r"^ERR unknown command"):
        await account.counters.command("NOSUCH")


async def test_at_maxmemory_new_calls_are_refused_and_running_ones_end(
    own_account: Any, own_redis: OwnRedis, call_id: str
) -> None:
    await own_account.admit(call_id)
    await own_account.admit(voided := new_id())
    await own_redis.client.config_set("maxmemory", 1)
    with pytest.raises(CommandRefused, match="OOM"):
        await own_account.admit(new_id())
    assert isinstance(await own_account.settle(call_id), Settled)
    assert isinstance(await own_account.counters.void(own_account.keys, voided), Voided)
    assert await own_account.lot() == (999_300, 0, 700)


async def test_any_bytes_in_any_argument_stay_in_it(account: Any) -> None:
    odd = "\r\n$3\r\nÄ" + new_id()
    admitted = await account.counters.admit(account.keys, odd, b"5", 9, 1000, 0, b"a\r\nb")
    assert isinstance(admitted, Admitted)
    await account.counters.settle(account.keys, odd, 9, b"c\r\n\xff")
    ((_, fields),) = await account.counters.outbox_page(account.keys.shard, 0, 9)
    assert (fields[b"i"], fields[b"x"], fields[b"r"]) == (odd.encode(), b"a\r\nb", b"c\r\n\xff")


async def test_the_largest_amounts_are_exact(account: Any, call_id: str) -> None:
    most = 2**53 - 1
    account.keys = account.counters.keys(9)
    await account.seed(**{"a:12": most})
    admitted = await account.admit(call_id, most - 1)
    assert (admitted.remaining, admitted.allocation) == (1, f"12:{most - 1}")
    settled = await account.settle(call_id, most - 2)
    assert (settled.charged, settled.remaining) == (most - 2, 2)


async def test_the_same_on_redis_7(redis7_url: str, call_id: str) -> None:
    async with Counters(redis7_url, shards=64) as counters:
        keys = counters.keys(7_007_007)  # the server is shared
        await counters.open_shard(keys.shard, 1)
        asked = await counters.admit(keys, call_id, b"5", 10, 1000, 1, b"x")
        assert isinstance(asked, NotLoaded)
        fields: dict[str, str | int] = {"status": "active", "rpm": 5, "rpmonth": 0, "conc": 0}
        fields |= {"lots": "12", "a:12": 50, "s:12": 0, "e:12": 0, "f:12": 0, "k:5": 0}
        assert await counters.load(keys, fields, asked)
        admitted = await counters.admit(keys, call_id, b"5", 10, 1000, 1, b"x")
        assert isinstance(admitted, Admitted)
        assert (admitted.remaining, admitted.rpm_limit, admitted.rpm_remaining) == (40, 5, 4)
        settled = await counters.settle(keys, call_id, 7, b"completed,200,,")
        assert isinstance(settled, Settled)
        assert settled.charged == 7
