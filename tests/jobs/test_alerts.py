"""Crossing a threshold or the low mark is recorded once, however many look and how often."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from gateway.jobs.alerts import Alerts
from tests.support.deployment import CREDIT

if TYPE_CHECKING:
    from tests.support.billing_calendar import Calendar
    from tests.support.deployment import Caller


async def spend(calendar: Calendar, caller: Caller, microcredits: int) -> None:
    await calendar.deployment.call(caller, microcredits)
    await calendar.deployment.carry()


async def kinds(calendar: Calendar, caller: Caller) -> list[tuple[str, int | None]]:
    """Kind, and percentage if it has one, of every event of the account."""
    events = await calendar.ledger.events(caller.account.account_id)
    return [(event.kind, event.detail.get("percent")) for event in events]


async def test_each_threshold_is_recorded_when_it_is_crossed_and_never_again(
    calendar: Calendar,
) -> None:
    caller = await calendar.caller("none")
    alerts = Alerts(calendar.ledger)
    assert await alerts.detect() == []
    for spent, expected in ((69, []), (1, [70]), (19, []), (1, [90]), (9, []), (1, [100])):
        await spend(calendar, caller, spent * CREDIT)
        assert [event.detail["percent"] for event in await alerts.detect()] == expected
        assert await alerts.detect() == []
    assert await kinds(calendar, caller) == [("threshold", each) for each in (70, 90, 100)]


async def test_a_call_that_crosses_all_thresholds_is_three_events(calendar: Calendar) -> None:
    caller = await calendar.caller("none")
    await spend(calendar, caller, 100 * CREDIT)
    await Alerts(calendar.ledger).detect()
    assert sorted(await kinds(calendar, caller)) == [
        ("threshold", 70),
        ("threshold", 90),
        ("threshold", 100),
    ]


async def test_a_new_period_begins_without_crossings(calendar: Calendar) -> None:
    caller = await calendar.caller("none")
    alerts = Alerts(calendar.ledger)
    await spend(calendar, caller, 75 * CREDIT)
    await calendar.end_period(caller)
    assert len(await alerts.detect()) == 1
    await calendar.renewal().renew()
    await calendar.expiry().expire()
    assert await alerts.detect() == []
    await spend(calendar, caller, 75 * CREDIT)
    (event,) = await alerts.detect()
    assert event.detail["percent"] == 70


async def test_a_crossing_is_recorded_also_if_its_calls_settle_after_the_period(
    calendar: Calendar,
) -> None:
    caller = await calendar.caller("none")
    running = await calendar.deployment.hold(caller, 75 * CREDIT)
    end_ms = await calendar.end_period(caller)
    await calendar.renewal().renew()
    assert await Alerts(calendar.ledger).detect() == []
    await calendar.deployment.settle(caller, running, 75 * CREDIT)
    await calendar.deployment.carry()
    (event,) = await Alerts(calendar.ledger).detect()
    assert (event.detail["percent"], event.detail["period_end_ms"]) == (70, end_ms)
    assert await Alerts(calendar.ledger).detect() == []


async def test_what_is_given_ahead_does_not_hide_a_crossing_of_this_period(
    calendar: Calendar,
) -> None:
    caller = await calendar.caller("none")
    await calendar.end_period(caller, 1_800)
    await calendar.renewal().renew()
    await spend(calendar, caller, 75 * CREDIT)
    (event,) = await Alerts(calendar.ledger).detect()
    assert event.detail["percent"] == 70


async def test_any_number_of_nodes_record_a_crossing_once(calendar: Calendar) -> None:
    callers = [await calendar.caller("low", name) for name in ("alice", "bob", "carol")]
    for caller in callers:
        await spend(calendar, caller, 95 * CREDIT)
    rounds = await asyncio.gather(*(Alerts(calendar.ledger).detect() for _ in range(4)))
    expected = [("low_credits", None), ("threshold", 70), ("threshold", 90)]
    for caller in callers:
        assert sorted(await kinds(calendar, caller), key=str) == expected
    assert sum(map(len, rounds)) == len(callers) * len(expected)


async def test_low_credits_are_recorded_once_per_fall(calendar: Calendar) -> None:
    caller = await calendar.caller("low")
    alerts = Alerts(calendar.ledger)

    async def falls() -> int:
        events = [event for event in await alerts.detect() if event.kind == "low_credits"]
        return len(events)

    await spend(calendar, caller, 79 * CREDIT)
    assert await falls() == 0
    await spend(calendar, caller, 2 * CREDIT)
    assert (await falls(), await falls()) == (1, 0)
    account_id = caller.account.account_id
    await calendar.ledger.add_grant(account_id, 10 * CREDIT, priority=0)
    await calendar.publish(account_id)
    assert await falls() == 0  # it rose
    await spend(calendar, caller, 10 * CREDIT)
    assert (await falls(), await falls()) == (1, 0)
