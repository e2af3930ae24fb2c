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
    ExpiredFirst,
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
    Withdrawn,
)
from policies.settlement import LateSettlement, LedgerChange, Settlement, parse_entry
from tests.support.shards import outbox_of, state

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.faulty_redis import OwnRedis

SETTLED_CALL = Settlement(
    "", 0, None, 1, 7, 5, 2, 9, 0, 0, "completed", 200, "", "", "", 1000, 700, 0, ()
)

LATE = LateSettlement(
    "", 0, 1, 7, 5, 2, 9, "", 123, 456, "completed", 200, "token=3", "", 1000, 700
)


def new_id() -> str:
    return uuid.uuid4().hex


async def test_an_admitted_call_says_what_it_holds_and_what_is_left(
    account: Any, call_id: str
) -> None:
    admitted = await account.admit(call_id)
    assert isinstance(admitted, Admitted)
    assert admitted[:5] == (call_id, 1, 3, 999_000, "12:1000")
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


async def test_only_a_lease_that_is_over_expires_as_its_stage_says(
    account: Any, call_id: str
) -> None:
    counters, keys = account.counters, account.keys
    await account.admit(call_id)
    assert await counters.expire(keys, call_id) == LeaseRunning()
    assert await counters.expire(keys, new_id()) == HoldGone()
    await account.admit_abandoned(unsent := new_id())
    assert await counters.expire(keys, unsent) == Voided(999_000)
    admitted = await account.admit_abandoned(sent := new_id())
    await counters.dispatched(keys, sent, admitted.admitted_ms + 1)
    expired = await counters.expire(keys, sent)
    assert isinstance(expired, Settled)
    assert expired.charged == 100
    assert await account.settle(sent, owed=700) == ExpiredFirst(expired)
    (row,) = await outbox_of(counters, keys.shard)
    assert (row.ending, row.flags) == ("unknown", "expired")


async def test_a_renewed_lease_carries_what_is_due_by_now(account: Any, call_id: str) -> None:
    counters, keys = account.counters, account.keys
    admitted = await account.admit_abandoned(call_id)
    await counters.dispatched(keys, call_id, admitted.admitted_ms + 1)
    gone = new_id()
    checkpoints = [(call_id, 1, 350, "token=250"), (gone, 0, None, "")]
    assert await counters.extend(keys.shard, 60_000, checkpoints) == [gone]
    assert await counters.expire(keys, call_id) == LeaseRunning()
    # A mark that comes behind the renewal does not take the lease back.
    await counters.dispatched(keys, call_id, admitted.admitted_ms + 1)
    assert await counters.expire(keys, call_id) == LeaseRunning()
    ((text, stage),) = (await counters.live_holds(keys.shard)).values()
    assert (text.split("|")[4:6], stage) == (["350", "token=250"], 1)


async def test_what_ended_without_redis_is_charged_once_with_and_without_its_hold(
    account: Any, call_id: str
) -> None:
    counters, keys = account.counters, account.keys
    await account.admit(call_id)
    of_hold = LATE._replace(call_id=call_id, shard=keys.shard)
    settled = await counters.late(keys, of_hold)
    assert isinstance(settled, Settled)
    assert settled == await counters.late(keys, of_hold) == await account.settle(call_id)
    assert await account.lot() == (999_300, 0, 700)
    lost = of_hold._replace(call_id=new_id(), owed_microcredits=2_000_000)
    charged = await counters.late(keys, lost)
    assert isinstance(charged, Settled)
    assert (charged.charged, charged.uncollected) == (999_300, 1_000_700)
    assert (await counters.inspect(keys)).fields["running"] == "0"
    rows = await outbox_of(counters, keys.shard)
    assert [row.call_id for row in rows] == [call_id, lost.call_id]
    assert (rows[1].held_microcredits, rows[1].admitted_ms) == (1000, 123)


async def test_withdrawing_takes_what_is_available_once(account: Any, call_id: str) -> None:
    counters, keys = account.counters, account.keys
    await account.admit(call_id)
    change = new_id()

    def take() -> Any:
        return counters.withdraw(keys, change, "expire", 12, None, platform_id=1)

    taken = await take()
    assert isinstance(taken, Withdrawn)
    assert taken[:3] == (999_000, 0, "12:999000")
    assert await take() == taken
    assert await account.lot() == (0, 1000, 0)
    assert (await counters.inspect(keys)).fields["w:12"] == "999000"
    (row,) = await outbox_of(counters, keys.shard)
    assert isinstance(row, LedgerChange)
    assert (row.change_id, row.kind, row.postings) == (change, "expire", ((12, 999_000),))
    await counters.acknowledge([row])
    assert await outbox_of(counters, keys.shard) == []
    again = await take()
    assert (again.taken, again.outbox_id) == (0, "")


async def test_a_closed_shard_answers_nobody_but_its_rebuilder(account: Any, call_id: str) -> None:
    counters, keys = account.counters, account.keys
    await account.admit(call_id)
    assert not await counters.close_shard(keys.shard, 3, 2)
    assert await counters.close_shard(keys.shard, 2, 1)
    assert await counters.meta(keys.shard) == (2, None)
    closed = ShardLost("CLOSED", 2, 0)
    assert await account.admit(new_id()) == closed
    assert await account.settle(call_id) == closed
    assert await counters.void(keys, call_id) == closed
    assert not await counters.open_shard(keys.shard, 1)
    ((text, stage),) = (await counters.old_holds(keys.shard)).values()
    assert await counters.restore(keys.shard, 2, "17", 60_000, [(call_id, text, stage)])
    assert await counters.reported(keys.shard) == set()
    assert await counters.restore(keys.shard, 2, "17", 60_000, [])
    assert await counters.reported(keys.shard) == {"17"}
    counters.adopt(keys.shard, 2)
    fields = state(999_000) | {"h:12": 1000, "running": 1}
    assert await counters.load(keys, fields)
    assert await counters.open_shard(keys.shard, 2)
    assert not await counters.open_shard(keys.shard, 2)
    assert not await counters.restore(keys.shard, 2, "17", 60_000, [(call_id, text, stage)])
    assert await counters.old_holds(keys.shard) == {}
    assert isinstance(await account.settle(call_id), Settled)
    assert await account.lot() == (999_300, 0, 700)


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
        ({"conc": 1}, lambda d: d == ConcurrencyLimited(1, "account")),
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
    assert await account.admit(call_id) == NotLoaded(1, 2)
    account.keys = counters.keys(foreign)
    assert not counters.knows(account.keys.shard)
    assert await account.admit(call_id) == ShardLost("STALE", 0, 0)
    assert await account.settle(call_id) == ShardLost("STALE", 0, 0)
    assert await counters.void(account.keys, call_id) == ShardLost("STALE", 0, 0)
    assert await counters.expire(account.keys, call_id) == ShardLost("STALE", 0, 0)


async def test_an_account_is_loaded_once_unless_forced(account: Any, call_id: str) -> None:
    counters, keys = account.counters, account.keys
    fields = state(5)
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
    fields = state(0, lots="")
    assert not await counters.load(keys, fields, asked)
    again = await account.admit(call_id)
    assert await counters.load(keys, fields | {"k:5": -1}, again)
    assert await account.admit(call_id) == KeyRefused()


async def test_a_lot_is_told_absolutely_and_only_grows(account: Any) -> None:
    counters, keys = account.counters, account.keys
    times = {"expires_ms": 0, "effective_ms": 0}

    async def tell(total: int) -> bool:
        lot = {"total": total, "settled": 0, "withdrawn": 0, "lots": "13 12"}
        return bool(await counters.credit(keys, 13, **lot, **times))

    async def lot() -> tuple[str, ...]:
        fields = (await counters.inspect(keys)).fields
        return tuple(fields[name] for name in ("lots", "a:13", "h:13", "s:13", "w:13"))

    assert await tell(500)
    assert not await tell(500)
    assert await lot() == ("13 12", "500", "0", "0", "0")
    await account.admit(new_id(), 300)
    assert await tell(800)
    assert not await tell(500)
    assert await lot() == ("13 12", "500", "300", "0", "0")


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
    ]
    await counters.acknowledge(rows)
    await counters.acknowledge(rows)
    assert [row.call_id for row in await outbox_of(counters, keys.shard)] == [kept]
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
    rows = [parse_entry(keys.shard, *entry) for entry in first + rest]
    assert [row.call_id for row in rows] == ids
    assert await counters.outbox_page(keys.shard, 60_000, 10) == []


async def test_the_lease_of_a_hold_that_was_put_back_stays(
    account: Any, call_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its shard was closed when it was looked for, and filled again before its lease went."""
    counters, keys = account.counters, account.keys
    await account.admit_abandoned(call_id)
    holds = keys.state.holds
    text = await counters.command("HGET", holds, call_id)
    await counters.command("HDEL", holds, call_id)
    ask = counters._ask

    async def put_back(link: Any, *parts: Any) -> Any:
        reply = await ask(link, *parts)
        if parts[0] == "HMGET" and parts[1] == holds:
            await ask(link, "HSET", holds, call_id, text)
        return reply

    with monkeypatch.context() as patch:
        patch.setattr(counters, "_ask", put_back)
        assert await counters.overdue(keys.shard, 10) == []
    assert [found.call_id for found in await counters.overdue(keys.shard, 10)] == [call_id]


async def test_overdue_holds_are_found_and_leases_without_a_hold_go(
    account: Any, call_id: str
) -> None:
    counters, keys = account.counters, account.keys
    await account.admit_abandoned(call_id)
    await account.admit(new_id())
    leases = f"tk:{{s{keys.shard:03d}}}:leases"
    await counters.command("ZADD", leases, 1, "orphan")
    assert await counters.overdue(keys.shard, 10) == [(call_id, 7, "")]
    assert await counters.overdue(keys.shard, 10) == [(call_id, 7, "")]
    assert await counters.command("ZSCORE", leases, "orphan") is None


async def test_a_snapshot_has_the_account_and_its_live_holds(account: Any, call_id: str) -> None:
    await account.admit(call_id)
    await account.admit(ended := new_id())
    await account.settle(ended)
    epoch, seq, fields, holds = await account.counters.inspect(account.keys)
    assert (epoch, seq, fields["h:12"]) == (1, 5, "1000")
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
        if await counters.close_shard(keys.shard, 1, 0):
            await counters.open_shard(keys.shard, 1)
        asked = await counters.admit(keys, call_id, b"5", 10, 1000, 1, b"1,7,5,2,9,")
        assert isinstance(asked, NotLoaded)
        assert await counters.load(keys, state(50) | {"rpm": 5}, asked)
        admitted = await counters.admit(keys, call_id, b"5", 10, 1000, 1, b"1,7,5,2,9,")
        assert isinstance(admitted, Admitted)
        assert (admitted.remaining, admitted.rpm_limit, admitted.rpm_remaining) == (40, 5, 4)
        settled = await counters.settle(keys, call_id, 7, b"completed,200,,")
        assert isinstance(settled, Settled)
        assert settled.charged == 7
