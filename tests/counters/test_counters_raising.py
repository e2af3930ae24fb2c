"""Raising holds, asking without holding, settling through tiers: what is sent and answered."""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from gateway.counters import CountersUnavailable
from policies.decision import (
    AccountSuspended,
    Admitted,
    ExpiredFirst,
    HoldGone,
    InsufficientCredits,
    KeyRefused,
    Moved,
    Raised,
    Settled,
    ShardLost,
    SpendCapReached,
    TermsChanged,
)
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from tests.support.faulty_redis import FaultyWire, OwnRedis

CREDITS = 1_000_000
RESULT = b"completed,200,token=30;token.tiers=30,"
BIG = 2**53 - 1


async def raise_to(account: Any, call_id: str, least: int, target: int, **others: Any) -> Any:
    return await account.counters.raise_hold(account.keys, call_id, b"5", least, target, **others)


async def settle(account: Any, call_id: str, steps: bytes, owed: int = 700) -> Any:
    return await account.counters.settle(account.keys, call_id, owed, RESULT, steps=steps)


# Raising.


async def test_a_raised_hold_says_what_it_holds_and_what_is_left(
    account: Any, call_id: str
) -> None:
    await account.admit(call_id)
    assert await raise_to(account, call_id, 1_001, 5_000) == Raised(5_000, 995_000, "12:5000", "")
    assert await raise_to(account, call_id, 2, BIG) == Raised(CREDITS, 0, f"12:{CREDITS}", "")
    assert await raise_to(account, call_id, 0, 0) == Raised(CREDITS, 0, f"12:{CREDITS}", "")
    assert (await account.settle(call_id)).charged == 700
    assert await account.lot() == (CREDITS - 700, 0, 700)


async def test_each_reason_not_to_raise_is_a_value(account: Any, call_id: str) -> None:
    counters, keys = account.counters, account.keys
    await account.admit(call_id)
    assert await raise_to(account, call_id, CREDITS + 9, BIG) == InsufficientCredits(
        CREDITS - 991, CREDITS - 1000, 0
    )
    assert await raise_to(account, uuid.uuid4().hex, 1, 1) == HoldGone()
    await counters.amend(keys, {"rules": "", "status": "suspended"})
    assert await raise_to(account, call_id, 0, 0) == AccountSuspended()
    await counters.amend(keys, {"k:5": -1})
    assert await raise_to(account, call_id, 0, 0) == KeyRefused()
    await counters.close_shard(keys.shard, 2, 1)
    assert isinstance(await raise_to(account, call_id, 0, 0), ShardLost)


async def test_caps_of_account_session_and_route_bound_a_raise(account: Any, call_id: str) -> None:
    counters, keys = account.counters, account.keys
    await counters.amend(keys, {"rules": "cs:9000"})
    rules = b"R2 ct:5000"
    await counters.admit(keys, call_id, b"5", 1000, 60_000, 0, b"1,7,5,2,9,mine", rules, b"mine")
    held = await raise_to(account, call_id, 1, 7000, session="mine", rules=rules)
    assert held == Raised(5000, 995_000, "12:5000", "S.A R2.ct@0")
    assert await raise_to(account, call_id, 5001, 7000, session="mine", rules=rules) == (
        SpendCapReached("route", "total", 5000, 5000, 0)
    )
    assert (await raise_to(account, call_id, 1, 12_000, session="mine")).held == 9000
    assert await raise_to(account, call_id, 9001, 12_000, session="mine") == (
        SpendCapReached("session", "session", 9000, 9000, 0)
    )


async def test_a_raise_whose_reply_was_lost_raises_once(
    wired_account: Any, wire: FaultyWire, call_id: str
) -> None:
    await wired_account.admit(call_id)
    wire.lose_reply_to = call_id.encode()
    assert (await raise_to(wired_account, call_id, 2_000, 3_000)).held == 3_000
    assert wire.losses == 0
    assert await wired_account.lot() == (CREDITS - 3_000, 3_000, 0)


async def test_a_raise_that_stays_uncertain_is_ended_with_its_call(
    own_account: Any, own_redis: OwnRedis, call_id: str
) -> None:
    """The worker knows of the old hold only: Redis knows what was raised."""
    await own_account.admit(call_id)
    own_redis.stop()
    with pytest.raises(CountersUnavailable):
        await raise_to(own_account, call_id, 2_000, 3_000)
    own_redis.resume()

    async def settled() -> bool:
        return isinstance(await own_account.settle(call_id), Settled)

    assert await eventually(settled, unless=(CountersUnavailable,))
    assert await own_account.lot() == (CREDITS - 700, 0, 700)


async def test_calls_that_raise_side_by_side_never_hold_more_than_there_is(account: Any) -> None:
    calls = [uuid.uuid4().hex for _ in range(20)]
    for call_id in calls:
        await account.admit(call_id)
    raises = [
        raise_to(account, call_id, held, held + 30_000)
        for held in (10_000, 20_000, 60_000)
        for call_id in calls
    ]
    decisions = await asyncio.gather(*raises)
    refused = [each for each in decisions if isinstance(each, InsufficientCredits)]
    last = {call_id: await raise_to(account, call_id, 0, 0) for call_id in calls}
    assert refused
    assert sum(each.held for each in last.values()) == CREDITS
    assert await account.lot() == (0, CREDITS, 0)


# Asking.


async def test_asking_says_what_an_admission_would_and_holds_nothing(
    account: Any, call_id: str
) -> None:
    counters, keys = account.counters, account.keys
    asked = await counters.ask(keys, call_id, b"5", 1000)
    assert isinstance(asked, Admitted)
    assert (asked.remaining, asked.allocation) == (CREDITS - 1000, "")
    assert await account.lot() == (CREDITS, 0, 0)
    assert await counters.ask(keys, call_id, b"5", CREDITS + 1) == InsufficientCredits(
        CREDITS + 1, CREDITS, 0
    )
    await counters.amend(keys, {"rules": "cs:10 dp:1500"})
    assert await counters.ask(keys, call_id, b"5", 9) == TermsChanged(1500)
    with_session = await counters.ask(keys, call_id, b"5", 11, b"R2 cd:50", b"mine", 1500)
    assert with_session == SpendCapReached("session", "session", 10, 0, 0)


async def test_asking_in_vain_leaves_nothing_to_void(
    own_account: Any, own_redis: OwnRedis, call_id: str
) -> None:
    own_redis.stop()
    with pytest.raises(CountersUnavailable):
        await own_account.counters.ask(own_account.keys, call_id, b"5", 1000)
    own_redis.resume()

    async def seq() -> bool:
        snapshot = await own_account.counters.inspect(own_account.keys)
        return bool(snapshot.seq == 2 and not snapshot.holds)

    assert await eventually(seq, unless=(CountersUnavailable,))


# Discounts and tiers.


async def test_an_admission_at_another_discount_says_which(account: Any, call_id: str) -> None:
    counters, keys = account.counters, account.keys
    await counters.amend(keys, {"rules": "dp:1500"})
    assert await account.admit(call_id) == TermsChanged(1500)
    call = (keys, call_id, b"5", 850, 60_000, 0, b"1,7,5,2,9,")
    assert await counters.admit(*call, discount=1000) == TermsChanged(1500)
    assert isinstance(await counters.admit(*call, discount=1500), Admitted)
    assert await account.lot() == (CREDITS - 850, 850, 0)
    await counters.amend(keys, {"rules": ""})
    other = (keys, uuid.uuid4().hex, *call[2:])
    assert await counters.admit(*other, b"R2 cd:9000", b"mine", 1500) == TermsChanged(0)


async def test_a_settlement_that_finds_the_account_elsewhere_says_where(
    account: Any, call_id: str
) -> None:
    await account.admit(call_id)
    await account.admit(other := uuid.uuid4().hex)
    assert isinstance(await settle(account, call_id, b"2:token:0:0:30"), Settled)
    assert await settle(account, other, b"2:token:0:9:30 2:page:0:0:1") == Moved((30, 0))
    assert await account.lot() == (CREDITS - 1700, 1000, 700)
    settled = await settle(account, other, b"2:token:30:30:30 2:page:0:0:1", 5)
    assert isinstance(settled, Settled)
    assert await settle(account, other, b"2:token:30:30:30 2:page:0:0:1", 5) == settled
    fields = (await account.counters.inspect(account.keys)).fields
    assert fields["u:2:token"].endswith(":60")


async def test_a_settlement_with_steps_whose_reply_was_lost_moves_once(
    wired_account: Any, wire: FaultyWire, call_id: str
) -> None:
    await wired_account.admit(call_id)
    wire.lose_reply_to = call_id.encode()
    assert isinstance(await settle(wired_account, call_id, b"2:token:0:0:30"), Settled)
    assert wire.losses == 0
    fields = (await wired_account.counters.inspect(wired_account.keys)).fields
    assert fields["u:2:token"].endswith(":30")
    assert await wired_account.lot() == (CREDITS - 700, 0, 700)


async def test_steps_and_a_session_go_together(account: Any, call_id: str) -> None:
    counters, keys = account.counters, account.keys
    await counters.amend(keys, {"rules": "cs:9000"})
    call = (keys, call_id, b"5", 1000, 60_000, 0, b"1,7,5,2,9,mine", b"", b"mine")
    await counters.admit(*call)
    told = (keys, call_id, 700, RESULT, "mine", b"2:token:0:0:30")
    assert isinstance(await counters.settle(*told), Settled)
    spent = await counters.command("HGET", keys.session("mine"), "A")
    assert spent == b"700"


async def test_a_call_that_expired_first_moves_nothing(account: Any, call_id: str) -> None:
    admitted = await account.admit_abandoned(call_id)
    await account.counters.dispatched(account.keys, call_id, admitted.admitted_ms + 1)
    assert isinstance(await account.counters.expire(account.keys, call_id), Settled)
    assert isinstance(await settle(account, call_id, b"2:token:0:0:30"), ExpiredFirst)
    assert "u:2:token" not in (await account.counters.inspect(account.keys)).fields


async def test_tiers_are_exact_however_many_calls_settle_at_once(account: Any) -> None:
    """Each computes again while it is told that it begins elsewhere; no unit is charged twice."""
    calls = [uuid.uuid4().hex for _ in range(30)]
    for call_id in calls:
        await account.admit(call_id)

    def price(position: int) -> int:
        """10 for each of the first 100 units, then 8."""
        return sum(10 if unit < 100 else 8 for unit in range(position, position + 7))

    async def end(call_id: str) -> int:
        position = 0
        while True:
            steps = b"2:token:%d:%d:7" % (position, position)
            outcome = await settle(account, call_id, steps, price(position))
            if isinstance(outcome, Settled):
                return outcome.charged
            (position,) = outcome.positions

    charged = await asyncio.gather(*map(end, calls))
    assert sum(charged) == 100 * 10 + 110 * 8
