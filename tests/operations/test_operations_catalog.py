"""Apply and usage: the config takes effect, its preview tells the truth, reports add up."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from gateway.config import Config, GatewayConfig
from gateway.operations.accounts import create_account
from gateway.operations.catalog import apply_config, preview_config
from gateway.operations.keys import create_key
from policies.catalog import MeterSpec, Plan, Platform, Price, Route, Source
from policies.decision import Admitted, RateLimited
from tests.support.deployment import CREDIT, PLAN, Caller, Deployment

if TYPE_CHECKING:
    from gateway.ledger import CatalogReport

PLATFORM = Platform("demo")
METER = MeterSpec("token", (Source("response.json", "/usage"),), 1_000_000_000, 100)
CHAT = Route("chat", ("POST",), "/chat", "http://127.0.0.1:9", Price(meters=(METER,)))
FREE = Route("health", ("GET",), "/health", "http://127.0.0.1:9", None)


def config_of(*routes: Route, plans: tuple[Plan, ...] = (PLAN,)) -> Config:
    return Config(GatewayConfig(), PLATFORM, plans, routes)


def changes(report: CatalogReport) -> dict[str, tuple[str, ...]]:
    """What a report says, without what is empty."""
    return {
        name: value for name, value in report._asdict().items() if value and name != "platform_id"
    }


async def applied(deployment: Deployment, config: Config) -> dict[str, tuple[str, ...]]:
    """What a config changes; the preview must have said the same."""
    foretold = await preview_config(deployment.ledger, config)
    report = await apply_config(deployment.ledger, deployment.counters, config)
    assert changes(foretold) == changes(report)
    return changes(report)


async def test_the_report_names_what_changed_and_the_preview_foretells_it(
    deployment: Deployment,
) -> None:
    dearer = replace(CHAT, price=Price(per_request_microcredits=5, meters=(METER,)))
    moved = replace(CHAT, upstream="http://127.0.0.1:10", price=dearer.price)
    pro = Plan("pro", credits_microcredits=CREDIT)
    steps = [
        (
            config_of(CHAT, FREE),
            {"routes_created": ("chat", "health"), "prices_created": ("chat",)},
        ),
        (config_of(CHAT, FREE), {}),
        (config_of(dearer, FREE), {"prices_created": ("chat",)}),
        (config_of(moved, FREE), {"routes_changed": ("chat",)}),
        (config_of(moved), {"routes_deactivated": ("health",)}),
        (config_of(moved, FREE), {"routes_changed": ("health",)}),
        (config_of(moved, FREE, plans=(PLAN, pro)), {"plans_created": ("pro",)}),
        (
            config_of(moved, FREE, plans=(replace(PLAN, concurrency=3), pro)),
            {"plans_changed": ("free",)},
        ),
        (config_of(moved, FREE, plans=(pro,)), {"plans_retired": ("free",)}),
        (config_of(moved, FREE, plans=(pro,)), {}),
        (config_of(moved, FREE, plans=(PLAN, pro)), {"plans_changed": ("free",)}),
    ]
    for config, expected in steps:
        assert await applied(deployment, config) == expected


async def test_a_preview_writes_nothing_also_for_a_new_platform(deployment: Deployment) -> None:
    config = replace(config_of(CHAT), platform=Platform("another"))
    report = await preview_config(deployment.ledger, config)
    assert report.platform_id == 0
    assert report.routes_created == ("chat",)
    assert await deployment.ledger.find_platform("another") is None


@pytest.mark.parametrize("sync", [False, True])
async def test_a_changed_plan_limits_the_next_call_of_its_accounts(
    deployment: Deployment, sync: bool
) -> None:
    made = await create_account(deployment.ledger, deployment.platform_id, "alice", plan="free")
    key = await create_key(deployment.ledger, deployment.counters, made.account, deployment.maker)
    keys = deployment.counters.keys(made.account.account_id)
    caller = Caller(made.account, key.key_id, keys)
    assert isinstance(await deployment.admit(caller), Admitted)
    stricter = config_of(CHAT, plans=(replace(PLAN, requests_per_minute=1),))
    if sync:  # the plan changed, and whoever changed it did not tell Redis
        await deployment.ledger.apply_catalog(PLATFORM, stricter.plans, stricter.routes)
        assert isinstance(await deployment.admit(caller), Admitted)
    await apply_config(deployment.ledger, deployment.counters, stricter, sync=sync)
    assert isinstance(await deployment.admit(caller), RateLimited)
