"""New accounts: on the platform's plan for them, with a trial that they get once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gateway.operations.accounts import sign_up
from gateway.operations.errors import ConflictError
from policies.catalog import Platform
from policies.spans import DAY_MS
from tests.support.deployment import CREDIT, PLAN, Deployment

if TYPE_CHECKING:
    from gateway.ledger.rows import GrantRow


async def offer(deployment: Deployment, *signup: object) -> None:
    platform = Platform("demo", "demo", None, *signup)  # type: ignore[arg-type]
    report = await deployment.ledger.apply_catalog(platform, (PLAN,), ())
    deployment.platform_id = report.platform_id


async def given(deployment: Deployment, **options: int) -> list[GrantRow]:
    made = await sign_up(deployment.ledger, deployment.platform_id, "new", **options)
    grants = await deployment.ledger.grants(made.account.account_id)
    assert made.granted_microcredits == sum(grant.amount_microcredits for grant in grants)
    return grants


async def test_a_new_account_has_the_signup_plan_and_its_trial_for_three_days(
    deployment: Deployment,
) -> None:
    await offer(deployment, "free", 5 * CREDIT)
    trial, plan = await given(deployment)
    assert (plan.source, plan.amount_microcredits) == ("plan", 7 * CREDIT)
    assert (trial.source, trial.amount_microcredits) == ("trial", 5 * CREDIT)
    assert trial.expires_ms - trial.effective_ms == 3 * DAY_MS
    assert trial.effective_ms == plan.effective_ms
    again = await deployment.ledger.add_grant(
        trial.account_id,
        CREDIT,
        source="trial",
        priority=0,
        business_key=f"trial:{trial.account_id}",
    )
    assert again == trial.grant_id
    account = await deployment.ledger.find_account(deployment.platform_id, "new")
    assert account is not None
    assert account.plan_slug == "free"


async def test_the_trial_lasts_as_long_as_the_platform_says(deployment: Deployment) -> None:
    await offer(deployment, "free", 1, 14)
    trial, _ = await given(deployment)
    assert trial.expires_ms - trial.effective_ms == 14 * DAY_MS


async def test_without_trial_credits_there_is_the_plan_alone(deployment: Deployment) -> None:
    await offer(deployment, "free")
    assert [grant.source for grant in await given(deployment)] == ["plan"]


async def test_credits_that_are_told_come_instead_of_plan_and_trial(deployment: Deployment) -> None:
    await offer(deployment, "free", CREDIT)
    (grant,) = await given(deployment, microcredits=3)
    assert (grant.source, grant.amount_microcredits) == ("manual", 3)


async def test_without_a_signup_plan_a_new_account_has_none(deployment: Deployment) -> None:
    await offer(deployment)
    assert await given(deployment) == []
    account = await deployment.ledger.find_account(deployment.platform_id, "new")
    assert account is not None
    assert account.plan_slug is None


async def test_a_signup_plan_that_is_not_there_makes_no_account(deployment: Deployment) -> None:
    await offer(deployment, "gone", CREDIT)
    with pytest.raises(ConflictError, match='plan "gone"'):
        await given(deployment)
    assert await deployment.ledger.find_account(deployment.platform_id, "new") is None


async def test_the_signup_plan_stays_although_no_account_has_it(deployment: Deployment) -> None:
    await offer(deployment)
    ledger, platform_id = deployment.ledger, deployment.platform_id
    for slug in ("kept", "other"):
        await ledger.create_plan(platform_id, type(PLAN)(slug, 1))
    await offer(deployment, "kept")
    assert not await ledger.delete_plan(platform_id, "kept")
    assert await ledger.delete_plan(platform_id, "other")
