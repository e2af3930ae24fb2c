"""The audit is clean while calls run, and finds each kind of damage (I1, I2, I3, I4)."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from gateway.operations.accounts import set_status
from gateway.operations.audit import audit
from gateway.operations.errors import OperationError
from gateway.operations.grants import add_grant
from gateway.operations.picture import take_picture
from tests.support.deployment import CREDIT, Caller, Deployment

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gateway.operations.audit_compare import ShardPicture


class Scene:
    """Account alice after some calls: one running, one in the outbox, the rest in Postgres."""

    grant_id: int
    running: str
    waiting: str
    written: str


async def scene_of(deployment: Deployment, caller: Caller) -> Scene:
    scene = Scene()
    scene.written = await deployment.call(caller, 3 * CREDIT)
    await deployment.call(caller, 2 * CREDIT)
    await deployment.carry()
    scene.waiting = await deployment.call(caller, CREDIT)
    scene.running = await deployment.hold(caller, 5 * CREDIT)
    (grant,) = await deployment.ledger.grants(caller.account.account_id)
    scene.grant_id = grant.grant_id
    return scene


async def checks_found(deployment: Deployment, **options: int) -> set[tuple[str, str]]:
    """Invariant and check of every finding, at the first look."""
    report = await audit(deployment.ledger, deployment.counters, looks_max=1, **options)
    json.dumps(report.findings)  # findings are plain values
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
    until = asyncio.Event()
    traffic = [asyncio.create_task(deployment.traffic(caller, until)) for caller in callers]
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
        assert await deployment.carry() == 3  # with the one that waited in the picture
        await deployment.call(caller)
        return picture

    monkeypatch.setattr("gateway.operations.audit.take_picture", meanwhile)
    assert await checks_found(deployment) == set()


async def test_commands_at_work_are_no_damage(deployment: Deployment) -> None:
    caller = await deployment.caller()
    await scene_of(deployment, caller)

    async def commands() -> None:
        for number in range(10):
            await add_grant(deployment.ledger, deployment.counters, caller.account, CREDIT + number)
            await set_status(deployment.ledger, deployment.counters, caller.account, "active")

    work = asyncio.create_task(commands())
    while not work.done():
        report = await audit(deployment.ledger, deployment.counters, looks_max=3)
        assert report.findings == []
    await work


async def field_changed(
    deployment: Deployment, caller: Caller, field: str, difference: int
) -> None:
    await deployment.counters.command("HINCRBY", caller.keys.name, field, difference)


async def hold_lost(deployment: Deployment, caller: Caller, scene: Scene) -> None:
    await deployment.counters.command("HDEL", caller.keys.state.holds, scene.running)


async def available_grew(deployment: Deployment, caller: Caller, scene: Scene) -> None:
    await field_changed(deployment, caller, f"a:{scene.grant_id}", 1)


async def available_shrank(deployment: Deployment, caller: Caller, scene: Scene) -> None:
    await field_changed(deployment, caller, f"a:{scene.grant_id}", -1)


async def settled_and_available_swapped(
    deployment: Deployment, caller: Caller, scene: Scene
) -> None:
    await field_changed(deployment, caller, f"a:{scene.grant_id}", 1)
    await field_changed(deployment, caller, f"s:{scene.grant_id}", -1)


async def oversold(deployment: Deployment, caller: Caller, scene: Scene) -> None:
    await field_changed(deployment, caller, f"s:{scene.grant_id}", 100 * CREDIT)


async def running_miscounted(deployment: Deployment, caller: Caller, scene: Scene) -> None:
    await field_changed(deployment, caller, "running", 1)


async def lot_out_of_order(deployment: Deployment, caller: Caller, scene: Scene) -> None:
    await deployment.counters.command("HSET", caller.keys.name, "lots", "")


async def account_lost(deployment: Deployment, caller: Caller, scene: Scene) -> None:
    await deployment.counters.command("DEL", caller.keys.name)


async def grant_unknown_to_redis(deployment: Deployment, caller: Caller, scene: Scene) -> None:
    await deployment.ledger.add_grant(caller.account.account_id, CREDIT, priority=1)


async def outbox_entry_lost(deployment: Deployment, caller: Caller, scene: Scene) -> None:
    await deployment.counters.command("XTRIM", caller.keys.state.outbox, "MAXLEN", 0)


async def outbox_entry_doubled(deployment: Deployment, caller: Caller, scene: Scene) -> None:
    outbox = caller.keys.state.outbox
    ((_, fields),) = await deployment.counters.command("XRANGE", outbox, "-", "+")
    await deployment.counters.command("XADD", outbox, "*", *fields)


async def outbox_entry_garbled(deployment: Deployment, caller: Caller, scene: Scene) -> None:
    await deployment.counters.command("XADD", caller.keys.state.outbox, "*", "i", "nonsense")


async def lease_lost(deployment: Deployment, caller: Caller, scene: Scene) -> None:
    await deployment.counters.command("ZREM", caller.keys.state.leases, scene.running)


async def lease_over_for_long(deployment: Deployment, caller: Caller, scene: Scene) -> None:
    await deployment.counters.command(
        "ZINCRBY", caller.keys.state.leases, -(60_000 + 12_000), scene.running
    )


async def settlement_deleted(deployment: Deployment, caller: Caller, scene: Scene) -> None:
    await deployment.damage("DELETE FROM settlements WHERE call_id = $1", scene.written)


async def settlement_doubled(deployment: Deployment, caller: Caller, scene: Scene) -> None:
    await deployment.damage(
        "INSERT INTO settlements SELECT gen_random_uuid(), platform_id, account_id, key_id,"
        " route_id, price_version, admitted_at, settled_at, ending, status, units, flags,"
        " held_microcredits, charged_microcredits, uncollected_microcredits"
        " FROM settlements WHERE call_id = $1",
        scene.written,
    )


async def settlement_changed(deployment: Deployment, caller: Caller, scene: Scene) -> None:
    await deployment.damage(
        "UPDATE settlements SET charged_microcredits = charged_microcredits + 1 WHERE call_id = $1",
        scene.written,
    )


async def entry_doubled(deployment: Deployment, caller: Caller, scene: Scene) -> None:
    await deployment.damage(
        "INSERT INTO ledger_entries (platform_id, account_id, grant_id, call_id, kind,"
        " microcredits, created_at)"
        " SELECT platform_id, account_id, grant_id, call_id, kind, microcredits, created_at"
        " FROM ledger_entries WHERE call_id = $1",
        scene.written,
    )


async def entry_deleted(deployment: Deployment, caller: Caller, scene: Scene) -> None:
    await deployment.damage("DELETE FROM ledger_entries WHERE call_id = $1", scene.written)


async def grant_sum_changed(deployment: Deployment, caller: Caller, scene: Scene) -> None:
    await deployment.damage(
        "UPDATE grants SET settled_microcredits = settled_microcredits - 1 WHERE id = $1",
        scene.grant_id,
    )


async def rollup_amount_changed(deployment: Deployment, caller: Caller, scene: Scene) -> None:
    await deployment.damage(
        "UPDATE usage_hourly SET charged_microcredits = charged_microcredits + 1"
    )


async def rollup_call_missed(deployment: Deployment, caller: Caller, scene: Scene) -> None:
    await deployment.damage("UPDATE usage_hourly SET calls = calls - 1")


async def written_differently(deployment: Deployment, caller: Caller, scene: Scene) -> None:
    state = caller.keys.state
    ((_, flat),) = await deployment.counters.command("XRANGE", state.outbox, "-", "+")
    fields = dict(zip(flat[::2], flat[1::2], strict=True)) | {b"i": scene.written.encode()}
    await deployment.counters.command(
        "XADD", state.outbox, "*", *(part for pair in fields.items() for part in pair)
    )


async def running_call_written(deployment: Deployment, caller: Caller, scene: Scene) -> None:
    await deployment.damage(
        "INSERT INTO settlements SELECT $2::uuid, platform_id, account_id, key_id, route_id,"
        " price_version, admitted_at, settled_at, ending, status, units, flags, 0, 0, 0"
        " FROM settlements WHERE call_id = $1",
        scene.written,
        scene.running,
    )


@pytest.mark.parametrize(
    ("plant", "expected"),
    [
        (
            hold_lost,
            {("I1", "redis_lot_held"), ("I1", "redis_running"), ("I4", "lease_without_hold")},
        ),
        (available_grew, {("I1", "redis_lot_sum")}),
        (available_shrank, {("I1", "redis_lot_sum")}),
        (settled_and_available_swapped, {("I1", "redis_lot_settled")}),
        (
            oversold,
            {("I1", "redis_lot_sum"), ("I1", "redis_lot_settled"), ("I3", "redis_oversold")},
        ),
        (running_miscounted, {("I1", "redis_running")}),
        (lot_out_of_order, {("I1", "redis_lot_unreachable")}),
        (account_lost, {("I1", "redis_account_missing")}),
        (grant_unknown_to_redis, {("I1", "redis_grant_missing")}),
        (outbox_entry_lost, {("I1", "redis_lot_settled"), ("I2", "settlement_lost")}),
        (outbox_entry_doubled, {("I1", "redis_lot_settled"), ("I2", "outbox_twice")}),
        (outbox_entry_garbled, {("I2", "outbox_malformed")}),
        (lease_lost, {("I4", "lease_missing")}),
        (lease_over_for_long, {("I4", "hold_overdue")}),
        (settlement_deleted, {("I2", "ledger_call_missing"), ("I1", "usage_calls")}),
        (settlement_doubled, {("I2", "ledger_call"), ("I1", "usage_calls")}),
        (settlement_changed, {("I2", "ledger_call"), ("I1", "usage_charged")}),
        (entry_doubled, {("I2", "ledger_call"), ("I1", "ledger_settled")}),
        (entry_deleted, {("I2", "ledger_call"), ("I1", "ledger_settled")}),
        (grant_sum_changed, {("I1", "ledger_settled"), ("I1", "redis_lot_settled")}),
        (rollup_amount_changed, {("I1", "usage_charged")}),
        (rollup_call_missed, {("I1", "usage_calls")}),
        (written_differently, {("I2", "settled_differently")}),
        (running_call_written, {("I2", "settled_and_held"), ("I1", "usage_calls")}),
    ],
)
async def test_damage_is_found_and_only_where_it_is(
    deployment: Deployment,
    plant: Callable[[Deployment, Caller, Scene], Awaitable[None]],
    expected: set[tuple[str, str]],
) -> None:
    caller = await deployment.caller()
    bystander = await deployment.caller("bob")
    scene = await scene_of(deployment, caller)
    assert await checks_found(deployment) == set()
    await plant(deployment, caller, scene)
    assert await checks_found(deployment, account_id=bystander.account.account_id) == set()
    assert await checks_found(deployment) == expected


async def test_damage_is_still_reported_after_every_later_look(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.operations.audit.LOOK_PAUSE_S", 0)
    caller = await deployment.caller()
    scene = await scene_of(deployment, caller)
    await available_grew(deployment, caller, scene)
    (finding,) = (await audit(deployment.ledger, deployment.counters)).findings
    assert (finding.account_id, finding.subject) == (
        caller.account.account_id,
        f"grant {scene.grant_id}",
    )
    assert (finding.expected, finding.found) == (100 * CREDIT, 100 * CREDIT + 1)


async def test_a_shard_too_full_to_read_at_once_says_so(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    caller = await deployment.caller()
    await deployment.call(caller)
    await deployment.call(caller)
    monkeypatch.setattr("gateway.operations.picture.ENTRIES_MAX", 1)
    with pytest.raises(OperationError, match="too much under way"):
        await audit(deployment.ledger, deployment.counters)
