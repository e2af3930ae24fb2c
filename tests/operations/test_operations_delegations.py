"""Delegated keys: what is carved out of a key is spent once, and ends with it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from gateway.counters import Counters, CountersUnavailable
from gateway.jobs.delegations import Delegations
from gateway.ledger import Scope, Tenancy
from gateway.ledger.rows import Guards
from gateway.operations import delegations as delegations_module
from gateway.operations.delegations import (
    DELEGATED_LIFE_MS_MAX,
    Delegated,
    NotDelegatedError,
    delegate,
)
from gateway.operations.errors import UsageError
from gateway.operations.keys import KeyChanges, change_key, create_key, revoke_key
from gateway.operations.publish import publish_account, publisher
from policies.apikeys import digest
from policies.catalog import Caps, Platform, Route
from policies.decision import Admitted, KeyRefused, RateLimited, ShardLost, SpendCapReached
from policies.delegation import DELEGATION_DEPTH_MAX
from tests.support.billing_calendar import LostShards
from tests.support.delegations import HOUR_MS, Agents
from tests.support.deployment import CREDIT, PEPPER, PLAN, SHARDS
from tests.support.faulty_redis import OwnRedis

if TYPE_CHECKING:
    from tests.support.deployment import Caller, Deployment


@pytest.fixture
def agents(deployment: Deployment) -> Agents:
    return Agents(deployment)


def succeeded(outcomes: list[Any]) -> list[Delegated]:
    """Keys that were made; the others were refused."""
    made = [outcome for outcome in outcomes if isinstance(outcome, Delegated)]
    refused = [outcome for outcome in outcomes if not isinstance(outcome, Delegated)]
    assert all(isinstance(outcome, UsageError) for outcome in refused), refused
    return made


@pytest.mark.parametrize("total", [100 * CREDIT, 0])
async def test_a_delegated_key_spends_its_budget_and_no_more(agents: Agents, total: int) -> None:
    caller = await agents.caller(total=total)
    agent = await agents.agent(caller, 10 * CREDIT)
    assert await agents.used(caller) == (10 * CREDIT if total else None)
    await agents.deployment.call(agent, 7 * CREDIT)
    refused = await agents.deployment.admit(agent, 4 * CREDIT)
    assert refused == SpendCapReached("key", "total", 10 * CREDIT, 7 * CREDIT, 0)
    await agents.deployment.call(agent, 3 * CREDIT)
    assert await agents.used(caller) == (10 * CREDIT if total else None)
    assert await agents.findings() == []
    await agents.deployment.carry()
    assert await agents.findings() == []


async def test_a_delegated_key_is_found_by_the_digest_of_its_jti(agents: Agents) -> None:
    caller = await agents.caller()
    made = await agents.delegate(caller)
    row = await agents.ledger.find_key(digest(made.jti, PEPPER))
    assert row is not None
    assert (row.key_id, row.kind, row.account_id) == (
        *(made.key_id, "delegated"),
        caller.account.account_id,
    )
    key = await agents.key(made.key_id)
    assert (key.parent_key_id, key.budget_microcredits) == (caller.key_id, 10 * CREDIT)
    assert key.expires_ms == made.expires_ms <= await agents.now_ms() + DELEGATED_LIFE_MS_MAX
    assert made.jti not in repr(key)


async def test_of_fifty_who_ask_at_once_as_many_succeed_as_the_cap_has_room_for(
    agents: Agents,
) -> None:
    caller = await agents.caller(total=100 * CREDIT)
    outcomes = await asyncio.gather(
        *(agents.delegate(caller, 10 * CREDIT) for _ in range(50)), return_exceptions=True
    )
    assert len(succeeded(outcomes)) == 10
    assert await agents.used(caller) == 100 * CREDIT
    with pytest.raises(UsageError, match=f"key {caller.key_id} has 0 credits left"):
        await agents.delegate(caller, 1)
    fields = (await agents.counters.inspect(caller.keys)).fields
    assert sum(name.startswith("p:") for name in fields) == 10
    children = await agents.ledger.child_keys(
        agents.deployment.platform_id, caller.key_id, limit=100
    )
    assert sum(key.status == "active" for key in children) == 10
    assert await agents.ledger.ended_delegations(100) == [], "what was refused is closed at once"
    assert await agents.findings() == []


async def test_ten_agents_and_their_principal_never_spend_more_than_its_cap(
    agents: Agents,
) -> None:
    caller = await agents.caller(total=100 * CREDIT)
    parts = [await agents.agent(caller, 9 * CREDIT) for _ in range(10)]
    charged: list[int] = []

    async def spend(who: Caller) -> None:
        for amount in (3, 2, 3, 2, 3, 1):
            decision = await agents.deployment.admit(who, amount * CREDIT)
            if isinstance(decision, Admitted):
                await agents.deployment.settle(who, decision.call_id, amount * CREDIT)
                charged.append(amount * CREDIT)
            else:
                assert isinstance(decision, SpendCapReached)

    await asyncio.gather(*(spend(who) for who in (*parts, caller) for _ in range(3)))
    assert sum(charged) == 100 * CREDIT
    assert await agents.used(caller) == 100 * CREDIT
    assert await agents.findings() == []


@pytest.mark.parametrize("level", [0, 1, 2])
async def test_a_key_that_is_revoked_in_the_middle_refuses_all_below_it_at_once(
    agents: Agents, level: int
) -> None:
    caller = await agents.caller()
    child = await agents.agent(caller, 50 * CREDIT)
    leaves = [await agents.agent(caller, CREDIT, parent=child.key_id) for _ in range(4)]
    line = [caller, child, leaves[0]]
    below = {0: [caller, child, *leaves], 1: [child, *leaves], 2: leaves[:1]}[level]
    revoked = asyncio.Event()
    after: list[object] = []

    async def call(who: Caller) -> None:
        while len(after) < 40:
            told = revoked.is_set()
            decision = await agents.deployment.admit(who, 1)
            if told:
                after.append(decision)
            elif isinstance(decision, Admitted):
                await agents.deployment.settle(who, decision.call_id, 1)

    async def revoke() -> None:
        key = await agents.key(line[level].key_id)
        parts = (agents.ledger, agents.counters, agents.deployment.platform_id)
        await revoke_key(*parts, key)
        revoked.set()

    await asyncio.gather(*(call(who) for who in below), revoke())
    assert {type(decision) for decision in after} == {KeyRefused}
    spared = {0: [], 1: [caller], 2: [caller, child, *leaves[1:]]}[level]
    for who in spared:
        assert isinstance(await agents.deployment.admit(who, 1), Admitted)


async def test_an_ancestors_limits_bind_all_below_it_together(agents: Agents) -> None:
    caller = await agents.caller()
    one, other = await agents.agent(caller), await agents.agent(caller)
    await agents.cap(caller, day=4 * CREDIT)
    await agents.deployment.call(one, 2 * CREDIT)
    await agents.deployment.call(other, 2 * CREDIT)
    for who in (one, other, caller):
        refused = await agents.deployment.admit(who, CREDIT)
        assert isinstance(refused, SpendCapReached)
        assert (refused.source, refused.window) == ("key", "day")
    await agents.cap(caller, day=0, requests_per_minute=1)
    assert isinstance(await agents.deployment.admit(one), Admitted)
    assert isinstance(await agents.deployment.admit(other), RateLimited)
    assert await agents.findings() == []


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"budget": 0}, "budget is more than 0"),
        ({"budget": 2**53}, "budget is more than 0"),
        ({"budget": 101 * CREDIT}, "has 100 credits left"),
        ({"life_ms": 1_000}, "lives for 5 s at least"),
        ({"life_ms": DELEGATED_LIFE_MS_MAX + 90_000}, "86400 s at most"),
        ({"routes": ("imges",)}, 'did you mean "images"'),
        ({"routes": ("images",)}, 'is not for the route "images"'),
    ],
)
async def test_what_a_key_does_not_allow_is_refused_and_leaves_nothing(
    agents: Agents, wrong: dict[str, Any], message: str
) -> None:
    routes = [
        Route(name, ("GET",), f"/{name}", "http://127.0.0.1:1", None) for name in ("chat", "images")
    ]
    await agents.ledger.apply_catalog(Platform("demo"), [PLAN], routes)
    caller = await agents.caller()
    if "routes" in wrong:
        parts = (agents.ledger, agents.counters, agents.deployment.platform_id)
        await change_key(*parts, caller.key_id, KeyChanges(routes=["chat"]))
    with pytest.raises(UsageError, match=message):
        await agents.delegate(caller, **wrong)
    assert await agents.used(caller) == 0
    assert await agents.ledger.ended_delegations(10) == []


async def test_a_part_is_for_no_more_and_lives_no_longer_than_the_whole(agents: Agents) -> None:
    routes = [
        Route(name, ("GET",), f"/{name}", "http://127.0.0.1:1", None)
        for name in ("chat", "images", "voice")
    ]
    await agents.ledger.apply_catalog(Platform("demo"), [PLAN], routes)
    caller = await agents.caller()
    parts = (agents.ledger, agents.counters, agents.deployment.platform_id)
    changes = KeyChanges(
        routes=["chat", "images"],
        addresses=["10.0.0.0/8"],
        expires_ms=await agents.now_ms() + 2 * HOUR_MS,
    )
    await change_key(*parts, caller.key_id, changes)
    child = await agents.delegate(caller, routes=("chat",), life_ms=HOUR_MS)
    with pytest.raises(UsageError, match='not for the route "images"'):
        await agents.delegate(caller, 1, parent=child.key_id, routes=("images",))
    with pytest.raises(UsageError, match="no longer"):
        await agents.delegate(caller, 1, life_ms=3 * HOUR_MS)
    with pytest.raises(UsageError, match="no longer"):
        await agents.delegate(caller, 1, parent=child.key_id, life_ms=HOUR_MS + 60_000)
    leaf = await agents.delegate(caller, 1, parent=child.key_id)
    assert leaf.expires_ms == child.expires_ms
    row = await agents.ledger.find_key(digest(leaf.jti, PEPPER))
    assert row is not None
    assert (row.routes, row.addresses, row.guard_version) == (("chat",), ("10.0.0.0/8",), 1)
    assert (child.routes, leaf.routes) == (("chat",), ())
    assert (await agents.key(leaf.key_id)).guards == Guards()


async def test_keys_are_delegated_over_so_many_levels(agents: Agents) -> None:
    caller = await agents.caller()
    parent = caller.key_id
    for _ in range(DELEGATION_DEPTH_MAX):
        parent = (await agents.delegate(caller, 5 * CREDIT, parent=parent)).key_id
    assert isinstance(await agents.deployment.admit(caller, key_id=parent), Admitted)
    with pytest.raises(UsageError, match="at most 4 levels"):
        await agents.delegate(caller, 1, parent=parent)


@pytest.mark.parametrize("how", ["revoke", "expire"])
async def test_from_a_key_that_is_over_or_below_one_nothing_is_delegated(
    agents: Agents, how: str
) -> None:
    caller = await agents.caller()
    child = await agents.delegate(caller)
    if how == "revoke":
        await agents.revoke(caller.key_id)
    else:
        await agents.expire(caller, caller.key_id)
    for parent in (caller.key_id, child.key_id):
        with pytest.raises(UsageError, match="is over"):
            await agents.delegate(caller, 1, parent=parent)


async def test_from_a_key_of_another_account_nothing_is_delegated(agents: Agents) -> None:
    alice, bob = await agents.caller("alice"), await agents.caller("bob")
    with pytest.raises(UsageError, match="has no key"):
        await agents.delegate(alice, 1, parent=bob.key_id)
    assert await agents.used(bob) == 0


async def test_an_account_has_so_many_delegated_keys_however_many_ask_at_once(
    agents: Agents, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delegations_module, "DELEGATED_KEYS_MAX", 3)
    caller = await agents.caller()
    other = await create_key(
        agents.ledger, agents.counters, caller.account, agents.deployment.maker
    )
    outcomes = await asyncio.gather(
        *(
            agents.delegate(caller, 1, parent=parent)
            for parent in (caller.key_id, other.key_id)
            for _ in range(6)
        ),
        return_exceptions=True,
    )
    assert len(succeeded(outcomes)) == 3


async def test_while_keys_are_delegated_and_one_is_revoked_none_below_it_stays_active(
    agents: Agents,
) -> None:
    caller = await agents.caller()
    child = await agents.delegate(caller, 50 * CREDIT)

    async def revoke() -> None:
        await asyncio.sleep(0)
        await agents.revoke(child.key_id)

    await asyncio.gather(
        *(agents.delegate(caller, CREDIT, parent=child.key_id) for _ in range(8)),
        revoke(),
        return_exceptions=True,
    )
    below = await agents.ledger.child_keys(agents.deployment.platform_id, child.key_id, limit=20)
    assert {key.status for key in below} <= {"revoked"}
    for key in below:
        decision = await agents.deployment.admit(caller, 1, key_id=key.key_id)
        assert not isinstance(decision, Admitted)


async def test_an_account_that_redis_does_not_have_is_loaded_first(agents: Agents) -> None:
    caller = await agents.deployment.caller()
    await agents.deployment.open_shard(caller.keys.shard)
    agent = await agents.agent(caller, 2 * CREDIT)
    assert isinstance(await agents.deployment.admit(agent, 2 * CREDIT), Admitted)
    assert isinstance(await agents.deployment.admit(agent, 1), SpendCapReached)
    assert await agents.findings() == []


async def test_a_shard_that_was_never_used_is_waited_for(agents: Agents) -> None:
    caller = await agents.deployment.caller()
    parent = await agents.key(caller.key_id)
    parts = (agents.ledger, agents.counters, caller.account, parent)
    with pytest.raises(NotDelegatedError, match="rebuilt"):
        await delegate(*parts, pepper=PEPPER, budget_microcredits=CREDIT)

    async def ready(_lost: ShardLost, shard: int) -> bool:
        await agents.deployment.open_shard(shard)
        return True

    made = await delegate(*parts, pepper=PEPPER, budget_microcredits=CREDIT, ready=ready)
    decision = await agents.deployment.admit(caller, CREDIT, key_id=made.key_id)
    assert isinstance(decision, Admitted)
    children = await agents.ledger.child_keys(
        agents.deployment.platform_id, caller.key_id, limit=10
    )
    assert [key.status for key in children] == ["revoked", "active"]


async def test_without_redis_nothing_is_delegated_and_what_was_begun_ends(
    agents: Agents, deployment: Deployment
) -> None:
    async with (
        OwnRedis() as server,
        Counters(server.url, shards=SHARDS, deadline_ms=500) as counters,
    ):
        deployment.counters = counters
        agents = Agents(deployment)
        caller = await agents.caller()
        caller.keys = counters.keys(caller.account.account_id)
        now_ms = await agents.now_ms()
        parent = await agents.key(caller.key_id)
        server.stop()
        with pytest.raises(NotDelegatedError, match="Redis did not answer"):
            await delegate(
                agents.ledger,
                counters,
                caller.account,
                parent,
                pepper=PEPPER,
                budget_microcredits=CREDIT,
                expires_ms=now_ms + HOUR_MS,
            )
        (ended,) = await agents.ledger.ended_delegations(10)
        assert (await agents.key(ended.key_id)).status == "revoked"
        server.resume()
        job = Delegations(counters, agents.ledger, LostShards(), publisher(agents.ledger, counters))
        for _ in range(2):
            await eventually_ended(job)
        assert await agents.ledger.ended_delegations(10) == []
        assert await agents.used(caller) == 0


async def eventually_ended(job: Delegations) -> None:
    """A round that Redis answers."""
    for _ in range(100):
        try:
            await job.end()
        except CountersUnavailable:
            await asyncio.sleep(0.1)
        else:
            return
    raise AssertionError("Redis did not come back")


async def test_an_account_delegates_through_the_apis_role_and_from_its_own_keys_only(
    agents: Agents,
) -> None:
    alice, bob = await agents.caller("alice"), await agents.caller("bob")
    scope = Scope(agents.deployment.platform_id, alice.account.account_id, "key:1")
    async with Tenancy(agents.deployment.postgres_url) as tenancy:
        ledger = tenancy.ledger(scope)
        options = {
            "pepper": PEPPER,
            "budget_microcredits": CREDIT,
            "expires_ms": await agents.now_ms() + HOUR_MS,
        }
        parent, foreign = await agents.key(alice.key_id), await agents.key(bob.key_id)
        made = await delegate(ledger, agents.counters, alice.account, parent, **options)  # type: ignore[arg-type]
        for account in (alice.account, bob.account):
            with pytest.raises(UsageError, match="has no key"):
                await delegate(ledger, agents.counters, account, foreign, **options)  # type: ignore[arg-type]
        assert await ledger.key(agents.deployment.platform_id, bob.key_id) is None
        await revoke_key(ledger, agents.counters, scope.platform_id, await agents.key(made.key_id))
    assert isinstance(await agents.deployment.admit(alice, 1, key_id=made.key_id), KeyRefused)
    assert await agents.used(bob) == 0


@pytest.mark.parametrize("total", [50 * CREDIT, 5 * CREDIT])
async def test_a_cap_that_comes_between_a_keys_row_and_its_carving_counts_it_once(
    agents: Agents, monkeypatch: pytest.MonkeyPatch, total: int
) -> None:
    caller = await agents.caller(total=0)
    carve = agents.counters.carve

    async def carve_late(*arguments: Any) -> Any:
        monkeypatch.setattr(agents.counters, "carve", carve)
        await agents.cap(caller, total=total)
        return await carve(*arguments)

    monkeypatch.setattr(agents.counters, "carve", carve_late)
    made = succeeded(
        await asyncio.gather(agents.delegate(caller, 10 * CREDIT), return_exceptions=True)
    )
    assert len(made) == (total > 10 * CREDIT)
    assert await agents.used(caller) == len(made) * 10 * CREDIT
    assert await agents.findings() == []


async def test_a_cap_counts_what_was_carved_while_it_was_told(
    agents: Agents, monkeypatch: pytest.MonkeyPatch
) -> None:
    caller = await agents.caller(total=0)
    await agents.agent(caller, 3 * CREDIT)
    amend = agents.counters.amend

    async def amend_late(*arguments: Any, **options: Any) -> bool:
        monkeypatch.setattr(agents.counters, "amend", amend)
        await agents.agent(caller, 15 * CREDIT)
        return await amend(*arguments, **options)

    monkeypatch.setattr(agents.counters, "amend", amend_late)
    await agents.cap(caller, total=20 * CREDIT)
    assert await agents.used(caller) == 18 * CREDIT
    assert await agents.findings() == []


async def test_who_loads_an_account_that_is_loaded_tells_no_cap_too_early(agents: Agents) -> None:
    caller = await agents.caller(total=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gateway.operations.keys.publish_account", _untold)
        await agents.cap(caller, total=20 * CREDIT)
    before = await agents.ledger.account_state(caller.account.account_id)
    assert before is not None
    await agents.agent(caller, 15 * CREDIT)
    assert not await agents.counters.load(caller.keys, before)
    account = caller.account
    await publish_account(agents.ledger, agents.counters, account.account_id, account.name)
    assert await agents.used(caller) == 15 * CREDIT
    assert await agents.findings() == []


async def test_a_key_that_redis_was_not_told_of_counts_what_is_carved_out_of_it_once(
    agents: Agents,
) -> None:
    caller = await agents.caller()
    deployment = agents.deployment
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gateway.operations.keys.publish_account", _untold)
        new = await create_key(
            agents.ledger,
            agents.counters,
            caller.account,
            deployment.maker,
            caps=Caps(total=20 * CREDIT),
        )
    await agents.delegate(caller, 15 * CREDIT, parent=new.key_id)
    assert await agents.used(caller, new.key_id) == 15 * CREDIT
    assert await agents.findings() == []


async def test_what_is_carved_after_its_asker_has_given_up_comes_back(
    agents: Agents, monkeypatch: pytest.MonkeyPatch
) -> None:
    caller = await agents.caller()
    carve, sent = agents.counters.carve, []

    async def unanswered(*arguments: Any) -> Any:
        sent.append(arguments)
        raise CountersUnavailable("no answer in time")

    monkeypatch.setattr(agents.counters, "carve", unanswered)
    with pytest.raises(NotDelegatedError):
        await agents.delegate(caller, 10 * CREDIT)
    await carve(*sent[0])
    assert await agents.used(caller) == 10 * CREDIT
    publish = publisher(agents.ledger, agents.counters)
    job = Delegations(agents.counters, agents.ledger, LostShards(), publish)
    assert [await job.end() for _ in range(2)] == [0, 1]
    assert await agents.used(caller) == 0
    assert await agents.findings() == []


async def _untold(*_: object) -> None:
    """In place of telling Redis."""
