"""What delegated keys have not used comes back once, whoever dies when; what they used does not."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from gateway.counters import CountersUnavailable
from gateway.jobs import delegations as delegations_module
from gateway.jobs.delegations import Delegations
from gateway.ledger.delegations import Family, NewDelegation
from gateway.operations.keys import KeyChanges, change_key
from gateway.operations.publish import publisher
from policies.decision import Admitted, HoldGone, KeyRefused, NotLoaded, Raised
from tests.support.billing_calendar import Died, DiesAfter, LostShards
from tests.support.delegations import HOUR_MS, Agents
from tests.support.deployment import CREDIT, running_deployment

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.deployment import Caller


@pytest_asyncio.fixture
async def agents(clean_redis_url: str, postgres_url: str) -> AsyncIterator[Agents]:
    async with running_deployment(clean_redis_url, postgres_url) as deployment:
        yield Agents(deployment)


def job(agents: Agents, **parts: Any) -> Delegations:
    """The job of a node, perhaps with a stand-in for one of its parts."""
    return Delegations(
        parts.get("counters", agents.counters),
        parts.get("ledger", agents.ledger),
        parts.get("lost_shards", LostShards()),
        parts.get("publish", publisher(agents.ledger, agents.counters)),
    )


async def is_closed(agents: Agents, key_id: int) -> bool:
    state = await agents.ledger.account_state((await agents.key(key_id)).account_id)
    assert state is not None
    return f"k:{key_id}" not in state


async def counted_by_postgres(agents: Agents, caller: Caller) -> int:
    """What the caller's key counts once its account is loaded anew."""
    while await agents.deployment.carry():
        pass
    state = await agents.ledger.account_state(caller.account.account_id)
    assert state is not None
    return int(str(state[f"K{caller.key_id}.ct"]).partition(":")[2])


@pytest.mark.parametrize("how", ["revoke", "expire"])
async def test_what_was_not_used_comes_back_when_a_key_is_over(agents: Agents, how: str) -> None:
    caller = await agents.caller()
    agent = await agents.agent(caller, 30 * CREDIT)
    await agents.deployment.call(agent, 12 * CREDIT)
    assert await job(agents).end() == 0
    assert await agents.used(caller) == 30 * CREDIT

    if how == "revoke":
        await agents.revoke(agent.key_id)
    else:
        await agents.expire(caller, agent.key_id)
    assert await job(agents).end() == 1

    assert await agents.used(caller) == 12 * CREDIT
    assert await agents.findings() == []
    assert await is_closed(agents, agent.key_id)
    assert await agents.findings() == []
    assert await counted_by_postgres(agents, caller) == 12 * CREDIT
    fields = (await agents.counters.inspect(caller.keys)).fields
    assert not any(str(agent.key_id) in name for name in fields if name[0] in "kKp")
    assert await job(agents).end() == 0
    assert (await agents.key(agent.key_id)).status == ("revoked" if how == "revoke" else "active")


async def test_what_comes_back_can_be_spent_and_delegated_again(agents: Agents) -> None:
    caller = await agents.caller(total=10 * CREDIT)
    for _ in range(3):
        agent = await agents.agent(caller, 10 * CREDIT)
        await agents.revoke(agent.key_id)
        assert await job(agents).end() == 1
    await agents.deployment.call(caller, 10 * CREDIT)
    assert await agents.findings() == []


async def test_while_a_call_runs_its_hold_counts_and_its_rest_comes_back_with_its_end(
    agents: Agents,
) -> None:
    caller = await agents.caller()
    agent = await agents.agent(caller, 30 * CREDIT)
    running = await agents.deployment.hold(agent, 20 * CREDIT)
    await agents.revoke(agent.key_id)
    for _ in range(2):
        assert await job(agents).end() == 0
        assert await agents.used(caller) == 20 * CREDIT
        assert await agents.findings() == []
    raised = await agents.counters.raise_hold(
        agent.keys, running, b"%d" % agent.key_id, 25 * CREDIT, 25 * CREDIT
    )
    assert not isinstance(raised, (Raised, HoldGone))

    await agents.deployment.settle(agent, running, 5 * CREDIT)
    assert await job(agents).end() == 1
    assert await agents.used(caller) == 5 * CREDIT
    assert await agents.findings() == []
    assert await counted_by_postgres(agents, caller) == 5 * CREDIT


async def test_leaves_come_first_and_each_level_gets_its_own_back(agents: Agents) -> None:
    caller = await agents.caller()
    child = await agents.agent(caller, 50 * CREDIT)
    leaf = await agents.agent(caller, 20 * CREDIT, parent=child.key_id)
    await agents.deployment.call(leaf, 3 * CREDIT)
    await agents.deployment.call(child, 4 * CREDIT)
    running = await agents.deployment.hold(leaf, 10 * CREDIT)
    await agents.revoke(child.key_id)

    assert await job(agents).end() == 0
    assert await agents.used(caller, child.key_id) == 17 * CREDIT
    assert await agents.used(caller) == 17 * CREDIT
    await agents.deployment.settle(leaf, running, 2 * CREDIT)
    closed = [await job(agents).end() for _ in range(3)]
    assert closed == [1, 1, 0], "a key waits for what is below it"
    assert await agents.used(caller) == 9 * CREDIT
    assert await agents.findings() == []
    assert await counted_by_postgres(agents, caller) == 9 * CREDIT


async def test_a_leaf_that_is_over_gives_back_to_a_key_that_goes_on(agents: Agents) -> None:
    caller = await agents.caller()
    child = await agents.agent(caller, 50 * CREDIT)
    leaf = await agents.agent(caller, 50 * CREDIT, parent=child.key_id)
    await agents.deployment.call(leaf, 1 * CREDIT)
    assert not isinstance(await agents.deployment.admit(child, 1), Admitted)
    await agents.revoke(leaf.key_id)
    assert await job(agents).end() == 1
    await agents.deployment.call(child, 49 * CREDIT)
    assert not isinstance(await agents.deployment.admit(child, 1), Admitted)
    assert await agents.used(caller) == 50 * CREDIT
    assert await agents.findings() == []


@pytest.mark.parametrize(
    ("part", "method"),
    [
        ("ledger", "ended_delegations"),
        ("counters", "give_back"),
        ("counters", "inspect"),
        ("counters", "the last give_back"),
        ("ledger", "close_delegation"),
        ("publish", ""),
    ],
)
@pytest.mark.parametrize("reloaded", [False, True])
async def test_dying_after_any_step_gives_back_once(
    agents: Agents, part: str, method: str, reloaded: bool
) -> None:
    caller = await agents.caller()
    child = await agents.agent(caller, 50 * CREDIT)
    leaf = await agents.agent(caller, 20 * CREDIT, parent=child.key_id)
    await agents.deployment.call(leaf, 3 * CREDIT)
    await agents.deployment.call(child, 4 * CREDIT)
    await agents.deployment.carry()
    publish = publisher(agents.ledger, agents.counters)
    if part == "publish":
        await agents.ledger.revoke_key(agents.deployment.platform_id, child.key_id)
    else:
        await agents.revoke(child.key_id)

    async def last_words(account_id: int) -> None:
        await publish(account_id)
        raise Died

    stand_in: Any = {"counters": agents.counters, "ledger": agents.ledger}.get(part)
    if part == "publish":
        stand_in = last_words
    elif method == "the last give_back":
        stand_in = DiesAfterLast(stand_in)
    else:
        stand_in = DiesAfter(stand_in, method)
    with pytest.raises(Died):
        await job(agents, **{part: stand_in}).end()
    if reloaded:
        await agents.counters.command("DEL", caller.keys.name)
        await agents.deployment.call(caller, 0)
    for _ in range(3):
        await job(agents).end()

    assert await agents.used(caller) == 7 * CREDIT
    assert await counted_by_postgres(agents, caller) == 7 * CREDIT
    for who in (child, leaf):
        assert await is_closed(agents, who.key_id)
    assert await agents.findings() == []


class DiesAfterLast:
    """Counters whose user dies right after the first giving back with `last`."""

    def __init__(self, counters: Any) -> None:
        self._counters = counters

    def __getattr__(self, name: str) -> Any:
        return getattr(self._counters, name)

    async def give_back(self, *arguments: Any, last: bool) -> object:
        """As the counters do; then death."""
        answer = await self._counters.give_back(*arguments, last=last)
        if last:
            raise Died
        return answer


async def test_a_key_that_was_never_carved_out_gives_nothing_back(agents: Agents) -> None:
    caller = await agents.caller()

    def decide(family: Family) -> NewDelegation:
        return NewDelegation(
            name="agent",
            prefix="jti",
            last4="wxyz",
            pepper_version=1,
            digest=b"jti",
            budget_microcredits=5 * CREDIT,
            expires_ms=family.now_ms + HOUR_MS,
            routes=(),
            guarded=False,
            metadata={},
        )

    key_id = await agents.ledger.delegate_key(caller.account.account_id, caller.key_id, decide)
    assert key_id is not None
    await agents.cap(caller, day=50 * CREDIT)  # which publishes the account, the new key with it
    assert isinstance(await agents.deployment.admit(caller, 1, key_id=key_id), KeyRefused)
    await agents.expire(caller, key_id)
    assert await job(agents).end() == 1
    assert await agents.used(caller) == 0
    assert await agents.findings() == []


async def test_a_key_whose_end_redis_was_not_told_of_is_told_and_then_ended(
    agents: Agents,
) -> None:
    caller = await agents.caller()
    agent = await agents.agent(caller, 30 * CREDIT)
    await agents.ledger.revoke_key(agents.deployment.platform_id, agent.key_id)
    assert isinstance(await agents.deployment.admit(agent, 0), Admitted)
    assert await job(agents).end() == 0
    assert isinstance(await agents.deployment.admit(agent, 0), KeyRefused)
    fields = (await agents.counters.inspect(caller.keys)).holds
    for call_id in fields:
        await agents.deployment.settle(agent, call_id, 0)
    assert await job(agents).end() == 1
    assert await agents.used(caller) == 0


async def test_of_an_account_that_redis_does_not_have_keys_are_only_closed(agents: Agents) -> None:
    caller = await agents.caller()
    agent = await agents.agent(caller, 30 * CREDIT)
    await agents.deployment.call(agent, 2 * CREDIT)
    await agents.deployment.carry()
    await agents.expire(caller, agent.key_id)
    asked = NotLoaded(*(await agents.counters.meta(caller.keys.shard)))  # type: ignore[arg-type]
    outdated = await agents.ledger.account_state(caller.account.account_id)
    assert outdated is not None
    await agents.counters.command("DEL", caller.keys.name)

    assert await job(agents).end() == 1

    assert not await agents.counters.load(caller.keys, outdated, asked), "it would count a budget"
    await agents.deployment.call(caller, 0)
    assert await agents.used(caller) == 2 * CREDIT
    assert await agents.findings() == []


async def test_what_redis_is_told_while_a_key_is_closed_is_forgotten_again(agents: Agents) -> None:
    caller = await agents.caller()
    agent = await agents.agent(caller, 30 * CREDIT)
    await agents.revoke(agent.key_id)

    class ToldMeanwhile(DiesAfterLast):
        async def close_delegation(self, key_id: int) -> bool:
            await publisher(agents.ledger, agents.counters)(caller.account.account_id)
            assert f"k:{key_id}" in (await agents.counters.inspect(caller.keys)).fields
            return bool(await agents.ledger.close_delegation(key_id))

    assert await job(agents, ledger=ToldMeanwhile(agents.ledger)).end() == 1
    fields = (await agents.counters.inspect(caller.keys)).fields
    assert f"k:{agent.key_id}" not in fields
    assert f"K{agent.key_id}.ct" not in fields


async def test_a_lost_shard_is_seen_to_and_its_keys_later(agents: Agents) -> None:
    caller = await agents.caller()
    agent = await agents.agent(caller, 30 * CREDIT)
    await agents.revoke(agent.key_id)
    shard = caller.keys.shard
    epoch, _ = await agents.counters.meta(shard)
    assert await agents.counters.close_shard(shard, await agents.ledger.next_epoch(shard), epoch)
    seen = LostShards()
    assert await job(agents, lost_shards=seen).end() == 0
    assert seen.told == [("CLOSED", shard)]
    assert not await is_closed(agents, agent.key_id)


async def test_a_shard_that_does_not_answer_keeps_no_other_waiting(agents: Agents) -> None:
    callers = [await agents.caller(name) for name in ("alice", "bob", "carol")]
    for caller in callers:
        await agents.revoke((await agents.agent(caller)).key_id)
    silent = callers[1].account.account_id

    class Partly(DiesAfterLast):
        async def give_back(self, keys: Any, key_id: int, *, last: bool) -> object:
            if keys.account_id == silent:
                raise CountersUnavailable("silent")
            return await self._counters.give_back(keys, key_id, last=last)

    with pytest.raises(CountersUnavailable):
        await job(agents, counters=Partly(agents.counters)).end()
    assert [await agents.used(caller) for caller in callers] == [0, 10 * CREDIT, 0]
    assert await job(agents).end() == 1


async def test_any_number_of_nodes_give_back_once_page_by_page_while_agents_call(
    agents: Agents, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delegations_module, "PAGE_KEYS_MAX", 3)
    caller = await agents.caller()
    parts = [await agents.agent(caller, 10 * CREDIT) for _ in range(8)]
    charged: list[int] = []

    async def spend(who: Caller) -> None:
        while True:
            decision = await agents.deployment.admit(who, 2)
            if not isinstance(decision, Admitted):
                assert isinstance(decision, KeyRefused)
                return
            await asyncio.sleep(0)
            await agents.deployment.settle(who, decision.call_id, 1)
            charged.append(1)

    async def end() -> None:
        await asyncio.sleep(0)
        for who in parts:
            await agents.revoke(who.key_id)
            await asyncio.gather(*(job(agents).end() for _ in range(3)))

    await asyncio.gather(*(spend(who) for who in parts for _ in range(2)), end())
    for _ in range(2):
        await job(agents).end()
    assert charged
    assert await agents.used(caller) == sum(charged)
    assert await agents.findings() == []
    assert await counted_by_postgres(agents, caller) == sum(charged)
    for who in parts:
        assert await is_closed(agents, who.key_id)


async def test_a_new_cap_counts_what_is_delegated_and_what_closed_keys_used(
    agents: Agents,
) -> None:
    caller = await agents.caller(total=0)
    closed, alive = await agents.agent(caller, 30 * CREDIT), await agents.agent(caller, 9 * CREDIT)
    await agents.deployment.call(closed, 2 * CREDIT)
    await agents.revoke(closed.key_id)
    assert await job(agents).end() == 1
    await agents.deployment.carry()
    changes = KeyChanges(bounds={"total": 100 * CREDIT})
    platform_id = agents.deployment.platform_id
    await change_key(agents.ledger, agents.counters, platform_id, caller.key_id, changes)
    assert await agents.used(caller) == 11 * CREDIT
    await agents.revoke(alive.key_id)
    assert await job(agents).end() == 1
    assert await agents.used(caller) == 2 * CREDIT
    assert await agents.findings() == []


async def test_a_cap_that_is_ended_and_set_again_counts_an_ending_key_as_far_as_it_is_used(
    agents: Agents,
) -> None:
    caller = await agents.caller()
    agent = await agents.agent(caller, 30 * CREDIT)
    running = await agents.deployment.hold(agent, 5 * CREDIT)
    await agents.revoke(agent.key_id)
    await job(agents).end()
    await agents.cap(caller, total=0)
    await agents.cap(caller, total=50 * CREDIT)
    assert await agents.used(caller) == 5 * CREDIT
    await agents.deployment.settle(agent, running, 2 * CREDIT)
    assert await job(agents).end() == 1
    assert await agents.used(caller) == 2 * CREDIT
    assert await agents.findings() == []


async def test_a_cap_that_is_told_while_a_key_is_closed_counts_what_that_used(
    agents: Agents, monkeypatch: pytest.MonkeyPatch
) -> None:
    caller = await agents.caller(total=0)
    agent = await agents.agent(caller, 30 * CREDIT)
    await agents.deployment.call(agent, 2 * CREDIT)
    await agents.deployment.carry()
    await agents.revoke(agent.key_id)
    amend = agents.counters.amend

    async def amend_late(*arguments: Any, **options: Any) -> bool:
        monkeypatch.setattr(agents.counters, "amend", amend)
        assert await job(agents).end() == 1
        return await amend(*arguments, **options)

    monkeypatch.setattr(agents.counters, "amend", amend_late)
    await agents.cap(caller, total=50 * CREDIT)
    assert await agents.used(caller) == 2 * CREDIT
    assert await agents.findings() == []
