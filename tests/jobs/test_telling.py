"""Redis hears of all that was given, also when whoever gave it died before saying so."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gateway.counters import CountersUnavailable
from gateway.jobs import telling as telling_module
from gateway.ledger.periods import AccountChange
from policies.catalog import RefundExpired
from tests.support.deployment import CREDIT

if TYPE_CHECKING:
    from tests.support.billing_calendar import Calendar


async def test_a_lot_that_redis_was_not_told_of_is_told(calendar: Calendar) -> None:
    caller = await calendar.caller("none")
    made = await calendar.ledger.add_grant(caller.account.account_id, CREDIT, priority=0)
    assert made is not None
    assert await calendar.telling().tell() == 1
    assert await calendar.lot(caller, made) == (CREDIT, 0, 0, 0)
    assert await calendar.findings() == []


async def test_what_redis_knows_or_will_read_itself_is_not_told(calendar: Calendar) -> None:
    await calendar.caller("over", "loaded")
    absent = await calendar.caller("over", "absent", loaded=False)
    await calendar.ledger.add_grant(absent.account.account_id, CREDIT, priority=0)
    assert await calendar.telling().tell() == 0
    assert calendar.published == []


async def test_a_lot_with_nothing_left_need_not_be_known(calendar: Calendar) -> None:
    caller = await calendar.caller("none")
    await calendar.deployment.call(caller, 100 * CREDIT)
    await calendar.deployment.carry()
    await calendar.counters.command("DEL", caller.keys.name)
    state = await calendar.ledger.account_state(caller.account.account_id)
    assert state is not None
    await calendar.counters.load(caller.keys, state)
    assert await calendar.telling().tell() == 0


async def test_a_refund_and_an_adjustment_that_redis_was_not_told_of_are_told(
    calendar: Calendar,
) -> None:
    caller = await calendar.caller("none")
    account_id = caller.account.account_id
    job = calendar.telling()
    call_id = await calendar.deployment.call(caller, 60 * CREDIT)
    await calendar.deployment.carry()
    assert await job.tell() == 0
    (lot,) = [grant.grant_id for grant in await calendar.ledger.grants(account_id)]
    await calendar.ledger.refund_call(
        calendar.deployment.platform_id, call_id, "", RefundExpired.GRANT
    )
    assert (await job.tell(), await job.tell()) == (1, 0)
    assert await calendar.lot(caller, lot) == (100 * CREDIT, 0, 60 * CREDIT, 0)
    await calendar.ledger.credit_grant(lot, 5 * CREDIT, "")
    assert (await calendar.telling().tell(), await job.tell()) == (1, 0)
    assert await calendar.lot(caller, lot) == (105 * CREDIT, 0, 60 * CREDIT, 0)
    assert await calendar.findings() == []


async def test_a_refund_to_a_lot_that_was_spent_when_redis_was_loaded_is_told(
    calendar: Calendar,
) -> None:
    caller = await calendar.caller("none")
    call_id = await calendar.deployment.call(caller, 100 * CREDIT)
    await calendar.deployment.carry()
    await calendar.counters.command("DEL", caller.keys.name)
    state = await calendar.ledger.account_state(caller.account.account_id)
    assert state is not None
    await calendar.counters.load(caller.keys, state)
    job = calendar.telling()
    assert await job.tell() == 0
    await calendar.sql("UPDATE grants SET created_at = now() - interval '2 days'")
    await calendar.ledger.refund_call(
        calendar.deployment.platform_id, call_id, "", RefundExpired.GRANT
    )
    assert (await job.tell(), await job.tell()) == (1, 0)


async def test_an_account_that_can_t_be_told_keeps_no_other_from_it(
    calendar: Calendar, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken, sound = [await calendar.caller("none", name) for name in ("broken", "sound")]
    for caller in (broken, sound):
        await calendar.ledger.add_grant(caller.account.account_id, CREDIT, priority=0)
    publish = calendar.publish

    async def refused(account_id: int) -> None:
        if account_id == broken.account.account_id:
            raise CountersUnavailable("an account has too many lots")
        await publish(account_id)

    monkeypatch.setattr(calendar, "publish", refused)
    job = calendar.telling()
    for _ in range(2):
        with pytest.raises(CountersUnavailable):
            await job.tell()
        assert calendar.published == [sound.account.account_id]


async def test_lots_are_looked_at_again_until_no_older_one_can_come(
    calendar: Calendar, monkeypatch: pytest.MonkeyPatch
) -> None:
    caller = await calendar.caller("none")
    looked: list[int] = []
    made_lots = calendar.ledger.made_lots

    async def noted(after: int, limit: int, **times: int) -> object:
        page = await made_lots(after, limit, **times)
        looked.extend(lot.grant_id for lot in page)
        return page

    monkeypatch.setattr(calendar.ledger, "made_lots", noted)
    monkeypatch.setattr(telling_module, "PAGE_LOTS_MAX", 1)
    (lot,) = [grant.grant_id for grant in await calendar.ledger.grants(caller.keys.account_id)]
    job = calendar.telling()
    await job.tell()
    await job.tell()
    assert looked == [lot, lot]
    await calendar.sql("UPDATE grants SET created_at = now() - interval '2 minutes'")
    await job.tell()
    await job.tell()
    assert looked == [lot, lot, lot]


async def test_a_revoked_key_that_redis_was_not_told_of_is_told(calendar: Calendar) -> None:
    caller = await calendar.caller("none")
    await calendar.ledger.revoke_key(calendar.deployment.platform_id, caller.key_id)
    await calendar.ledger.change_account(
        calendar.deployment.platform_id,
        caller.account.account_id,
        AccountChange(status="suspended"),
    )
    field = await calendar.counters.command("HGET", caller.keys.name, f"k:{caller.key_id}")
    assert field == b"0", "whoever revoked it died before Redis heard of it"
    assert await calendar.telling().tell() == 0, "it may still be about to tell"

    await calendar.sql("UPDATE untold_accounts SET changed_at = now() - interval '1 minute'")
    assert (await calendar.telling().tell(), await calendar.telling().tell()) == (1, 0)

    names = (f"k:{caller.key_id}", "status")
    fields = await calendar.counters.command("HMGET", caller.keys.name, *names)
    assert fields == [b"-1", b"suspended"]


async def test_a_change_while_another_one_is_told_is_told_as_well(
    calendar: Calendar, monkeypatch: pytest.MonkeyPatch
) -> None:
    caller = await calendar.caller("none")
    account_id = caller.account.account_id
    await calendar.ledger.change_account(
        calendar.deployment.platform_id, account_id, AccountChange(status="suspended")
    )
    account_state = calendar.ledger.account_state

    async def read_before_it_changes(account_id: int) -> object:
        state = await account_state(account_id)
        await calendar.ledger.change_account(
            calendar.deployment.platform_id, account_id, AccountChange(status="active")
        )
        return state

    monkeypatch.setattr(calendar.ledger, "account_state", read_before_it_changes)
    await calendar.publish(account_id)
    monkeypatch.undo()
    assert await calendar.ledger.untold_changes([account_id]) != {}

    await calendar.sql("UPDATE untold_accounts SET changed_at = now() - interval '1 minute'")
    assert await calendar.telling().tell() == 1
    assert await calendar.counters.command("HGET", caller.keys.name, "status") == b"active"


async def test_a_changed_plan_is_told_to_all_its_accounts(calendar: Calendar) -> None:
    callers = [await calendar.caller("over", f"account-{number}") for number in range(3)]
    await calendar.sql("UPDATE plans SET spec = spec || '{\"concurrency\": 7}'")
    await calendar.sql("UPDATE untold_accounts SET changed_at = now() - interval '1 minute'")

    assert await calendar.telling().tell() == 3

    for caller in callers:
        assert await calendar.counters.command("HGET", caller.keys.name, "conc") == b"7"
