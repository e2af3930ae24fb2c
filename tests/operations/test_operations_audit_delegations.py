"""The audit holds what delegated keys count against what they may, and finds damage to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pytest

from gateway.jobs.delegations import Delegations
from gateway.operations.publish import facts_of, publisher
from policies.decision import Admitted
from tests.support.billing_calendar import LostShards
from tests.support.delegations import Agents
from tests.support.deployment import CREDIT, Caller

if TYPE_CHECKING:
    from tests.support.deployment import Deployment


class Line(NamedTuple):
    """A key, what is carved out of it, and what is carved out of that; all have called."""

    agents: Agents
    root: Caller
    child: Caller
    leaf: Caller

    async def set(self, field: str, text: str) -> None:
        """Change a field of the account in Redis behind everybody's back."""
        await self.agents.counters.command("HSET", self.root.keys.name, field, text)

    async def checks_found(self) -> set[tuple[str, str, str]]:
        """Invariant, check and subject of every finding."""
        return {
            (finding.invariant, finding.check, finding.subject)
            for finding in await self.agents.findings()
        }


async def line_of(deployment: Deployment) -> Line:
    agents = Agents(deployment)
    root = await agents.caller()
    child = await agents.agent(root, 50 * CREDIT)
    leaf = await agents.agent(root, 20 * CREDIT, parent=child.key_id)
    for who in (root, child, leaf):
        await deployment.call(who, 2 * CREDIT)
        await deployment.hold(who, CREDIT)
    return Line(agents, root, child, leaf)


async def test_it_is_clean_with_calls_at_every_level_under_caps_of_every_kind(
    deployment: Deployment,
) -> None:
    line = await line_of(deployment)
    assert await line.checks_found() == set()
    await line.agents.cap(line.root, day=60 * CREDIT, month=70 * CREDIT)
    for who in (line.root, line.child, line.leaf):
        await deployment.call(who, CREDIT)
        assert await line.checks_found() == set()
    await deployment.carry()
    assert await line.checks_found() == set()


@pytest.mark.parametrize("level", [0, 1])
async def test_a_cap_that_forgets_what_was_carved_out_is_found(
    deployment: Deployment, level: int
) -> None:
    line = await line_of(deployment)
    key_id = line[1 + level].key_id
    await line.set(f"K{key_id}.ct", f"0:{CREDIT}")
    assert await line.checks_found() == {("I3", "redis_cap_undercounted", f"counter K{key_id}.ct")}


@pytest.mark.parametrize("level", [0, 1, 2])
async def test_a_cap_that_counts_more_than_calls_and_parts_is_found(
    deployment: Deployment, level: int
) -> None:
    line = await line_of(deployment)
    key_id = line[1 + level].key_id
    used = await line.agents.used(line.root, key_id)
    assert used is not None
    await line.set(f"K{key_id}.ct", f"0:{used + 1}")
    assert await line.checks_found() == {("I1", "redis_cap_overcounted", f"counter K{key_id}.ct")}


async def test_a_part_that_is_closed_and_still_counts_is_found(deployment: Deployment) -> None:
    line = await line_of(deployment)
    await deployment.damage("UPDATE api_keys SET closed = true WHERE id = $1", line.leaf.key_id)
    assert ("I1", "redis_share_of_closed_key", f"key {line.leaf.key_id}") in (
        await line.checks_found()
    )


async def test_a_cap_that_is_taken_away_while_calls_run_is_no_damage(
    deployment: Deployment,
) -> None:
    line = await line_of(deployment)
    await line.agents.cap(line.root, total=0)
    assert await line.agents.used(line.root) is None
    assert await line.checks_found() == set()


async def test_what_is_left_of_a_closed_key_itself_is_no_damage(deployment: Deployment) -> None:
    agents = Agents(deployment)
    root = await agents.caller()
    agent = await agents.agent(root)
    await deployment.call(agent, 2 * CREDIT)
    await deployment.carry()
    await agents.revoke(agent.key_id)
    before = await agents.ledger.account_state(root.account.account_id)
    assert before is not None
    fields = (await agents.counters.inspect(root.keys)).fields
    job = Delegations(
        agents.counters, agents.ledger, LostShards(), publisher(agents.ledger, agents.counters)
    )
    assert await job.end() == 1
    await agents.counters.amend(root.keys, facts_of(before))  # read before it was closed
    left = (await agents.counters.inspect(root.keys)).fields
    assert {name for name in left if str(agent.key_id) in name} <= fields.keys()
    assert f"K{agent.key_id}.ct" in left
    assert await agents.findings() == []
    assert not isinstance(await deployment.admit(agent, 1), Admitted)


async def test_a_share_that_no_script_wrote_is_found(deployment: Deployment) -> None:
    line = await line_of(deployment)
    await line.set(f"p:{line.leaf.key_id}", "nonsense")
    assert await line.checks_found() == {("I1", "redis_account_malformed", "account")}
