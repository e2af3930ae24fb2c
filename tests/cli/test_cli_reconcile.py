"""`tollkeeper reconcile` from outside: what people and programs are told, and the exit code."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support.audit_scene import Scene, scene_of
from tests.support.deployment import running_deployment

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.cli.conftest import CommandLine


async def with_scene(
    redis_url: str, postgres_url: str, work: Callable[[Scene], Awaitable[None]]
) -> None:
    async with running_deployment(redis_url, postgres_url) as deployment:
        await work(await scene_of(deployment, await deployment.caller()))


async def drifted(scene: Scene) -> None:
    await scene.add(f"a:{scene.grant_id}", 1_500_000)


async def sound(scene: Scene) -> None:
    """Leave it as it is."""


async def test_agreement_is_said_and_exits_0(
    cli: CommandLine, clean_redis_url: str, postgres_url: str
) -> None:
    await with_scene(clean_redis_url, postgres_url, sound)
    assert await cli.json("reconcile") == {"drift": False, "accounts": 1, "findings": []}
    told = await cli("reconcile")
    assert told.code == 0
    assert "No drift" in told.out


async def test_drift_is_said_and_exits_1(
    cli: CommandLine, clean_redis_url: str, postgres_url: str
) -> None:
    await with_scene(clean_redis_url, postgres_url, drifted)
    answer = await cli("reconcile", "--json")
    (finding,) = answer.document["findings"]
    assert (answer.code, finding["account"], finding["check"]) == (1, "alice", "redis_lot_sum")
    assert (finding["expected"], finding["found"]) == ("100", "101.5")


async def test_an_account_is_explained_for_programs(
    cli: CommandLine, clean_redis_url: str, postgres_url: str
) -> None:
    await with_scene(clean_redis_url, postgres_url, sound)
    told = await cli.json("reconcile", "--explain", "alice")
    lot, overage = told["grants"]
    assert lot["redis"] == {"available": "86", "held": "5", "settled": "6", "withdrawn": "3"}
    assert lot["postgres"] == {
        "available": "93",
        "settled": "5",
        "withdrawn": "2",
        "expired": "0",
        "revoked": "2",
    }
    assert (lot["granted"], lot["travelling"], overage["source"]) == ("100", "2", "overage")
    assert [(call["stage"], call["held"]) for call in told["calls"]] == [("held", "5")]
    assert [(row["what"], row["amount"]) for row in told["travelling"]] == [
        ("settlement", "1"),
        ("adjust", "1"),
    ]
    assert told["sentence"].startswith("Nothing is wrong")


async def test_an_account_is_explained_for_people_with_what_is_wrong(
    cli: CommandLine, clean_redis_url: str, postgres_url: str
) -> None:
    await with_scene(clean_redis_url, postgres_url, drifted)
    told = await cli("reconcile", "--explain", "alice")
    assert told.code == 1
    for words in ("AVAILABLE", "Redis", "Postgres", "87.5", "Running calls", "On the way"):
        assert words in told.out
    assert "Wrong: grant" in told.out


async def test_an_account_without_calls_is_explained(
    cli: CommandLine, clean_redis_url: str, postgres_url: str
) -> None:
    async with running_deployment(clean_redis_url, postgres_url) as deployment:
        await deployment.caller(microcredits=0)
    told = await cli("reconcile", "--explain", "alice")
    assert told.code == 0
    assert "It has no grants." in told.out
