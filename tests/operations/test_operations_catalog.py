"""Apply and usage: the config takes effect, its preview tells the truth, reports add up."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from gateway.config import Config, GatewayConfig
from gateway.operations.accounts import create_account
from gateway.operations.catalog import apply_config, preview_config
from gateway.operations.errors import UsageError
from gateway.operations.keys import create_key
from gateway.operations.usage import report_usage
from policies.catalog import MeterSpec, Plan, Platform, Price, Route, Source
from policies.decision import Admitted, RateLimited
from tests.support.deployment import CREDIT, PLAN, Caller, Deployment
from tests.support.settlements import settlement

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


async def test_usage_is_told_apart_as_asked_and_adds_up(deployment: Deployment) -> None:
    report = await apply_config(deployment.ledger, deployment.counters, config_of(CHAT, FREE))
    platform_id = report.platform_id
    routes = {row.route.name: row.route.id for row in await deployment.ledger.routes(platform_id)}
    day_ms = 86_400_000
    start_ms = 20_000 * day_ms  # a midnight
    rows = []
    for name in ("alice", "bob"):
        caller = await deployment.caller(name)
        (grant,) = await deployment.ledger.grants(caller.account.account_id)
        rows += [
            settlement(
                ((grant.grant_id, amount),),
                platform_id=platform_id,
                account_id=caller.account.account_id,
                key_id=caller.key_id,
                route_id=routes[route],
                settled_ms=start_ms + hours * 3_600_000 + 5,
                ending=ending,
            )
            for route, hours, amount, ending in (
                ("chat", 1, 10, "completed"),
                ("chat", 1, 20, "upstream_error"),
                ("chat", 30, 30, "completed"),
                ("health", 2, 40, "completed"),
            )
        ]
    await deployment.ledger.record_settlements(rows)

    async def usage(*by: str, until_ms: int = start_ms + 2 * day_ms) -> list[tuple[object, ...]]:
        found = await report_usage(
            deployment.ledger, platform_id, since_ms=start_ms, until_ms=until_ms, by=by
        )
        return [
            (
                *(
                    value
                    for value in (row.since_ms, row.account_name, row.route_name)
                    if value is not None
                ),
                row.calls,
                row.calls_completed,
                row.charged_microcredits,
            )
            for row in found
        ]

    assert await usage() == [(8, 6, 200)]
    assert await usage("account") == [("alice", 4, 3, 100), ("bob", 4, 3, 100)]
    assert await usage("route") == [("chat", 6, 4, 120), ("health", 2, 2, 80)]
    assert await usage("day") == [(start_ms, 6, 4, 140), (start_ms + day_ms, 2, 2, 60)]
    assert await usage("route", "day", until_ms=start_ms + day_ms) == [
        (start_ms, "chat", 4, 2, 60),
        (start_ms, "health", 2, 2, 80),
    ]


@pytest.mark.parametrize(
    ("by", "until_ms", "message"),
    [(("week",), 2, "hour, day, month"), (("day", "hour"), 2, "one of"), ((), 1, "--since")],
)
async def test_a_report_that_makes_no_sense_is_refused(
    deployment: Deployment, by: tuple[str, ...], until_ms: int, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        await report_usage(
            deployment.ledger, deployment.platform_id, since_ms=1, until_ms=until_ms, by=by
        )
