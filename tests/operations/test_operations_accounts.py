"""Accounts, keys and grants: the very next call follows what an operator did (DESIGN section 3)."""

from __future__ import annotations

import asyncio

import pytest

from gateway.counters import Counters, CountersUnavailable
from gateway.ledger.periods import AccountChange
from gateway.operations.accounts import change_account, create_account, find_account
from gateway.operations.audit import audit
from gateway.operations.errors import NotToldError, UsageError
from gateway.operations.grants import add_grant
from gateway.operations.keys import create_key, revoke_key, rotate_key
from gateway.operations.publish import publish_account
from gateway.operations.standing import balance_of
from policies.apikeys import digest, well_formed
from policies.decision import (
    AccountSuspended,
    Admitted,
    InsufficientCredits,
    KeyRefused,
    NotLoaded,
)
from tests.support.deployment import CREDIT, PEPPER, SHARDS, Caller, Deployment
from tests.support.faulty_redis import OwnRedis
from tests.support.keys import key_of
from tests.support.waiting import eventually


async def revoke(deployment: Deployment, key_id: int) -> None:
    key = await key_of(deployment.ledger, deployment.platform_id, key_id)
    await revoke_key(deployment.ledger, deployment.counters, deployment.platform_id, key)


@pytest.mark.parametrize("loaded", [True, False])
async def test_a_new_key_works_at_once(deployment: Deployment, loaded: bool) -> None:
    caller = await deployment.caller()
    if loaded:
        await deployment.call(caller)
    key = await create_key(deployment.ledger, deployment.counters, caller.account, deployment.maker)
    assert isinstance(await deployment.admit(caller, key_id=key.key_id), Admitted)


async def test_of_a_key_only_digest_prefix_and_last_four_are_kept(deployment: Deployment) -> None:
    caller = await deployment.caller()
    key = await create_key(deployment.ledger, deployment.counters, caller.account, deployment.maker)
    assert well_formed(key.text)
    row = await deployment.ledger.find_key(digest(key.text, PEPPER))
    assert row is not None
    assert row.key_id == key.key_id
    listed = await key_of(deployment.ledger, deployment.platform_id, key.key_id)
    assert key.text.startswith(listed.prefix)
    assert key.text.endswith(listed.last4)
    assert len(listed.prefix + listed.last4) < len(key.text) - 15
    assert key.text not in repr(listed)
    assert "pepper" not in repr(deployment.maker).replace("pepper_version", "")


@pytest.mark.parametrize("loaded", [True, False])
async def test_a_revoked_key_is_refused_on_its_next_call(
    deployment: Deployment, loaded: bool
) -> None:
    caller = await deployment.caller()
    if loaded:
        await deployment.call(caller)
    await revoke(deployment, caller.key_id)
    assert isinstance(await deployment.admit(caller), KeyRefused)


async def test_a_worker_that_has_just_read_postgres_cannot_bring_a_revoked_key_back(
    deployment: Deployment,
) -> None:
    caller = await deployment.caller()
    await deployment.open_shard(caller.keys.shard)
    asked = await deployment.counters.admit(
        caller.keys, "0" * 32, b"%d" % caller.key_id, CREDIT, 60_000, 0, caller.context
    )
    assert isinstance(asked, NotLoaded)
    outdated = await deployment.ledger.account_state(caller.account.account_id)
    assert outdated is not None
    await revoke(deployment, caller.key_id)
    await deployment.counters.load(caller.keys, outdated, asked)
    assert isinstance(await deployment.admit(caller), KeyRefused)


async def test_a_rotated_key_ends_when_its_successor_is_there(deployment: Deployment) -> None:
    caller = await deployment.caller()
    await deployment.call(caller)
    old = await key_of(deployment.ledger, deployment.platform_id, caller.key_id)
    new = await rotate_key(
        deployment.ledger, deployment.counters, caller.account, old, deployment.maker
    )
    assert isinstance(await deployment.admit(caller), KeyRefused)
    assert isinstance(await deployment.admit(caller, key_id=new.key_id), Admitted)
    with pytest.raises(UsageError, match="revoked already"):
        await rotate_key(
            deployment.ledger,
            deployment.counters,
            caller.account,
            await key_of(deployment.ledger, deployment.platform_id, caller.key_id),
            deployment.maker,
        )


@pytest.mark.parametrize(("overlap_ms", "outcome"), [(60_000, Admitted), (-1, KeyRefused)])
async def test_with_an_overlap_the_old_key_works_until_its_end(
    deployment: Deployment, overlap_ms: int, outcome: type
) -> None:
    caller = await deployment.caller()
    await deployment.call(caller)
    seconds, _ = await deployment.counters.command("TIME")
    new = await rotate_key(
        deployment.ledger,
        deployment.counters,
        caller.account,
        await key_of(deployment.ledger, deployment.platform_id, caller.key_id),
        deployment.maker,
        old_expires_ms=int(seconds) * 1000 + overlap_ms,
    )
    assert isinstance(await deployment.admit(caller), outcome)
    assert isinstance(await deployment.admit(caller, key_id=new.key_id), Admitted)


@pytest.mark.parametrize("loaded", [True, False])
async def test_a_suspended_account_is_refused_until_it_is_resumed(
    deployment: Deployment, loaded: bool
) -> None:
    caller = await deployment.caller()
    if loaded:
        await deployment.call(caller)
    await change_account(
        deployment.ledger, deployment.counters, caller.account, AccountChange(status="suspended")
    )
    assert isinstance(await deployment.admit(caller), AccountSuspended)
    await change_account(
        deployment.ledger, deployment.counters, caller.account, AccountChange(status="active")
    )
    assert isinstance(await deployment.admit(caller), Admitted)


@pytest.mark.parametrize("loaded", [True, False])
async def test_a_grant_can_be_spent_by_the_next_call(deployment: Deployment, loaded: bool) -> None:
    caller = await deployment.caller(microcredits=CREDIT)
    if loaded:
        await deployment.call(caller)
    assert isinstance(await deployment.admit(caller, 2 * CREDIT), InsufficientCredits)
    await add_grant(deployment.ledger, deployment.counters, caller.account, 2 * CREDIT)
    assert isinstance(await deployment.admit(caller, 2 * CREDIT), Admitted)
    assert (await audit(deployment.ledger, deployment.counters)).findings == []


async def test_grants_given_at_once_all_arrive_once(deployment: Deployment) -> None:
    caller = await deployment.caller()
    await deployment.call(caller)
    await asyncio.gather(
        *(
            add_grant(
                deployment.ledger, deployment.counters, caller.account, CREDIT, priority=priority
            )
            for priority in (3, 1, 2, 1, 5)
        )
    )
    fields = (await deployment.counters.inspect(caller.keys)).fields
    state = await deployment.ledger.account_state(caller.account.account_id)
    assert state is not None
    assert fields["lots"] == state["lots"]
    assert (await audit(deployment.ledger, deployment.counters)).findings == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"source": "gift"},
        {"priority": -1},
        {"note": "x" * 501},
        {"note": "two\nlines"},
        {"effective_ms": 2_000, "expires_ms": 1_000},
    ],
)
async def test_a_wrong_grant_changes_nothing(
    deployment: Deployment, wrong: dict[str, int | str]
) -> None:
    caller = await deployment.caller()
    for amount, options in ((CREDIT, wrong), (0, {}), (2**53, {})):
        with pytest.raises(UsageError):
            await add_grant(
                deployment.ledger, deployment.counters, caller.account, amount, **options
            )  # type: ignore[arg-type]
    assert len(await deployment.ledger.grants(caller.account.account_id)) == 1


async def test_an_account_begins_with_what_its_plan_gives_unless_told_otherwise(
    deployment: Deployment,
) -> None:
    given = {}
    for name, microcredits in (("planned", None), ("told", CREDIT), ("poor", 0)):
        made = await create_account(
            deployment.ledger,
            deployment.platform_id,
            name,
            plan="free",
            microcredits=microcredits,
        )
        grants = await deployment.ledger.grants(made.account.account_id)
        given[name] = [(grant.source, grant.amount_microcredits) for grant in grants]
    assert given == {"planned": [("plan", 7 * CREDIT)], "told": [("manual", CREDIT)], "poor": []}


@pytest.mark.parametrize(
    ("name", "plan", "message"),
    [
        ("alice", None, "taken"),
        ("", None, "1 to 200"),
        ("x" * 201, None, "1 to 200"),
        ("new\nline", None, "printable"),
        (" bob", None, "space"),
        ("bob", "fre", 'did you mean "free"'),
    ],
)
async def test_a_wrong_account_is_refused_with_the_reason(
    deployment: Deployment, name: str, plan: str | None, message: str
) -> None:
    await deployment.caller("alice")
    with pytest.raises(UsageError, match=message):
        await create_account(deployment.ledger, deployment.platform_id, name, plan=plan)
    assert len(await deployment.ledger.accounts(deployment.platform_id)) == 1


async def test_an_unknown_account_is_answered_with_a_near_one(deployment: Deployment) -> None:
    await deployment.caller("alice")
    with pytest.raises(UsageError, match='did you mean "alice"'):
        await find_account(deployment.ledger, deployment.platform_id, "alcie")


async def test_an_accounts_balance_is_what_redis_has_now(deployment: Deployment) -> None:
    caller = await deployment.caller(microcredits=10 * CREDIT)
    arguments = (deployment.ledger, deployment.counters, caller.account)
    assert (await balance_of(*arguments))[:4] == (False, 10 * CREDIT, 0, 0)
    await deployment.call(caller, 2 * CREDIT)
    await deployment.hold(caller, 3 * CREDIT)
    balance = await balance_of(*arguments)
    assert balance[:4] == (True, 5 * CREDIT, 3 * CREDIT, 0)
    ((_, left, held),) = balance.lots
    assert (left, held) == (5 * CREDIT, 3 * CREDIT)


async def test_what_redis_could_not_be_told_is_said_loudly_and_mended_later(
    deployment: Deployment,
) -> None:
    async with (
        OwnRedis() as server,
        Counters(server.url, shards=SHARDS, deadline_ms=500) as counters,
    ):
        own = Deployment(deployment.ledger, counters, deployment.postgres_url)
        own.platform_id = deployment.platform_id
        caller: Caller = await own.caller("dora")
        await own.call(caller)
        await own.carry()
        server.stop()
        with pytest.raises(NotToldError, match="accounts sync dora"):
            await revoke(own, caller.key_id)
        with pytest.raises(NotToldError, match="do not repeat"):
            await add_grant(own.ledger, counters, caller.account, CREDIT)
        server.resume()
        await eventually(lambda: counters.command("PING"), unless=(CountersUnavailable,))
        await publish_account(own.ledger, counters, caller.account.account_id, "dora")
        assert isinstance(await own.admit(caller), KeyRefused)
        assert (await audit(own.ledger, counters)).findings == []
