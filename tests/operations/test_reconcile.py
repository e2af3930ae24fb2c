"""Reconciliation visits every account, tells what is certain, changes nothing, and explains one."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from gateway.operations import reconcile
from gateway.operations.errors import OperationError, UsageError
from gateway.operations.reconcile import Reconciler
from gateway.operations.reconcile_explain import explain_account
from tests.support.audit_scene import scene_of
from tests.support.deployment import CREDIT, Caller, Deployment

if TYPE_CHECKING:
    from gateway.operations.picture import ShardPicture
    from gateway.operations.reconcile_explain import Explained


def reconciler(deployment: Deployment) -> Reconciler:
    return Reconciler(deployment.ledger, deployment.counters, looks_max=1)


async def everything(deployment: Deployment) -> dict[bytes, Any]:
    """All that Redis has, but for what counts time."""
    ask = deployment.counters.command
    names = await ask("KEYS", "*")
    return {name: await ask("DUMP", name) for name in names}


async def explained(deployment: Deployment, name: str = "alice") -> Explained:
    return await explain_account(
        deployment.ledger, deployment.counters, deployment.platform_id, name, looks_max=1
    )


async def test_a_deployment_without_accounts_has_nothing_to_reconcile(
    deployment: Deployment,
) -> None:
    assert await reconciler(deployment).turn() == (None, 0, ())


async def test_a_tour_visits_every_account_once_shard_by_shard_and_begins_again(
    deployment: Deployment,
) -> None:
    shards = [(await deployment.caller(f"account {n}")).keys.shard for n in range(7)]
    tour = reconciler(deployment)
    visited = [await tour.turn() for _ in set(shards)]
    assert [turn.shard for turn in visited] == sorted(set(shards))
    assert sum(turn.accounts for turn in visited) == len(shards)
    await deployment.caller("somebody new")
    again = [await tour.turn() for _ in set(shards)]
    assert sum(turn.accounts for turn in again) == len(shards) + 1


async def test_a_turn_is_bounded_however_many_accounts_a_shard_has(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconcile, "TURN_ACCOUNTS_MAX", 1)
    monkeypatch.setattr(reconcile, "PAGE_ACCOUNTS_MAX", 2)
    for number in range(5):
        await deployment.caller(f"account {number}")
    tour = reconciler(deployment)
    assert [(await tour.turn()).accounts for _ in range(5)] == [1] * 5


async def test_drift_stands_until_the_shard_is_visited_again_without_it(
    deployment: Deployment,
) -> None:
    caller = await deployment.caller()
    scene = await scene_of(deployment, caller)
    tour = reconciler(deployment)
    assert (await tour.turn()).findings == []
    assert tour.drift() == {}
    await scene.add(f"a:{scene.grant_id}", 1)
    (finding,) = (await tour.turn()).findings
    assert (finding.check, finding.account_id) == ("redis_lot_sum", caller.account.account_id)
    assert tour.drift() == {"redis_lot_sum": 1}
    await scene.add(f"a:{scene.grant_id}", -1)
    assert (await tour.turn()).findings == []
    assert tour.drift() == {}


async def test_drift_of_one_account_stands_while_others_of_its_shard_are_visited(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconcile, "TURN_ACCOUNTS_MAX", 1)
    callers: dict[int, list[Caller]] = {}
    while not (two := next((some for some in callers.values() if len(some) > 1), None)):
        caller = await deployment.caller(f"account {sum(map(len, callers.values()))}")
        callers.setdefault(caller.keys.shard, []).append(caller)
    scene = await scene_of(deployment, two[0])
    await scene.add(f"a:{scene.grant_id}", 1)
    tour = reconciler(deployment)
    for _ in range(sum(map(len, callers.values()))):
        await tour.turn()
    assert tour.drift() == {"redis_lot_sum": 1}


async def test_reconciling_changes_neither_redis_nor_postgres(deployment: Deployment) -> None:
    caller = await deployment.caller()
    scene = await scene_of(deployment, caller)
    await scene.add(f"a:{scene.grant_id}", 7)
    before = await everything(deployment), await deployment.ledger.grants(caller.account.account_id)
    tour = reconciler(deployment)
    assert (await tour.turn()).findings
    await explained(deployment)
    after = await everything(deployment), await deployment.ledger.grants(caller.account.account_id)
    assert after == before


async def test_a_shard_that_is_too_busy_is_left_for_the_next_tour(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    caller = await deployment.caller()
    tour = reconciler(deployment)

    async def busy(*_: Any) -> ShardPicture:
        raise OperationError("too much under way")

    with monkeypatch.context() as patch:
        patch.setattr("gateway.operations.audit_look.take_picture", busy)
        with pytest.raises(OperationError):
            await tour.turn()
    turn = await tour.turn()
    assert (turn.shard, turn.accounts) == (caller.keys.shard, 1)


async def test_an_account_is_explained_in_both_places_with_all_that_travels(
    deployment: Deployment,
) -> None:
    caller = await deployment.caller()
    scene = await scene_of(deployment, caller)
    late_id = scene.waiting[:-4] + "0000"
    await scene.late(late_id, time.time_ns() // 1_000_000)
    told = await explained(deployment)
    assert (told.state, told.shard, told.findings) == ("loaded", caller.keys.shard, [])
    lot, overage = told.lots
    assert lot.redis is not None
    assert lot.postgres is not None
    # 100 granted; 3 + 2 settled and 2 withdrawn are written, 1 and 1 travel, 5 are held.
    numbers = lot.redis.available, lot.redis.held, lot.redis.settled, lot.redis.withdrawn
    assert numbers == (86 * CREDIT, 5 * CREDIT, 6 * CREDIT, 3 * CREDIT)
    assert (lot.redis.travelling_settled, lot.redis.travelling_withdrawn) == (CREDIT, CREDIT)
    assert lot.postgres.settled_microcredits == 5 * CREDIT
    assert lot.postgres.withdrawn == 2 * CREDIT
    assert overage.postgres is not None
    assert overage.postgres.source == "overage"
    (call,) = told.calls
    assert (call.call_id, call.stage, call.held_microcredits) == (scene.running, "held", 5 * CREDIT)
    assert [row.call_id for row in told.settlements] == [scene.waiting]
    assert [change.change_id for change in told.changes] == [scene.change_waiting]
    assert [row.call_id for row in told.waiting] == [late_id]
    assert told.sentence == (
        "Nothing is wrong: Redis and Postgres agree; calls running: 1, settlements and changes on "
        "their way to Postgres: 2, late settlements on their way to Redis: 1."
    )


async def test_what_is_wrong_is_said_in_a_sentence(deployment: Deployment) -> None:
    scene = await scene_of(deployment, await deployment.caller())
    await scene.add(f"a:{scene.grant_id}", 1)
    await scene.add("running", 1)
    told = await explained(deployment)
    assert told.sentence.startswith("Wrong: ")
    assert told.sentence.endswith(" (and 1 more).")
    assert {finding.check for finding in told.findings} == {"redis_lot_sum", "redis_running"}


async def test_an_account_that_redis_does_not_have_is_no_mistake(deployment: Deployment) -> None:
    caller = await deployment.caller()
    assert (await explained(deployment)).state == "lost"
    await deployment.open_shard(caller.keys.shard)
    told = await explained(deployment)
    assert (told.state, told.findings) == ("not loaded", [])
    assert "reads Postgres" in told.sentence
    (lot,) = told.lots
    assert lot.redis is None
    assert lot.postgres is not None


async def test_a_shard_that_is_being_rebuilt_says_so(deployment: Deployment) -> None:
    caller = await deployment.caller()
    await scene_of(deployment, caller)
    await deployment.counters.command("HDEL", caller.keys.state.meta, "seq")
    told = await explained(deployment)
    assert told.state == "closed"
    assert "being rebuilt" in told.sentence


async def test_an_account_whose_fields_are_garbled_is_explained_all_the_same(
    deployment: Deployment,
) -> None:
    scene = await scene_of(deployment, await deployment.caller())
    await scene.set(f"a:{scene.grant_id}", "many")
    told = await explained(deployment)
    assert [finding.check for finding in told.findings] == ["redis_account_malformed"]
    assert all(lot.redis is None for lot in told.lots)


async def test_an_unknown_account_is_refused_by_name(deployment: Deployment) -> None:
    with pytest.raises(UsageError, match='no account "nobody"'):
        await explained(deployment, "nobody")
