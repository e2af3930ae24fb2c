"""The audit finds each kind of damage, and only where it is (I1, I2, I3, I4)."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest

from gateway.operations.audit import audit
from tests.support.audit_scene import Scene, scene_of
from tests.support.deployment import CREDIT, Deployment
from tests.support.settlements import new_call_id

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


async def checks_found(deployment: Deployment, **options: int) -> set[tuple[str, str]]:
    """Invariant and check of every finding, at the first look."""
    report = await audit(deployment.ledger, deployment.counters, looks_max=1, **options)
    json.dumps(report.findings)  # findings are plain values
    return {(finding.invariant, finding.check) for finding in report.findings}


def redis_field(name: str, difference: int) -> Callable[[Scene], Awaitable[None]]:
    """Plant: a number of the first grant's lot differs."""

    async def plant(scene: Scene) -> None:
        await scene.add(f"{name}:{scene.grant_id}", difference)

    return plant


def postgres(statement: str, *names: str) -> Callable[[Scene], Awaitable[None]]:
    """Plant: a statement behind everybody's back; its arguments are fields of the scene."""

    async def plant(scene: Scene) -> None:
        await scene.deployment.damage(statement, *(getattr(scene, name) for name in names))

    return plant


async def moved(scene: Scene, source: str, target: str) -> None:
    await scene.add(f"{source}:{scene.grant_id}", -1)
    await scene.add(f"{target}:{scene.grant_id}", 1)


async def settled_less(scene: Scene) -> None:
    await moved(scene, "s", "a")


async def withdrawn_less(scene: Scene) -> None:
    await moved(scene, "w", "a")


async def running_miscounted(scene: Scene) -> None:
    await scene.add("running", 1)


async def lot_out_of_order(scene: Scene) -> None:
    await scene.set("lots", "")


async def overage_taken_for_credits(scene: Scene) -> None:
    await scene.set("lots", f"{scene.grant_id} {scene.overage_id}")


async def lot_lasts_longer(scene: Scene) -> None:
    await scene.set(f"e:{scene.grant_id}", 1_900_000_000_000)


async def field_garbled(scene: Scene) -> None:
    await scene.set(f"a:{scene.grant_id}", "many")


async def lot_unknown_to_postgres(scene: Scene) -> None:
    await scene.set("a:99999", CREDIT)


async def account_lost(scene: Scene) -> None:
    await scene.command("DEL", scene.caller.keys.name)


async def grant_unknown_to_redis(scene: Scene) -> None:
    account_id = scene.caller.account.account_id
    await scene.deployment.ledger.add_grant(account_id, CREDIT, priority=1)


async def concurrency_miscounted(scene: Scene) -> None:
    await scene.add(f"K{scene.caller.key_id}.cc", 1)


async def cap_forgets(scene: Scene) -> None:
    await scene.set(f"K{scene.caller.key_id}.ct", "0:1")


async def cap_invents(scene: Scene) -> None:
    await scene.set(f"K{scene.caller.key_id}.ct", f"0:{80 * CREDIT}")


async def entries(scene: Scene) -> list[tuple[bytes, bytes]]:
    """Field and text of the outbox's entries: the waiting settlement, the waiting change."""
    found = await scene.command("XRANGE", scene.caller.keys.state.outbox, "-", "+")
    return [(flat[0], flat[1]) for _, flat in found]  # type: ignore[attr-defined]


async def add_entry(scene: Scene, field: bytes, text: bytes) -> None:
    await scene.command("XADD", scene.caller.keys.state.outbox, "*", field.decode(), text.decode())


async def outbox_lost(scene: Scene) -> None:
    await scene.command("XTRIM", scene.caller.keys.state.outbox, "MAXLEN", 0)


async def settlement_doubled_in_outbox(scene: Scene) -> None:
    settlement, _ = await entries(scene)
    await add_entry(scene, *settlement)


async def change_doubled_in_outbox(scene: Scene) -> None:
    _, change = await entries(scene)
    await add_entry(scene, *change)


async def outbox_garbled(scene: Scene) -> None:
    await add_entry(scene, b"v", b"nonsense")


async def settled_otherwise(scene: Scene) -> None:
    (field, text), _ = await entries(scene)
    await add_entry(scene, field, text.replace(scene.waiting.encode(), scene.written.encode()))


async def changed_otherwise(scene: Scene) -> None:
    _, (field, text) = await entries(scene)
    text = text.replace(scene.change_waiting.encode(), scene.change_written.encode())
    await add_entry(scene, field, text)


async def settlement_marker_lost(scene: Scene) -> None:
    await scene.command("HDEL", scene.caller.keys.state.holds, scene.waiting)


async def change_marker_lost(scene: Scene) -> None:
    await scene.command("HDEL", scene.caller.keys.state.holds, scene.change_waiting)


def marker_forged(text: str) -> Callable[[Scene], Awaitable[None]]:
    """Plant: Redis remembers what neither outbox nor Postgres know."""

    async def plant(scene: Scene) -> None:
        await scene.command("HSET", scene.caller.keys.state.holds, new_call_id(), text)

    return plant


async def hold_lost(scene: Scene) -> None:
    await scene.command("HDEL", scene.caller.keys.state.holds, scene.running)


async def hold_garbled(scene: Scene) -> None:
    await scene.command("HSET", scene.caller.keys.state.holds, scene.running, "h|nonsense")


async def lease_lost(scene: Scene) -> None:
    await scene.command("ZREM", scene.caller.keys.state.leases, scene.running)


async def lease_over_for_long(scene: Scene) -> None:
    back = -2 * (60_000 + 12_000)
    await scene.command("ZINCRBY", scene.caller.keys.state.leases, back, scene.running)


async def late_settlement_stuck(scene: Scene) -> None:
    await scene.late(scene.running, time.time_ns() // 1_000_000 - 120_000)


async def shard_closed(scene: Scene) -> None:
    await scene.command("HDEL", scene.caller.keys.state.meta, "seq")


async def refunded_more(scene: Scene) -> None:
    await scene.deployment.damage(
        "WITH changed AS ("
        " INSERT INTO ledger_changes (id, platform_id, account_id, kind, call_id, created_at)"
        " SELECT gen_random_uuid(), platform_id, account_id, 'refund', call_id, now()"
        " FROM settlements WHERE call_id = $1 RETURNING *)"
        " INSERT INTO ledger_entries (platform_id, account_id, grant_id, call_id, kind,"
        " microcredits, created_at, change_id)"
        " SELECT platform_id, account_id, $2, call_id, kind, 4000000, created_at, id FROM changed",
        scene.written,
        scene.grant_id,
    )


COPY_SETTLEMENT = (
    "INSERT INTO settlements SELECT {id}, platform_id, account_id, key_id, route_id,"
    " price_version, admitted_at, settled_at, ending, status, units, flags, {amounts}"
    " FROM settlements WHERE call_id = $1"
)
settlement_doubled = postgres(
    COPY_SETTLEMENT.format(
        id="gen_random_uuid()",
        amounts="held_microcredits, charged_microcredits, uncollected_microcredits",
    ),
    "written",
)
running_call_written = postgres(
    COPY_SETTLEMENT.format(id="$2::uuid", amounts="0, 0, 0"), "written", "running"
)
settlement_deleted = postgres("DELETE FROM settlements WHERE call_id = $1", "written")
settlement_changed = postgres(
    "UPDATE settlements SET charged_microcredits = charged_microcredits + 1 WHERE call_id = $1",
    "written",
)
entry_doubled = postgres(
    "INSERT INTO ledger_entries (platform_id, account_id, grant_id, call_id, kind,"
    " microcredits, created_at)"
    " SELECT platform_id, account_id, grant_id, call_id, kind, microcredits, created_at"
    " FROM ledger_entries WHERE call_id = $1",
    "written",
)
entry_deleted = postgres("DELETE FROM ledger_entries WHERE call_id = $1", "written")
grant_settled_less = postgres(
    "UPDATE grants SET settled_microcredits = settled_microcredits - 1 WHERE id = $1", "grant_id"
)
grant_revoked_less = postgres(
    "UPDATE grants SET revoked_microcredits = revoked_microcredits - 1 WHERE id = $1", "grant_id"
)
grant_expired_more = postgres(
    "UPDATE grants SET expired_microcredits = expired_microcredits + 1 WHERE id = $1", "grant_id"
)
grant_credited_more = postgres(
    "UPDATE grants SET credited_microcredits = credited_microcredits + 1 WHERE id = $1", "grant_id"
)
grant_oversold = postgres(
    "UPDATE grants SET settled_microcredits = settled_microcredits + 200000000 WHERE id = $1",
    "grant_id",
)
change_unrecorded = postgres("DELETE FROM ledger_changes WHERE id = $1", "change_written")
change_of_another_kind = postgres(
    "UPDATE ledger_changes SET kind = 'expire' WHERE id = $1", "change_written"
)
rollup_amount_changed = postgres(
    "UPDATE usage_hourly SET charged_microcredits = charged_microcredits + 1"
)
rollup_call_missed = postgres("UPDATE usage_hourly SET calls = calls - 1")
route_amount_changed = postgres(
    "UPDATE usage_routes_daily SET charged_microcredits = charged_microcredits + 1"
)
route_hour_missed = postgres("DELETE FROM usage_routes_hourly")
account_day_missed = postgres("UPDATE usage_accounts_daily SET calls = calls - 1")

HOLD_GONE = {
    ("I1", "redis_lot_held"),
    ("I1", "redis_running"),
    ("I1", "redis_concurrency"),
    ("I1", "redis_cap_overcounted"),
    ("I4", "lease_without_hold"),
}


@pytest.mark.parametrize(
    ("plant", "expected"),
    [
        (redis_field("a", 1), {("I1", "redis_lot_sum")}),
        (redis_field("a", -1), {("I1", "redis_lot_sum")}),
        (redis_field("h", 1), {("I1", "redis_lot_sum"), ("I1", "redis_lot_held")}),
        (redis_field("w", 1), {("I1", "redis_lot_sum"), ("I1", "redis_lot_withdrawn")}),
        (
            redis_field("s", 100 * CREDIT),
            {("I1", "redis_lot_sum"), ("I1", "redis_lot_settled"), ("I3", "redis_oversold")},
        ),
        (settled_less, {("I1", "redis_lot_settled")}),
        (withdrawn_less, {("I1", "redis_lot_withdrawn")}),
        (running_miscounted, {("I1", "redis_running")}),
        (lot_out_of_order, {("I1", "redis_lot_unreachable")}),
        (overage_taken_for_credits, {("I1", "redis_lot_overage")}),
        (lot_lasts_longer, {("I1", "redis_lot_times")}),
        (field_garbled, {("I1", "redis_account_malformed")}),
        (lot_unknown_to_postgres, {("I1", "redis_unknown_grant")}),
        (account_lost, {("I1", "redis_account_missing")}),
        (grant_unknown_to_redis, {("I1", "redis_grant_missing")}),
        (concurrency_miscounted, {("I1", "redis_concurrency")}),
        (cap_forgets, {("I3", "redis_cap_undercounted")}),
        (cap_invents, {("I1", "redis_cap_overcounted")}),
        (
            outbox_lost,
            {
                ("I1", "redis_lot_settled"),
                ("I1", "redis_lot_withdrawn"),
                ("I2", "settlement_lost"),
                ("I1", "change_lost"),
            },
        ),
        (settlement_doubled_in_outbox, {("I1", "redis_lot_settled"), ("I2", "outbox_twice")}),
        (change_doubled_in_outbox, {("I1", "redis_lot_withdrawn"), ("I1", "change_twice")}),
        (outbox_garbled, {("I2", "outbox_malformed")}),
        (settled_otherwise, {("I2", "settled_differently")}),
        (changed_otherwise, {("I1", "changed_differently")}),
        (settlement_marker_lost, {("I2", "settlement_unmarked")}),
        (change_marker_lost, {("I1", "change_unmarked")}),
        (marker_forged("s|1-1"), {("I2", "settlement_lost")}),
        (marker_forged("x|1-1"), {("I2", "settlement_lost")}),
        (marker_forged("c|1-1"), {("I1", "change_lost")}),
        (hold_lost, HOLD_GONE),
        (hold_garbled, {*HOLD_GONE, ("I2", "hold_malformed")}),
        (lease_lost, {("I4", "lease_missing")}),
        (lease_over_for_long, {("I4", "hold_overdue")}),
        (late_settlement_stuck, {("I4", "late_settlement_stuck")}),
        (shard_closed, {("I1", "shard_closed")}),
        (running_call_written, {("I2", "settled_and_held"), ("I1", "usage_calls")}),
        (settlement_deleted, {("I2", "ledger_call_missing"), ("I1", "usage_calls")}),
        (settlement_doubled, {("I2", "ledger_call"), ("I1", "usage_calls")}),
        (settlement_changed, {("I2", "ledger_call"), ("I1", "usage_charged")}),
        (entry_doubled, {("I2", "ledger_call"), ("I1", "ledger_settled")}),
        (entry_deleted, {("I2", "ledger_call"), ("I1", "ledger_settled")}),
        (grant_settled_less, {("I1", "ledger_settled"), ("I1", "redis_lot_settled")}),
        (grant_revoked_less, {("I1", "ledger_revoked"), ("I1", "redis_lot_withdrawn")}),
        (grant_expired_more, {("I1", "ledger_expired"), ("I1", "redis_lot_withdrawn")}),
        (grant_credited_more, {("I1", "ledger_credited"), ("I1", "redis_lot_sum")}),
        (
            grant_oversold,
            {("I1", "ledger_settled"), ("I3", "ledger_oversold"), ("I1", "redis_lot_settled")},
        ),
        (change_unrecorded, {("I1", "ledger_change_unrecorded")}),
        (
            change_of_another_kind,
            {("I1", "ledger_change_unlike")},
        ),
        (
            refunded_more,
            {
                ("I3", "ledger_change_returned"),
                ("I1", "ledger_credited"),
            },
        ),
        (rollup_amount_changed, {("I1", "usage_charged"), ("I1", "usage_rollup_charged")}),
        (rollup_call_missed, {("I1", "usage_calls"), ("I1", "usage_rollup_calls")}),
        (route_amount_changed, {("I1", "usage_rollup_charged")}),
        (route_hour_missed, {("I1", "usage_rollup_calls")}),
        (account_day_missed, {("I1", "usage_rollup_calls")}),
    ],
)
async def test_damage_is_found_and_only_where_it_is(
    deployment: Deployment,
    plant: Callable[[Scene], Awaitable[None]],
    expected: set[tuple[str, str]],
) -> None:
    caller = await deployment.caller()
    bystander = await deployment.caller("bob")
    scene = await scene_of(deployment, caller)
    assert await checks_found(deployment) == set()
    await plant(scene)
    assert await checks_found(deployment, account_id=bystander.account.account_id) == set()
    assert await checks_found(deployment) == expected
