"""The audit is clean while calls run and changes travel, and reports what stays (I1 to I4)."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest

from gateway.ledger.periods import AccountChange
from gateway.operations.accounts import change_account
from gateway.operations.audit import audit
from gateway.operations.errors import OperationError
from gateway.operations.grants import add_grant
from gateway.operations.picture import take_picture
from tests.support.audit_scene import scene_of
from tests.support.deployment import CREDIT, Deployment

if TYPE_CHECKING:
    from gateway.operations.picture import ShardPicture


async def checks_found(deployment: Deployment, **options: int) -> set[tuple[str, str]]:
    """Invariant and check of every finding, at the first look."""
    report = await audit(deployment.ledger, deployment.counters, looks_max=1, **options)
    return {(finding.invariant, finding.check) for finding in report.findings}


async def test_a_deployment_without_accounts_is_clean(deployment: Deployment) -> None:
    assert await checks_found(deployment) == set()


async def test_running_waiting_and_written_calls_are_all_accounted_for(
    deployment: Deployment,
) -> None:
    await scene_of(deployment, await deployment.caller())
    await scene_of(deployment, await deployment.caller("bob"))
    await deployment.caller("carol")  # never called: Redis does not have her
    assert await checks_found(deployment) == set()


async def test_the_audit_is_clean_while_calls_run(deployment: Deployment) -> None:
    callers = [await deployment.caller(name) for name in ("alice", "bob", "carol")]
    scene = await scene_of(deployment, callers[0])
    for caller in callers:  # a shard's first call opens it, and closed is a finding
        await deployment.call(caller, 1_000)
    until = asyncio.Event()

    async def withdrawals() -> int:
        done = 0
        while not until.is_set():
            await scene.withdraw(1_000, ("adjust", "late", "expire")[done % 3])
            done += 1
        return done

    traffic = [asyncio.create_task(deployment.traffic(caller, until)) for caller in callers]
    traffic.append(asyncio.create_task(withdrawals()))
    try:
        # Each at its first look: nothing is excused by looking again.
        for _ in range(25):
            assert await checks_found(deployment) == set()
    finally:
        until.set()
        calls = await asyncio.gather(*traffic)
    assert min(calls) > 0


async def test_calls_that_end_between_the_two_readings_are_no_damage(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    caller = await deployment.caller()
    scene = await scene_of(deployment, caller)

    async def meanwhile(*arguments: Any) -> ShardPicture:
        picture = await take_picture(*arguments)
        await deployment.settle(caller, scene.running, 4 * CREDIT)  # it ran in the picture
        await deployment.call(caller)  # it is not in the picture at all
        await scene.withdraw(CREDIT, "expire")  # nor is this
        await scene.withdraw(CREDIT, "late")
        assert await deployment.carry() == 6  # with the two that waited in the picture
        await deployment.call(caller)
        await scene.withdraw(CREDIT)
        return picture

    monkeypatch.setattr("gateway.operations.audit_look.take_picture", meanwhile)
    assert await checks_found(deployment) == set()


async def test_a_call_may_have_a_hold_and_a_late_settlement_for_a_while(
    deployment: Deployment,
) -> None:
    scene = await scene_of(deployment, await deployment.caller())
    await scene.late(scene.running, time.time_ns() // 1_000_000)
    assert await checks_found(deployment) == set()


async def test_commands_at_work_are_no_damage(deployment: Deployment) -> None:
    caller = await deployment.caller()
    await scene_of(deployment, caller)

    async def commands() -> None:
        for number in range(10):
            await add_grant(deployment.ledger, deployment.counters, caller.account, CREDIT + number)
            await change_account(
                deployment.ledger,
                deployment.counters,
                caller.account,
                AccountChange(status="active"),
            )

    work = asyncio.create_task(commands())
    while not work.done():
        report = await audit(deployment.ledger, deployment.counters, looks_max=3)
        assert report.findings == []
    await work


async def test_damage_is_still_reported_after_every_later_look(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.operations.audit_look.LOOK_PAUSE_S", 0)
    caller = await deployment.caller()
    scene = await scene_of(deployment, caller)
    await scene.add(f"a:{scene.grant_id}", 1)
    (finding,) = (await audit(deployment.ledger, deployment.counters)).findings
    assert (finding.account_id, finding.subject) == (
        caller.account.account_id,
        f"grant {scene.grant_id}",
    )
    assert (finding.expected, finding.found) == (100 * CREDIT, 100 * CREDIT + 1)


async def test_a_shard_that_opens_while_it_is_looked_at_is_audited_after_all(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.operations.audit_look.LOOK_PAUSE_S", 0)
    caller = await deployment.caller()
    scene = await scene_of(deployment, caller)
    await scene.add(f"a:{scene.grant_id}", 1)
    seq = await deployment.counters.command("HGET", caller.keys.state.meta, "seq")
    await deployment.counters.command("HDEL", caller.keys.state.meta, "seq")

    async def opening(*arguments: Any) -> ShardPicture:
        picture = await take_picture(*arguments)
        await deployment.counters.command("HSET", caller.keys.state.meta, "seq", seq)
        return picture

    monkeypatch.setattr("gateway.operations.audit_look.take_picture", opening)
    report = await audit(deployment.ledger, deployment.counters)
    assert [finding.check for finding in report.findings] == ["redis_lot_sum"]


async def test_a_shard_too_full_to_read_at_once_says_so(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    caller = await deployment.caller()
    await deployment.call(caller)
    await deployment.call(caller)
    monkeypatch.setattr("gateway.operations.picture.ENTRIES_MAX", 1)
    with pytest.raises(OperationError, match="too much under way"):
        await audit(deployment.ledger, deployment.counters)
