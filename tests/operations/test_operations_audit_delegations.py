"""The audit holds what delegated keys count against what they may, and finds damage to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pytest

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


async def test_a_share_that_no_script_wrote_is_found(deployment: Deployment) -> None:
    line = await line_of(deployment)
    await line.set(f"p:{line.leaf.key_id}", "nonsense")
    assert await line.checks_found() == {("I1", "redis_account_malformed", "account")}
