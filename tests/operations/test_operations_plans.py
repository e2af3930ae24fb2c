"""Plans of the API: all mistakes are named, and the next call of every account follows a change."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gateway.config import Problem
from gateway.operations.accounts import create_account
from gateway.operations.documents import Written
from gateway.operations.errors import (
    AccountsNotToldError,
    ConflictError,
    DocumentError,
    UnknownError,
)
from gateway.operations.keys import create_key
from gateway.operations.plans import change_plan, create_plan, delete_plan, find_plan
from policies.decision import Admitted, RateLimited
from tests.support.deployment import CREDIT, Caller

if TYPE_CHECKING:
    from tests.support.deployment import Deployment

PRO = Written({"slug": "pro", "credits": "10", "requests_per_minute": 60})


async def callers(deployment: Deployment, plan: str, count: int) -> list[Caller]:
    """Accounts of a plan, loaded in Redis by a call of each."""
    made = []
    for number in range(count):
        new = await create_account(
            deployment.ledger, deployment.platform_id, f"{plan}-{number}", plan=plan
        )
        key = await create_key(
            deployment.ledger, deployment.counters, new.account, deployment.maker
        )
        keys = deployment.counters.keys(new.account.account_id)
        made.append(Caller(new.account, key.key_id, keys))
        assert isinstance(await deployment.admit(made[-1], CREDIT), Admitted)
    return made


async def follows(deployment: Deployment, caller: Caller, per_minute: int) -> bool:
    """Whether the next call is under this limit; if it passes depends on when the last one was."""
    decision = await deployment.admit(caller, CREDIT)
    if isinstance(decision, Admitted):
        assert decision.rpm_limit == per_minute
        decision = await deployment.admit(caller, CREDIT)
    return isinstance(decision, RateLimited)


async def test_every_account_of_a_changed_plan_follows_it_on_its_next_call(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, counters, platform = deployment.ledger, deployment.counters, deployment.platform_id
    monkeypatch.setattr("gateway.operations.publish.ACCOUNTS_AT_ONCE", 3)
    await create_plan(ledger, platform, PRO)
    some = await callers(deployment, "pro", 7)
    (other,) = await callers(deployment, "free", 1)
    changed = await change_plan(
        ledger, counters, platform, "pro", Written({"requests_per_minute": 1})
    )
    assert changed.plan.requests_per_minute == 1
    assert changed.plan.credits_microcredits == 10 * CREDIT, "what a patch leaves out stays"
    for caller in some:
        assert await follows(deployment, caller, 1)
    assert isinstance(await deployment.admit(other, CREDIT), Admitted)


async def test_accounts_of_a_lost_shard_are_not_told_and_all_others_are(
    deployment: Deployment,
) -> None:
    ledger, counters, platform = deployment.ledger, deployment.counters, deployment.platform_id
    await create_plan(ledger, platform, PRO)
    some = await callers(deployment, "pro", 8)
    lost = some[0].keys.shard
    epoch, before = await ledger.next_epoch(lost), counters.seen(lost)[0]
    assert await counters.close_shard(lost, epoch, before)
    with pytest.raises(AccountsNotToldError, match="repeat the change"):
        await change_plan(ledger, counters, platform, "pro", Written({"requests_per_minute": 1}))
    told = [caller for caller in some if caller.keys.shard != lost]
    assert told
    for caller in told:
        assert await follows(deployment, caller, 1)


async def test_all_mistakes_of_a_plan_are_named_once(deployment: Deployment) -> None:
    written = Written(
        {"slug": "Pro", "burst": 5, "overage": "bill", "caps": {"day": 3}, "prise": 1},
        (
            Problem("prise", "Unknown field."),
            Problem("caps.day", "Input should be a valid string"),
            Problem("period.month", "only the shape's reader says this"),
        ),
    )
    with pytest.raises(DocumentError) as caught:
        await create_plan(deployment.ledger, deployment.platform_id, written)
    named = [problem.where for problem in caught.value.problems]
    assert sorted(named) == [
        *("burst", "caps.day", "overage_cap", "period.month", "prise", "slug"),
    ]
    assert "amounts are texts" in str(caught.value), "the config's reader says what to do"


async def test_plans_of_the_config_are_changed_in_the_config(deployment: Deployment) -> None:
    ledger, platform = deployment.ledger, deployment.platform_id
    for work in (
        change_plan(ledger, deployment.counters, platform, "free", Written({"credits": "1"})),
        delete_plan(ledger, platform, "free"),
    ):
        with pytest.raises(ConflictError, match="config file") as caught:
            await work
        assert caught.value.code == "managed_by_config"


async def test_a_plan_keeps_its_slug_and_there_is_one_of_each(deployment: Deployment) -> None:
    ledger, platform = deployment.ledger, deployment.platform_id
    await create_plan(ledger, platform, PRO)
    with pytest.raises(ConflictError, match="choose another") as caught:
        await create_plan(ledger, platform, PRO)
    assert caught.value.code == "name_taken"
    with pytest.raises(DocumentError, match="stays as it is"):
        await change_plan(
            ledger, deployment.counters, platform, "pro", Written({"slug": "professional"})
        )
    await delete_plan(ledger, platform, "pro")
    with pytest.raises(UnknownError):
        await find_plan(ledger, platform, "pro")


async def test_a_plan_that_accounts_have_stays(deployment: Deployment) -> None:
    ledger, platform = deployment.ledger, deployment.platform_id
    await create_plan(ledger, platform, PRO)
    await create_account(ledger, platform, "alice", plan="pro")
    with pytest.raises(ConflictError, match="put them on another first") as caught:
        await delete_plan(ledger, platform, "pro")
    assert caught.value.code == "in_use"
