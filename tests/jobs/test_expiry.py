"""What is left of lots that are over is taken once and rolled over once, whoever dies when."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from gateway.counters import CountersUnavailable
from gateway.jobs import expiry as expiry_module
from gateway.recovery.carry import Carrier
from policies.settlement import Posting
from tests.support.billing_calendar import Calendar, Died, DiesAfter
from tests.support.deployment import CREDIT

if TYPE_CHECKING:
    from tests.support.deployment import Caller

DAY_MS = 86_400_000


async def plan_lot(calendar: Calendar, caller: Caller) -> int:
    """The lot that the plan gave for the first period."""
    grants = await calendar.ledger.grants(caller.account.account_id)
    return min(grant.grant_id for grant in grants if grant.source == "plan")


async def rolled_over(calendar: Calendar, caller: Caller) -> list[int]:
    """Amounts of the account's rollover lots."""
    grants = await calendar.ledger.grants(caller.account.account_id)
    return [grant.amount_microcredits for grant in grants if grant.source == "rollover"]


async def test_the_rest_of_an_ended_lot_is_taken_in_redis_and_in_postgres(
    calendar: Calendar,
) -> None:
    caller = await calendar.caller("none")
    lot = await plan_lot(calendar, caller)
    await calendar.deployment.call(caller, 30 * CREDIT)
    await calendar.deployment.carry()
    await calendar.end_period(caller)
    assert await calendar.expiry().expire() == (1, 0)
    assert await calendar.lot(caller, lot) == (0, 0, 30 * CREDIT, 70 * CREDIT)
    (grant,) = await calendar.ledger.grants(caller.account.account_id)
    assert grant.expired_microcredits == 70 * CREDIT
    assert await calendar.findings() == []
    assert await calendar.expiry().expire() == (0, 0)


async def test_a_lot_that_runs_keeps_what_it_has(calendar: Calendar) -> None:
    caller = await calendar.caller("none")
    assert await calendar.expiry().expire() == (0, 0)
    assert (await calendar.lot(caller, await plan_lot(calendar, caller)))[0] == 100 * CREDIT


async def test_a_revoked_lot_is_emptied_as_revoked_and_never_rolled_over(
    calendar: Calendar,
) -> None:
    caller = await calendar.caller("all")
    lot = await plan_lot(calendar, caller)
    await calendar.ledger.revoke_grant(lot)
    await calendar.publish(caller.account.account_id)
    assert await calendar.expiry().expire() == (1, 0)
    (grant,) = await calendar.ledger.grants(caller.account.account_id)
    assert (grant.revoked_microcredits, grant.expired_microcredits) == (100 * CREDIT, 0)
    assert await calendar.findings() == []


async def test_an_account_that_redis_does_not_have_is_loaded_first(calendar: Calendar) -> None:
    caller = await calendar.caller("none", loaded=False)
    await calendar.end_period(caller)
    assert await calendar.expiry().expire() == (1, 0)
    lot = await plan_lot(calendar, caller)
    assert await calendar.lot(caller, lot) == (0, 0, 0, 100 * CREDIT)
    assert await calendar.findings() == []


async def test_what_calls_hold_is_taken_when_they_give_it_back(calendar: Calendar) -> None:
    caller = await calendar.caller("none")
    lot = await plan_lot(calendar, caller)
    running = await calendar.deployment.hold(caller, 40 * CREDIT)
    await calendar.end_period(caller)
    job = calendar.expiry()
    assert await job.expire() == (1, 0)
    assert await calendar.lot(caller, lot) == (0, 40 * CREDIT, 0, 60 * CREDIT)
    assert await job.expire() == (0, 0)
    await calendar.deployment.settle(caller, running, 25 * CREDIT)
    await calendar.deployment.carry()
    assert await job.expire() == (1, 0)
    assert await calendar.lot(caller, lot) == (0, 0, 25 * CREDIT, 75 * CREDIT)
    assert await calendar.ledger.lots_to_withdraw(10) == []
    assert await calendar.findings() == []


@pytest.mark.parametrize(
    ("plan", "expected"), [("none", []), ("all", [70 * CREDIT]), ("some", [30 * CREDIT])]
)
async def test_the_rest_is_rolled_over_as_the_plan_says(
    calendar: Calendar, plan: str, expected: list[int]
) -> None:
    caller = await calendar.caller(plan)
    await calendar.deployment.call(caller, 30 * CREDIT)
    await calendar.deployment.carry()
    await calendar.end_period(caller)
    assert await calendar.expiry().expire() == (1, len(expected))
    assert await rolled_over(calendar, caller) == expected
    for _ in range(2):
        assert await calendar.expiry().expire() == (0, 0)
    assert await rolled_over(calendar, caller) == expected
    assert await calendar.findings() == []


async def test_a_rest_that_was_rolled_over_pays_at_once(calendar: Calendar) -> None:
    caller = await calendar.caller("all")
    await calendar.end_period(caller)
    await calendar.expiry().expire()
    await calendar.deployment.call(caller, 90 * CREDIT)  # Redis was told
    assert await calendar.findings() == []


async def test_a_rest_is_rolled_over_for_as_many_periods_as_the_plan_says(
    calendar: Calendar,
) -> None:
    caller = await calendar.caller("all")
    await calendar.end_period(caller)
    assert await calendar.expiry().expire() == (1, 1)
    await calendar.sql(
        "UPDATE grants SET effective_at = now() - interval '2 days',"
        " expires_at = now() - interval '1 s' WHERE source = 'rollover'"
    )
    await calendar.publish(caller.account.account_id)
    assert await calendar.expiry().expire() == (1, 0)
    assert await rolled_over(calendar, caller) == [100 * CREDIT]
    assert await calendar.findings() == []


@pytest.mark.parametrize(
    ("part", "method"),
    [
        ("counters", "load"),
        ("counters", "withdraw"),
        ("carrier", "carry_entry"),
        ("ledger", "rollovers_due"),
        ("ledger", "rollover_lot"),
        ("publish", ""),
    ],
)
async def test_dying_after_any_step_takes_and_gives_nothing_twice(
    calendar: Calendar, part: str, method: str
) -> None:
    caller = await calendar.caller("all", loaded=method != "load")
    await calendar.end_period(caller)
    dying: Any = {
        "counters": calendar.counters,
        "ledger": calendar.ledger,
        "carrier": Carrier(calendar.counters, calendar.ledger),
    }

    async def last_words(account_id: int) -> None:
        await calendar.publish(account_id)
        raise Died

    stand_in = last_words if part == "publish" else DiesAfter(dying[part], method)
    with pytest.raises(Died):
        await calendar.expiry(**{part: stand_in}).expire()

    await calendar.sweep()
    for _ in range(2):
        await calendar.expiry().expire()
    await calendar.telling().tell()

    lot = await plan_lot(calendar, caller)
    assert await calendar.lot(caller, lot) == (0, 0, 0, 100 * CREDIT)
    assert await rolled_over(calendar, caller) == [100 * CREDIT]
    await calendar.deployment.call(caller, 100 * CREDIT)  # Redis knows the new lot, and only it
    await calendar.deployment.carry()
    assert await calendar.findings() == []


async def test_one_who_has_looked_sees_what_another_recorded_and_did_not_live_to_roll_over(
    calendar: Calendar, monkeypatch: pytest.MonkeyPatch
) -> None:
    callers = [await calendar.caller("all", f"account {number}") for number in range(3)]
    job = calendar.expiry()
    assert await job.expire() == (0, 0)
    for caller in callers:
        await calendar.end_period(caller)
    with pytest.raises(Died):
        await calendar.expiry(ledger=DiesAfter(calendar.ledger, "rollovers_due")).expire()
    due, asked = calendar.ledger.rollovers_due, []

    async def noted(*, look_back_ms: int) -> object:
        asked.append(look_back_ms)
        return await due(look_back_ms=look_back_ms, limit=2)

    monkeypatch.setattr(calendar.ledger, "rollovers_due", noted)
    assert await job.expire() == (0, 3)
    assert len(asked) == 3, "page after page"
    assert max(asked) < DAY_MS
    assert await calendar.findings() == []


async def test_any_number_of_nodes_take_once_and_roll_over_once(calendar: Calendar) -> None:
    callers = [await calendar.caller("all", name) for name in ("alice", "bob", "carol")]
    for caller in callers:
        await calendar.end_period(caller)
    rounds = await asyncio.gather(*(calendar.expiry().expire() for _ in range(4)))
    await calendar.sweep()
    await calendar.expiry().expire()
    assert sum(taken for taken, _ in rounds) == len(callers)
    for caller in callers:
        assert await rolled_over(calendar, caller) == [100 * CREDIT]
    assert await calendar.findings() == []


async def test_more_lots_than_a_page_are_all_seen_to_in_a_round(
    calendar: Calendar, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expiry_module, "PAGE_LOTS_MAX", 2)
    for number in range(5):
        await calendar.end_period(await calendar.caller("none", f"account {number}"))
    assert await calendar.expiry().expire() == (5, 0)
    assert await calendar.findings() == []


async def test_lots_with_nothing_left_do_not_end_a_round(
    calendar: Calendar, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expiry_module, "PAGE_LOTS_MAX", 2)
    for number in range(4):
        caller = await calendar.caller("none", f"account {number}")
        if number < 3:
            await calendar.deployment.call(caller, 100 * CREDIT)
            await calendar.deployment.carry()
        await calendar.end_period(caller)
    assert await calendar.expiry().expire() == (1, 0)
    assert await calendar.sql("SELECT count(*) FROM grants WHERE NOT closed") == 0
    assert await calendar.findings() == []


async def test_credits_that_came_back_to_an_ended_lot_are_taken_even_if_redis_was_not_told(
    calendar: Calendar,
) -> None:
    caller = await calendar.caller("none")
    lot = await plan_lot(calendar, caller)
    call_id = await calendar.deployment.call(caller, 30 * CREDIT)
    await calendar.deployment.carry()
    await calendar.end_period(caller)
    await calendar.expiry().expire()
    await calendar.ledger.credit_call(call_id, "late", [Posting(lot, 10 * CREDIT)])
    job = calendar.expiry()
    await job.expire()
    assert await job.expire() == (1, 0)
    assert await calendar.lot(caller, lot) == (0, 0, 30 * CREDIT, 80 * CREDIT)
    assert await calendar.findings() == []


async def test_a_lost_shard_is_handed_on_and_its_lots_wait(calendar: Calendar) -> None:
    caller = await calendar.caller("none")
    await calendar.end_period(caller)
    await calendar.counters.command("DEL", caller.keys.state.meta)
    assert await calendar.expiry().expire() == (0, 0)
    assert calendar.lost_shards.told == [("STALE", caller.keys.shard)]
    assert len(await calendar.ledger.lots_to_withdraw(10)) == 1


async def test_a_shard_that_does_not_answer_keeps_no_other_waiting(calendar: Calendar) -> None:
    first = await calendar.caller("none", "first")
    await calendar.end_period(first)
    await calendar.end_period(await calendar.caller("none", "second"))

    class Deaf(DiesAfter):
        """Does not answer for the first account."""

        def __getattr__(self, name: str) -> Any:
            if name != "withdraw":
                return super().__getattr__(name)

            async def withdraw(keys: Any, *arguments: Any, **options: Any) -> Any:
                if keys.account_id == first.account.account_id:
                    raise CountersUnavailable("away")
                return await calendar.counters.withdraw(keys, *arguments, **options)

            return withdraw

    with pytest.raises(CountersUnavailable):
        await calendar.expiry(counters=Deaf(calendar.counters, "")).expire()
    (left,) = await calendar.ledger.lots_to_withdraw(10)
    assert left.account_id == first.account.account_id
