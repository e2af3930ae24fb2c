"""Discounts and billing periods: the very next call follows what was agreed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gateway.config import Config, GatewayConfig
from gateway.ledger.periods import AccountChange
from gateway.operations.accounts import change_account, find_account
from gateway.operations.catalog import apply_config
from gateway.operations.errors import UsageError
from policies.catalog import MeterSpec, Plan, Platform, Price, Route, Source, Table, Tier
from policies.decision import Admitted, TermsChanged

if TYPE_CHECKING:
    from tests.support.deployment import Caller, Deployment

CALLS = MeterSpec("call", (Source("response.json", "/n"),), 5, 1)
FLAT = Route("flat", ("GET",), "/flat", "http://a:1", Price(meters=(CALLS,)))
GRADUATED = MeterSpec("call", CALLS.sources, 0, 1, (Tier(10, 5), Tier(None, 4)))
BY_MODEL = Table(Source("request.json", "/model"), {"big": Price(meters=(GRADUATED,))})
TIERED = Route("tiered", ("GET",), "/tiered", "http://a:1", Price(meters=(CALLS,), table=BY_MODEL))


async def apply(deployment: Deployment, *routes: Route, plan_discount: int = 0) -> None:
    plan = Plan("partner", 7_000_000, discount_basis_points=plan_discount)
    config = Config(GatewayConfig(), Platform("demo"), (plan,), routes)
    await apply_config(deployment.ledger, deployment.counters, config)


async def discount(deployment: Deployment, caller: Caller, basis_points: int | None) -> None:
    account = await find_account(deployment.ledger, deployment.platform_id, caller.account.name)
    change = AccountChange(discount_basis_points=basis_points)
    await change_account(deployment.ledger, deployment.counters, account, change)


async def rules(deployment: Deployment, caller: Caller) -> str:
    return (await deployment.counters.inspect(caller.keys)).fields["rules"]


@pytest.mark.parametrize("loaded", [True, False])
async def test_a_new_discount_is_asked_of_the_next_call(
    deployment: Deployment, loaded: bool
) -> None:
    caller = await deployment.caller()
    if loaded:
        await deployment.call(caller)
    await discount(deployment, caller, 1_500)
    changed = await deployment.admit(caller)
    assert isinstance(changed, TermsChanged)
    assert changed.discount == 1_500
    await discount(deployment, caller, 0)
    assert isinstance(await deployment.admit(caller), Admitted)


async def test_what_the_plan_gives_holds_until_the_account_has_its_own(
    deployment: Deployment,
) -> None:
    await apply(deployment)
    caller = await deployment.caller()
    account = caller.account
    account = await change_account(
        deployment.ledger, deployment.counters, account, AccountChange(plan_slug="partner")
    )
    await deployment.call(caller)

    await apply(deployment, plan_discount=500)
    assert (await rules(deployment, caller)) == "dp:500"
    await discount(deployment, caller, 2_000)
    assert (await rules(deployment, caller)) == "dp:2000"
    await apply(deployment, plan_discount=900)
    assert (await rules(deployment, caller)) == "dp:2000"
    await discount(deployment, caller, None)
    assert (await rules(deployment, caller)) == "dp:900"
    account = await find_account(deployment.ledger, deployment.platform_id, account.name)
    assert (account.discount_basis_points, account.plan_discount_basis_points) == (None, 900)


async def test_a_discount_stays_whatever_else_changes(deployment: Deployment) -> None:
    await apply(deployment)
    caller = await deployment.caller()
    await discount(deployment, caller, 1_500)
    account = await change_account(
        deployment.ledger, deployment.counters, caller.account, AccountChange(plan_slug="partner")
    )
    for status in ("suspended", "active"):
        await change_account(
            deployment.ledger, deployment.counters, account, AccountChange(status=status)
        )
    assert account.discount_basis_points == 1_500
    assert await deployment.admit(caller) == TermsChanged(1_500)


@pytest.mark.parametrize("basis_points", [-1, 10_001])
async def test_nobody_gets_more_than_all_of_a_price_off(
    deployment: Deployment, basis_points: int
) -> None:
    caller = await deployment.caller()
    with pytest.raises(UsageError, match="from 0 to 10000"):
        await discount(deployment, caller, basis_points)
    assert isinstance(await deployment.admit(caller), Admitted)


async def test_a_new_graduated_price_tells_redis_every_billing_period(
    deployment: Deployment,
) -> None:
    await apply(deployment, FLAT)
    caller = await deployment.caller()
    await change_account(
        deployment.ledger, deployment.counters, caller.account, AccountChange(plan_slug="partner")
    )
    await deployment.call(caller)
    assert await rules(deployment, caller) == ""

    await apply(deployment, FLAT, TIERED)
    assert (await rules(deployment, caller)).startswith("pw:")
