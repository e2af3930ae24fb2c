"""What people do with keys: find, guard, note, change and rotate them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from gateway.ledger.rows import Guards
from gateway.operations.delegations import delegate
from gateway.operations.errors import UsageError
from gateway.operations.guards import (
    GUARD_NETWORKS_MAX,
    GUARD_ROUTES_MAX,
    check_addresses,
    check_metadata,
    check_routes,
)
from gateway.operations.keys import (
    KeyChangedError,
    KeyChanges,
    change_key,
    create_key,
    rotate_key,
)
from policies.apikeys import digest
from policies.catalog import Caps, Limits, Platform, Route
from policies.decision import Admitted, GuardChanged, KeyRefused, SpendCapReached
from tests.support.deployment import CREDIT, PEPPER, PLAN, Caller, Deployment

if TYPE_CHECKING:
    from gateway.ledger import KeyListRow

HOUR_MS = 3_600_000
ROUTES = tuple(
    Route(name, ("GET",), f"/{name}", "http://127.0.0.1:1", None) for name in ("chat", "images")
)


async def with_routes(deployment: Deployment) -> Caller:
    await deployment.ledger.apply_catalog(Platform("demo"), [PLAN], ROUTES)
    return await deployment.caller()


async def key_of(deployment: Deployment, key_id: int) -> KeyListRow:
    key = await deployment.ledger.key(deployment.platform_id, key_id)
    assert key is not None
    return key


async def change(
    deployment: Deployment,
    caller: Caller,
    changes: KeyChanges,
    *,
    expected: KeyListRow | None = None,
) -> KeyListRow:
    return await change_key(
        deployment.ledger,
        deployment.counters,
        deployment.platform_id,
        caller.key_id,
        changes,
        expected=expected,
    )


async def redis_ms(deployment: Deployment) -> int:
    seconds, _ = await deployment.counters.command("TIME")
    return int(seconds) * 1000


async def test_all_of_a_key_is_changed_at_once(deployment: Deployment) -> None:
    caller = await with_routes(deployment)
    before = await key_of(deployment, caller.key_id)
    later_ms = await redis_ms(deployment) + HOUR_MS
    changes = KeyChanges(
        name="renamed",
        expires_ms=later_ms,
        bounds={"concurrency": 3, "day": CREDIT},
        routes=["images", "chat", "chat"],
        addresses=["10.1.0.0/16", "::1", "10.0.0.1"],
        metadata={"team": "blue"},
    )
    key = await change(deployment, caller, changes)
    assert key.facts == (
        *("renamed", later_ms, Limits(concurrency=3), Caps(day=CREDIT)),
        Guards(("chat", "images"), ("10.0.0.1/32", "10.1.0.0/16", "::1/128")),
        {"team": "blue"},
    )
    assert key.guard_version == before.guard_version + 1
    assert await key_of(deployment, caller.key_id) == key
    assert await change(deployment, caller, KeyChanges()) == key
    cleared = KeyChanges(expires_ms=0, routes=(), addresses=(), metadata={})
    key = await change(deployment, caller, cleared)
    assert (key.expires_ms, key.guards, key.metadata) == (0, Guards(), {})
    assert (key.name, key.limits) == ("renamed", Limits(concurrency=3))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (KeyChanges(name=""), "1 to 100"),
        (KeyChanges(bounds={"burst": 5}), "burst is of no use"),
        (KeyChanges(routes=["chta"]), 'did you mean "chat"'),
        (KeyChanges(addresses=["10.0.0.1/8"]), "not a network"),
        (KeyChanges(metadata={"": "x"}), "1 to 40"),
    ],
)
async def test_a_change_with_one_wrong_part_changes_nothing(
    deployment: Deployment, changes: KeyChanges, message: str
) -> None:
    caller = await with_routes(deployment)
    before = await key_of(deployment, caller.key_id)
    with pytest.raises(UsageError, match=message):
        await change(deployment, caller, changes._replace(expires_ms=5))
    assert await key_of(deployment, caller.key_id) == before


async def test_of_two_who_change_what_they_saw_the_second_is_told(deployment: Deployment) -> None:
    caller = await deployment.caller()
    seen = await key_of(deployment, caller.key_id)
    outcomes = await asyncio.gather(
        *(change(deployment, caller, KeyChanges(name=name), expected=seen) for name in "ab"),
        return_exceptions=True,
    )
    assert sum(isinstance(outcome, KeyChangedError) for outcome in outcomes) == 1
    assert (await key_of(deployment, caller.key_id)).name in {"a", "b"}


async def test_an_expiry_binds_the_next_call_and_can_be_taken_back(deployment: Deployment) -> None:
    caller = await deployment.caller()
    await deployment.call(caller)
    past_ms = await redis_ms(deployment) - HOUR_MS
    await change(deployment, caller, KeyChanges(expires_ms=past_ms))
    assert isinstance(await deployment.admit(caller), KeyRefused)
    await change(deployment, caller, KeyChanges(expires_ms=0))
    assert isinstance(await deployment.admit(caller), Admitted)


@pytest.mark.parametrize("loaded", [True, False])
async def test_other_guards_are_asked_for_on_the_next_call(
    deployment: Deployment, loaded: bool
) -> None:
    caller = await with_routes(deployment)
    if loaded:
        await deployment.call(caller)
    await change(deployment, caller, KeyChanges(addresses=["10.0.0.0/8"]))
    assert await deployment.admit(caller) == GuardChanged(1)
    await change(deployment, caller, KeyChanges(addresses=[]))
    assert await deployment.admit(caller) == GuardChanged(2)


async def test_a_keys_successor_is_for_what_it_was_for(deployment: Deployment) -> None:
    caller = await with_routes(deployment)
    made = await create_key(
        deployment.ledger,
        deployment.counters,
        caller.account,
        deployment.maker,
        limits=Limits(concurrency=2),
        caps=Caps(total=CREDIT),
        guards=Guards(("chat",), ("::1",)),
        metadata={"team": "blue"},
    )
    old = await key_of(deployment, made.key_id)
    assert (old.guards, old.guard_version) == (Guards(("chat",), ("::1/128",)), 1)
    new = await rotate_key(
        deployment.ledger, deployment.counters, caller.account, old, deployment.maker
    )
    assert (await key_of(deployment, new.key_id)).facts == old.facts
    row = await deployment.ledger.find_key(digest(new.text, PEPPER))
    assert row is not None
    assert (row.kind, row.routes, row.addresses, row.guard_version) == (
        *("key", ("chat",), ("::1/128",)),
        1,
    )


async def test_a_delegated_key_is_named_and_noted_about_and_nothing_else(
    deployment: Deployment,
) -> None:
    caller = await deployment.caller()
    await deployment.call(caller)
    made = await delegate(
        deployment.ledger,
        deployment.counters,
        caller.account,
        await key_of(deployment, caller.key_id),
        pepper=PEPPER,
        budget_microcredits=CREDIT,
        expires_ms=await redis_ms(deployment) + HOUR_MS,
    )
    agent = await key_of(deployment, made.key_id)
    parts = (deployment.ledger, deployment.counters, deployment.platform_id)
    for changes in (
        KeyChanges(expires_ms=0),
        KeyChanges(bounds={"total": 2 * CREDIT}),
        KeyChanges(bounds={"day": CREDIT}),
        KeyChanges(addresses=["::1"]),
    ):
        with pytest.raises(UsageError, match="is delegated"):
            await change_key(*parts, agent.key_id, changes)
    with pytest.raises(UsageError, match="no secret"):
        await rotate_key(
            deployment.ledger, deployment.counters, caller.account, agent, deployment.maker
        )
    assert await key_of(deployment, made.key_id) == agent
    named = await change_key(*parts, agent.key_id, KeyChanges(name="scout", metadata={"a": "b"}))
    assert (named.name, named.metadata) == ("scout", {"a": "b"})
    refused = await deployment.admit(caller, 2 * CREDIT, key_id=made.key_id)
    assert refused == SpendCapReached("key", "total", CREDIT, 0, 0)


async def test_a_key_of_another_platform_is_not_found_by_its_number(deployment: Deployment) -> None:
    caller = await deployment.caller()
    other = await deployment.ledger.apply_catalog(Platform("other"), [], [])
    assert await deployment.ledger.key(other.platform_id, caller.key_id) is None
    with pytest.raises(UsageError, match="there is no key"):
        await change_key(
            deployment.ledger,
            deployment.counters,
            other.platform_id,
            caller.key_id,
            KeyChanges(name="mine"),
        )


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("10.0.0.0/255.0.0.0", "10.0.0.0/8"),
        ("192.0.2.7", "192.0.2.7/32"),
        ("2001:DB8:0:0::/32", "2001:db8::/32"),
        ("::1", "::1/128"),
        ("0.0.0.0/0", "0.0.0.0/0"),
    ],
)
def test_networks_are_kept_in_one_form(text: str, canonical: str) -> None:
    assert check_addresses([text]) == (canonical,)


@pytest.mark.parametrize(
    "text", ["", "10.0.0.1/8", "10.0.0", "fe80::1%eth0", "::ffff:10.0.0.1", "host", "10.0.0.0/33"]
)
def test_what_is_no_network_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        check_addresses([text])


def test_guards_and_metadata_have_bounds() -> None:
    many = [f"10.0.{n}.0/24" for n in range(GUARD_NETWORKS_MAX + 1)]
    assert len(check_addresses(many[:-1])) == GUARD_NETWORKS_MAX
    with pytest.raises(UsageError, match="100 networks"):
        check_addresses(many)
    names = [f"r{n}" for n in range(GUARD_ROUTES_MAX + 1)]
    check_routes(names[:-1], names)
    with pytest.raises(UsageError, match="100 routes"):
        check_routes(names, names)
    pairs = {str(n): "x" * 500 for n in range(20)}
    assert check_metadata(pairs) == pairs
    for wrong in ({**pairs, "one more": ""}, {"x" * 41: ""}, {"a": "x" * 501}, {"a": "b\n"}):
        with pytest.raises(UsageError):
            check_metadata(wrong)
