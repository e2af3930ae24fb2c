"""Each period is begun once, whoever runs the job; calls notice nothing but their new credits."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from gateway.counters import CountersUnavailable
from policies.decision import Admitted, InsufficientCredits
from tests.support.billing_calendar import Calendar, Died, DiesAfter
from tests.support.deployment import CREDIT

if TYPE_CHECKING:
    from tests.support.deployment import Caller

SOON_S = 1_800
DAY_MS = 86_400_000


async def period_end_ms(calendar: Calendar, caller: Caller) -> int:
    return int(
        await calendar.sql(
            "SELECT to_ms(period_end_at) FROM accounts WHERE id = $1", caller.account.account_id
        )
    )


async def given(calendar: Calendar, caller: Caller) -> list[tuple[str, int, int]]:
    """Source, begin and end of the account's lots, in the order in which they were made."""
    grants = await calendar.ledger.grants(caller.account.account_id)
    ordered = sorted(grants, key=lambda grant: grant.grant_id)
    return [(grant.source, grant.effective_ms, grant.expires_ms) for grant in ordered]


async def test_a_period_in_its_middle_is_left_alone(calendar: Calendar) -> None:
    caller = await calendar.caller("over")
    assert await calendar.renewal().renew() == (0, 0)
    assert await calendar.sources(caller) == ["plan", "overage"]


async def test_lots_of_the_next_period_are_in_redis_before_it_begins_and_pay_from_then(
    calendar: Calendar,
) -> None:
    caller = await calendar.caller("over")
    end_ms = await calendar.end_period(caller, SOON_S)
    assert await calendar.renewal().renew() == (1, 0)
    lots = await given(calendar, caller)
    assert [(source, begin) for source, begin, _ in lots[2:]] == [
        ("plan", end_ms),
        ("overage", end_ms),
    ]
    assert all(end > end_ms for _, _, end in lots[2:])
    fields = await calendar.fields(caller)
    known = [token.removesuffix("o") for token in fields["lots"].split()]
    assert sorted(int(fields[f"f:{lot}"]) for lot in known)[2:] == [end_ms, end_ms]
    assert await period_end_ms(calendar, caller) == end_ms  # the period itself moves in its time
    # Nothing of it can be spent early: 100 credits and 50 of overage are all there is.
    denied = await calendar.deployment.admit(caller, 150 * CREDIT + 1)
    assert isinstance(denied, InsufficientCredits)
    assert await calendar.renewal().renew() == (0, 0)
    assert await calendar.findings() == []


async def test_a_period_that_is_over_is_followed_by_the_next(calendar: Calendar) -> None:
    caller = await calendar.caller("over")
    end_ms = await calendar.end_period(caller)
    assert await calendar.renewal().renew() == (0, 1)
    assert await calendar.sources(caller) == ["plan", "overage", "plan", "overage"]
    assert 28 * DAY_MS <= await period_end_ms(calendar, caller) - end_ms <= 31 * DAY_MS
    await calendar.expiry().expire()
    assert isinstance(await calendar.deployment.admit(caller, 150 * CREDIT), Admitted)
    assert await calendar.renewal().renew() == (0, 0)
    assert await calendar.findings() == []


async def test_what_was_given_ahead_is_not_given_again_when_the_period_begins(
    calendar: Calendar,
) -> None:
    caller = await calendar.caller("none")
    await calendar.end_period(caller, SOON_S)
    assert await calendar.renewal().renew() == (1, 0)
    await calendar.sql(
        "UPDATE accounts SET period_anchor_at = period_anchor_at - interval '2 hours',"
        " period_end_at = period_end_at - interval '2 hours'"
    )
    end_ms = await period_end_ms(calendar, caller)
    await calendar.sql(
        "UPDATE grants SET effective_at = from_ms($1), business_key = 'plan:' || account_id || ':'"
        " || $1 WHERE effective_at > now()",
        end_ms,
    )
    assert await calendar.renewal().renew() == (0, 1)
    assert await calendar.sources(caller) == ["plan", "plan"]


async def test_after_a_long_downtime_each_past_period_is_given_once_and_only_the_last_pays(
    calendar: Calendar,
) -> None:
    caller = await calendar.caller("none")
    end_ms = await calendar.end_period(caller, -100 * 86_400)
    assert await calendar.renewal().renew() == (0, 4)
    lots = await given(calendar, caller)
    begins = [begin for _, begin, _ in lots]
    assert begins[1] == end_ms
    assert len(set(begins)) == len(begins) == 5
    assert [end for _, _, end in lots][:-1] == begins[1:]  # no gap, no overlap
    assert await calendar.renewal().renew() == (0, 0)
    await calendar.expiry().expire()
    assert isinstance(await calendar.deployment.admit(caller, 100 * CREDIT), Admitted)
    assert isinstance(await calendar.deployment.admit(caller, 1), InsufficientCredits)
    assert await calendar.findings() == []


async def test_any_number_of_nodes_give_each_period_once(calendar: Calendar) -> None:
    callers = [await calendar.caller("over", name) for name in ("alice", "bob", "carol")]
    for caller, seconds in zip(callers, (SOON_S, -1, -40 * 86_400), strict=True):
        await calendar.end_period(caller, seconds)
    await asyncio.gather(*(calendar.renewal().renew() for _ in range(5)))
    assert [len(await calendar.sources(caller)) for caller in callers] == [4, 4, 6]
    await calendar.expiry().expire()
    assert await calendar.findings() == []


@pytest.mark.parametrize("seconds", [SOON_S, -1])
@pytest.mark.parametrize("method", ["prepare_period", "renew", "publish"])
async def test_dying_after_any_step_gives_each_period_once_and_redis_hears_of_it(
    calendar: Calendar, method: str, seconds: int
) -> None:
    caller = await calendar.caller("over")
    await calendar.end_period(caller, seconds)

    async def last_words(account_id: int) -> None:
        await calendar.publish(account_id)
        raise Died

    parts: dict[str, Any] = {"ledger": DiesAfter(calendar.ledger, method)}
    if method == "publish":
        parts = {"publish": last_words}
    if (method, seconds) == ("renew", SOON_S):
        assert await calendar.renewal(**parts).renew() == (1, 0)  # nothing is over yet
    else:
        with pytest.raises(Died):
            await calendar.renewal(**parts).renew()

    await calendar.renewal().renew()
    await calendar.telling().tell()
    await calendar.expiry().expire()
    assert await calendar.sources(caller) == ["plan", "overage", "plan", "overage"]
    assert await calendar.findings() == []  # it would name a lot that Redis does not know


async def test_an_account_that_is_refused_keeps_nobody_waiting(calendar: Calendar) -> None:
    broken, sound = [await calendar.caller("none", name) for name in ("broken", "sound")]
    for caller in (broken, sound):
        await calendar.end_period(caller)
    await calendar.sql(
        'UPDATE plans SET spec = spec || \'{"credits_microcredits": "9007199254740992"}\''
        " WHERE slug = 'low'"
    )
    await calendar.sql(
        "UPDATE accounts SET plan_id = (SELECT id FROM plans WHERE slug = 'low') WHERE id = $1",
        broken.account.account_id,
    )
    assert await calendar.renewal().renew() == (0, 1)
    assert await calendar.sources(sound) == ["plan", "plan"]


async def test_an_account_that_redis_can_t_be_told_of_keeps_nobody_waiting(
    calendar: Calendar,
) -> None:
    broken, sound = [await calendar.caller("none", name) for name in ("broken", "sound")]
    for caller in (broken, sound):
        await calendar.end_period(caller)
    told: list[int] = []

    async def publish(account_id: int) -> None:
        if account_id == broken.account.account_id:
            raise CountersUnavailable("an account has too many lots")
        told.append(account_id)

    with pytest.raises(CountersUnavailable):
        await calendar.renewal(publish=publish).renew()
    assert await calendar.sources(sound) == ["plan", "plan"]
    assert set(told) == {sound.account.account_id}
    assert await calendar.renewal().renew() == (0, 0)  # both periods were begun


async def test_calls_in_flight_over_a_renewal_settle_on_the_grant_that_they_held(
    calendar: Calendar,
) -> None:
    """Renewal (new grant, old expires) with 500 calls in flight: I1 per grant."""
    caller = await calendar.caller("none")
    deployment = calendar.deployment
    old = (await calendar.ledger.grants(caller.account.account_id))[0].grant_id
    running = await asyncio.gather(*(deployment.hold(caller, CREDIT // 10) for _ in range(500)))
    assert await calendar.lot(caller, old) == (50 * CREDIT, 50 * CREDIT, 0, 0)

    await calendar.end_period(caller)
    assert await calendar.renewal().renew() == (0, 1)
    await calendar.expiry().expire()
    new = max(grant.grant_id for grant in await calendar.ledger.grants(caller.account.account_id))
    assert await calendar.lot(caller, old) == (0, 50 * CREDIT, 0, 50 * CREDIT)
    assert await calendar.lot(caller, new) == (100 * CREDIT, 0, 0, 0)
    assert await calendar.findings() == []

    # A third is charged in full, a third in part, a third is given back; others call meanwhile.
    async def end(number: int, call_id: str) -> None:
        if number % 3 == 2:
            await calendar.counters.void(caller.keys, call_id)
        else:
            await deployment.settle(
                caller, call_id, CREDIT // 10 if number % 3 == 0 else CREDIT // 50
            )

    await asyncio.gather(
        *(end(number, call_id) for number, call_id in enumerate(running)),
        *(deployment.call(caller, CREDIT // 10) for _ in range(100)),
        calendar.expiry().expire(),
        calendar.renewal().renew(),
    )
    await calendar.sweep()
    await calendar.expiry().expire()

    charged = 167 * (CREDIT // 10) + 167 * (CREDIT // 50)
    assert await calendar.lot(caller, old) == (0, 0, charged, 100 * CREDIT - charged)
    assert await calendar.lot(caller, new) == (90 * CREDIT, 0, 10 * CREDIT, 0)
    sums = {
        grant.grant_id: (grant.settled_microcredits, grant.expired_microcredits)
        for grant in await calendar.ledger.grants(caller.account.account_id)
    }
    assert sums == {old: (charged, 100 * CREDIT - charged), new: (10 * CREDIT, 0)}
    assert await calendar.ledger.lots_to_withdraw(10) == []
    assert await calendar.findings() == []
