"""Grants after they were given: what is revoked, adjusted or refunded, in both databases."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from gateway.counters import Counters
from gateway.ledger.periods import AccountChange
from gateway.operations.accounts import change_account, create_account
from gateway.operations.audit import audit
from gateway.operations.calls import refund_call
from gateway.operations.errors import NotToldError, UsageError
from gateway.operations.grants import OwnedGrant, adjust_grant, find_grant, revoke_grant
from gateway.operations.keys import create_key
from gateway.operations.publish import publish_account
from gateway.operations.receipts import show_receipt
from gateway.operations.standing import balance_of
from gateway.operations.withdraw import NotTakenError
from policies.catalog import Plan, Platform, RefundExpired
from policies.decision import Admitted, InsufficientCredits
from tests.support.deployment import CREDIT, SHARDS, Caller, Deployment
from tests.support.faulty_redis import OwnRedis

if TYPE_CHECKING:
    from gateway.ledger import GrantRow

BILLED = Plan("billed", credits_microcredits=3 * CREDIT, overage_cap_microcredits=5 * CREDIT)
STRICT = Plan("strict", 3 * CREDIT, refund_expired=RefundExpired.NOTHING)


async def grants_of(deployment: Deployment, caller: Caller) -> list[GrantRow]:
    return await deployment.ledger.grants(caller.account.account_id)


async def owned(deployment: Deployment, caller: Caller) -> OwnedGrant:
    """The account's first grant."""
    first = (await grants_of(deployment, caller))[0]
    return await find_grant(deployment.ledger, deployment.platform_id, first.grant_id)


async def assert_clean(deployment: Deployment) -> None:
    await deployment.carry()
    assert (await audit(deployment.ledger, deployment.counters)).findings == []


async def on_plan(deployment: Deployment, plan: Plan, name: str = "pat") -> Caller:
    """A caller on a plan."""
    await deployment.ledger.apply_catalog(Platform("demo"), [plan], [])
    made = await create_account(deployment.ledger, deployment.platform_id, name, plan=plan.slug)
    key = await create_key(deployment.ledger, deployment.counters, made.account, deployment.maker)
    keys = deployment.counters.keys(made.account.account_id)
    return Caller(made.account, key.key_id, keys)


@pytest.mark.parametrize("loaded", [True, False])
async def test_a_revoked_grant_pays_for_no_further_call(
    deployment: Deployment, loaded: bool
) -> None:
    caller = await deployment.caller(microcredits=10 * CREDIT)
    await deployment.open_shard(caller.keys.shard)
    if loaded:
        await deployment.call(caller, 3 * CREDIT)
    taken = await revoke_grant(
        deployment.ledger, deployment.counters, await owned(deployment, caller)
    )
    assert taken == (7 if loaded else 10) * CREDIT
    assert isinstance(await deployment.admit(caller), InsufficientCredits)
    await deployment.carry()
    (grant,) = await grants_of(deployment, caller)
    assert grant.revoked_microcredits == taken
    assert grant.revoked_ms
    await assert_clean(deployment)


async def test_a_call_that_holds_a_revoked_grant_finishes_on_it(deployment: Deployment) -> None:
    caller = await deployment.caller(microcredits=10 * CREDIT)
    call_id = await deployment.hold(caller, 4 * CREDIT)
    grant = await owned(deployment, caller)
    assert await revoke_grant(deployment.ledger, deployment.counters, grant) == 6 * CREDIT
    await deployment.settle(caller, call_id, 3 * CREDIT)
    assert isinstance(await deployment.admit(caller, 1), InsufficientCredits)
    # What the call gave back is taken by whoever revokes again, or by the job.
    assert await revoke_grant(deployment.ledger, deployment.counters, grant) == CREDIT
    assert await revoke_grant(deployment.ledger, deployment.counters, grant) == 0
    await deployment.carry()
    (row,) = await grants_of(deployment, caller)
    assert (row.settled_microcredits, row.revoked_microcredits) == (3 * CREDIT, 7 * CREDIT)
    await assert_clean(deployment)


async def test_a_grant_can_be_revoked_while_its_shard_is_not_open(deployment: Deployment) -> None:
    caller = await deployment.caller(microcredits=10 * CREDIT)
    grant = await owned(deployment, caller)
    assert await revoke_grant(deployment.ledger, deployment.counters, grant) is None
    assert isinstance(await deployment.admit(caller, 1), InsufficientCredits)
    assert await revoke_grant(deployment.ledger, deployment.counters, grant) == 10 * CREDIT
    await assert_clean(deployment)


@pytest.mark.parametrize("loaded", [True, False])
async def test_what_is_added_to_a_grant_can_be_spent_at_once(
    deployment: Deployment, loaded: bool
) -> None:
    caller = await deployment.caller(microcredits=CREDIT)
    if loaded:
        await deployment.call(caller, CREDIT)
    grant = await owned(deployment, caller)
    added = await adjust_grant(deployment.ledger, deployment.counters, grant, 2 * CREDIT, "late")
    assert added == 2 * CREDIT
    assert isinstance(await deployment.admit(caller, 2 * CREDIT), Admitted)
    (row,) = await grants_of(deployment, caller)
    assert row.credited_microcredits == 2 * CREDIT
    await publish_account(deployment.ledger, deployment.counters, row.account_id, "alice")
    assert isinstance(await deployment.admit(caller, 2 * CREDIT), InsufficientCredits)
    await assert_clean(deployment)


async def test_what_is_taken_from_a_grant_is_what_is_available_at_most(
    deployment: Deployment,
) -> None:
    caller = await deployment.caller(microcredits=10 * CREDIT)
    held = await deployment.hold(caller, 4 * CREDIT)
    grant = await owned(deployment, caller)
    for asked, taken in ((-2, -2), (-9, -4), (-1, 0)):
        came_to = await adjust_grant(deployment.ledger, deployment.counters, grant, asked * CREDIT)
        assert came_to == taken * CREDIT
    await deployment.settle(caller, held, 4 * CREDIT)
    await deployment.carry()
    (row,) = await grants_of(deployment, caller)
    assert (row.settled_microcredits, row.revoked_microcredits) == (4 * CREDIT, 6 * CREDIT)
    await assert_clean(deployment)


async def test_adjusting_and_revoking_under_load_keeps_every_credit_accounted_for(
    deployment: Deployment,
) -> None:
    caller = await deployment.caller(microcredits=1_000 * CREDIT)
    stop = asyncio.Event()
    await deployment.call(caller)
    traffic = asyncio.create_task(deployment.traffic(caller, stop))
    grant = await owned(deployment, caller)
    for number in range(1, 11):
        await adjust_grant(deployment.ledger, deployment.counters, grant, number * CREDIT)
        await adjust_grant(deployment.ledger, deployment.counters, grant, -number * 1_000)
    stop.set()
    await traffic
    await revoke_grant(deployment.ledger, deployment.counters, grant)
    await deployment.carry()
    (row,) = await grants_of(deployment, caller)
    assert (
        row.settled_microcredits + row.revoked_microcredits
        == 1_055 * CREDIT
        == row.amount_microcredits + row.credited_microcredits
    )
    await assert_clean(deployment)


async def test_a_wrong_adjustment_changes_nothing(deployment: Deployment) -> None:
    caller = await deployment.caller(microcredits=10 * CREDIT)
    await deployment.call(caller)
    grant = await owned(deployment, caller)
    arguments = (deployment.ledger, deployment.counters, grant)
    for amount, note in ((0, ""), (2**53, ""), (-1, "why"), (1, "two\nlines"), (2**53 - 2, "")):
        with pytest.raises(UsageError):
            await adjust_grant(*arguments, amount, note)
    await revoke_grant(*arguments)
    with pytest.raises(UsageError, match="has ended"):
        await adjust_grant(*arguments, CREDIT)
    with pytest.raises(UsageError, match="there is no grant 99"):
        await find_grant(deployment.ledger, deployment.platform_id, 99)
    await assert_clean(deployment)


async def test_a_foreign_platforms_grant_or_call_is_as_an_unknown_one(
    deployment: Deployment,
) -> None:
    caller = await deployment.caller()
    call_id = await deployment.call(caller)
    await deployment.carry()
    grant = await owned(deployment, caller)
    other = (await deployment.ledger.apply_catalog(Platform("other"), [], [])).platform_id
    with pytest.raises(UsageError, match="there is no grant"):
        await find_grant(deployment.ledger, other, grant.grant.grant_id)
    assert await show_receipt(deployment.ledger, other, call_id) is None
    with pytest.raises(UsageError, match="there is no settled call"):
        await refund_call(deployment.ledger, deployment.counters, other, call_id)


async def test_a_refund_puts_back_what_each_grant_paid_once(deployment: Deployment) -> None:
    caller = await deployment.caller(microcredits=CREDIT)
    await deployment.ledger.add_grant(caller.account.account_id, 5 * CREDIT, priority=5)
    call_id = await deployment.call(caller, 3 * CREDIT)
    await deployment.carry()
    arguments = (deployment.ledger, deployment.counters, deployment.platform_id, call_id)
    refund = await refund_call(*arguments, note="Wrong answer")
    assert (refund.restored_microcredits, refund.granted_microcredits) == (3 * CREDIT, 0)
    with pytest.raises(UsageError, match="is refunded already"):
        await refund_call(*arguments)
    receipt = await show_receipt(deployment.ledger, deployment.platform_id, call_id.upper())
    assert receipt is not None
    first, second = await grants_of(deployment, caller)
    assert [(entry.kind, entry.grant_id, entry.microcredits) for entry in receipt.call.entries] == [
        ("settle", first.grant_id, -CREDIT),
        ("settle", second.grant_id, -2 * CREDIT),
        ("refund", first.grant_id, CREDIT),
        ("refund", second.grant_id, 2 * CREDIT),
    ]
    assert {entry.note for entry in receipt.call.entries} == {"", "Wrong answer"}
    assert (receipt.charged_microcredits, receipt.net_microcredits) == (3 * CREDIT, 0)
    assert isinstance(await deployment.admit(caller, 6 * CREDIT), Admitted)
    await assert_clean(deployment)


@pytest.mark.parametrize(
    ("plan", "granted"), [(BILLED, 2 * CREDIT), (STRICT, 0)], ids=["grant", "nothing"]
)
async def test_what_ended_grants_paid_comes_back_as_the_plan_says(
    deployment: Deployment, plan: Plan, granted: int
) -> None:
    caller = await on_plan(deployment, plan)
    call_id = await deployment.call(caller, 2 * CREDIT)
    await deployment.carry()
    await revoke_grant(deployment.ledger, deployment.counters, await owned(deployment, caller))
    refund = await refund_call(
        deployment.ledger, deployment.counters, deployment.platform_id, call_id
    )
    assert refund.restored_microcredits == 0
    assert refund.granted_microcredits == granted
    assert refund.forfeited_microcredits == 2 * CREDIT - granted
    new = [row for row in await grants_of(deployment, caller) if row.source == "refund"]
    assert [row.amount_microcredits for row in new] == ([granted] if granted else [])
    overage = plan.overage_cap_microcredits
    assert isinstance(await deployment.admit(caller, granted + overage), Admitted)
    assert isinstance(await deployment.admit(caller, 1), InsufficientCredits)
    await assert_clean(deployment)


async def test_a_call_that_cost_nothing_or_is_none_is_not_refunded(deployment: Deployment) -> None:
    caller = await deployment.caller()
    free = await deployment.hold(caller)
    await deployment.settle(caller, free, 0)
    running = await deployment.hold(caller)
    await deployment.carry()
    for call_id, message in (
        (free, "cost nothing"),
        (running, "still runs"),
        ("0" * 32, "there is no settled call"),
        ("drop table", "is no call"),
    ):
        with pytest.raises(UsageError, match=message):
            await refund_call(
                deployment.ledger, deployment.counters, deployment.platform_id, call_id
            )


async def test_what_is_owed_in_overage_is_below_zero_and_never_credits(
    deployment: Deployment,
) -> None:
    caller = await on_plan(deployment, BILLED)
    arguments = (deployment.ledger, deployment.counters, caller.account)
    await deployment.call(caller, 2 * CREDIT)
    assert (await balance_of(*arguments))[:4] == (True, CREDIT, 0, 0)
    call_id = await deployment.call(caller, 3 * CREDIT)
    await deployment.hold(caller, CREDIT)
    assert (await balance_of(*arguments))[:4] == (True, -3 * CREDIT, CREDIT, 2 * CREDIT)
    await deployment.carry()
    overage = (await grants_of(deployment, caller))[-1]
    assert overage.source == "overage"
    for change in (revoke_grant, adjust_grant):
        with pytest.raises(UsageError, match="overage_cap"):
            await change(
                deployment.ledger,
                deployment.counters,
                await find_grant(deployment.ledger, deployment.platform_id, overage.grant_id),
                *((CREDIT,) if change is adjust_grant else ()),
            )
    # What was owed for a refunded call is owed no more; one still runs in overage.
    await refund_call(deployment.ledger, deployment.counters, deployment.platform_id, call_id)
    balance = await balance_of(*arguments)
    assert balance.available_microcredits == 0  # a credit is back, and a credit is held in overage
    await assert_clean(deployment)


async def test_without_redis_nothing_is_taken_and_what_was_given_is_told_later(
    deployment: Deployment,
) -> None:
    async with (
        OwnRedis() as server,
        Counters(server.url, shards=SHARDS, deadline_ms=500) as counters,
    ):
        own = Deployment(deployment.ledger, counters, deployment.postgres_url)
        own.platform_id = deployment.platform_id
        caller = await own.caller("dora", 10 * CREDIT)
        call_id = await own.call(caller, 4 * CREDIT)
        await own.carry()
        grant = await owned(own, caller)
        server.stop()
        with pytest.raises(NotTakenError, match="accounts show dora"):
            await adjust_grant(own.ledger, counters, grant, -CREDIT)
        with pytest.raises(NotToldError, match="accounts sync dora"):
            await refund_call(own.ledger, counters, own.platform_id, call_id)
        with pytest.raises(NotToldError, match="accounts sync dora"):
            await adjust_grant(own.ledger, counters, grant, CREDIT)
        (row,) = await grants_of(own, caller)
        assert (row.credited_microcredits, row.revoked_microcredits) == (5 * CREDIT, 0)


async def test_what_was_read_before_a_shard_was_rebuilt_brings_no_spent_credits_back(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    caller = await deployment.caller("uma", 2 * CREDIT)
    await deployment.call(caller, CREDIT)
    await deployment.carry()
    ledger, counters, shard = deployment.ledger, deployment.counters, caller.keys.shard
    read = ledger.account_state

    async def read_and_be_late(account_id: int) -> dict[str, str | int] | None:
        """Meanwhile the rest is spent, and the shard rebuilt."""
        state = await read(account_id)
        monkeypatch.undo()
        await deployment.call(caller, CREDIT)
        await deployment.carry()
        lost, _ = counters.seen(shard)
        epoch = await ledger.next_epoch(shard)
        await counters.close_shard(shard, epoch, lost)
        await counters.open_shard(shard, epoch)
        assert isinstance(await deployment.admit(caller), InsufficientCredits)
        return state

    monkeypatch.setattr(ledger, "account_state", read_and_be_late)
    await publish_account(ledger, counters, caller.account.account_id, "uma")
    assert isinstance(await deployment.admit(caller), InsufficientCredits)
    await assert_clean(deployment)


async def test_while_a_shard_is_rebuilt_nothing_is_said_to_be_told(deployment: Deployment) -> None:
    caller = await deployment.caller("vera", CREDIT)
    await deployment.call(caller, CREDIT)
    counters, shard = deployment.counters, caller.keys.shard
    epoch = await deployment.ledger.next_epoch(shard)
    await counters.close_shard(shard, epoch, counters.seen(shard)[0])
    with pytest.raises(NotToldError):
        await publish_account(
            deployment.ledger, counters, caller.account.account_id, caller.account.name
        )


async def test_another_plan_is_followed_by_the_next_call(deployment: Deployment) -> None:
    caller = await deployment.caller("olga", CREDIT)
    await deployment.call(caller, CREDIT)
    await deployment.ledger.apply_catalog(Platform("demo"), [BILLED], [])
    with pytest.raises(UsageError, match='did you mean "billed"'):
        await change_account(
            deployment.ledger, deployment.counters, caller.account, AccountChange(plan_slug="biled")
        )
    assert isinstance(await deployment.admit(caller), InsufficientCredits)
    for _ in range(2):  # the second time changes nothing
        account = await change_account(
            deployment.ledger,
            deployment.counters,
            caller.account,
            AccountChange(plan_slug="billed"),
        )
        assert account.plan_slug == "billed"
    assert isinstance(await deployment.admit(caller, 8 * CREDIT), Admitted)
    assert isinstance(await deployment.admit(caller, 1), InsufficientCredits)
    await assert_clean(deployment)
