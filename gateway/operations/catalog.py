"""Apply: makes the database, and through it every worker, offer what the config says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.ledger.catalog import BY_CONFIG, CatalogReport
from gateway.ledger.specs import plan_to_spec, price_to_spec, route_to_spec
from gateway.operations.errors import NotToldError, OperationError
from gateway.operations.publish import publish_accounts, unwatched
from policies.pricing import graduated

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from gateway.config import Config
    from gateway.counters import Counters
    from gateway.ledger import Ledger, StoredRoute
    from policies.catalog import Plan, Price, Route


async def apply_config(
    ledger: Ledger,
    counters: Counters,
    config: Config,
    *,
    sync: bool = False,
    progress: Callable[[int, int], None] = unwatched,
) -> CatalogReport:
    """Bring the database to the config, in one transaction, then tell Redis of changed limits.

    Workers hear of changed routes through Postgres and price the next call by them. `sync` tells
    Redis of every account, not only of those whose plan changed now. So does a new graduated price:
    it counts in billing periods, which Redis knows only where they matter.

    Raises: OperationError when Redis could not be told all of it.
    """
    report = await ledger.apply_catalog(config.platform, config.plans, config.routes)
    everybody = sync or _begins_to_count(config.routes, report)
    accounts = [
        account.account_id
        for account in await ledger.accounts(report.platform_id)
        if everybody or account.plan_slug in report.plans_changed
    ]
    try:
        await publish_accounts(ledger, counters, accounts, progress)
    except NotToldError:
        raise OperationError(
            "the config is in Postgres, but Redis did not answer, so accounts may still have "
            'their plans\' old limits: run "tollkeeper apply --sync" when Redis is back'
        ) from None
    return report


async def preview_config(ledger: Ledger, config: Config) -> CatalogReport:
    """What `apply_config` would change now. Nothing is written; `platform_id` 0: a new platform."""
    platform = await ledger.find_platform(config.platform.slug)
    stored_plans: dict[str, Plan] = {}
    stored_routes: dict[str, StoredRoute] = {}
    if platform is not None:
        stored_plans = {plan.slug: plan for plan in await ledger.plans(platform.platform_id)}
        routes = await ledger.routes(platform.platform_id)
        stored_routes = {stored.route.name: stored for stored in routes}
    named = {route.name for route in config.routes}
    return CatalogReport(
        platform_id=platform.platform_id if platform else 0,
        plans_created=tuple(p.slug for p in config.plans if p.slug not in stored_plans),
        plans_changed=tuple(
            p.slug
            for p in config.plans
            if p.slug in stored_plans and plan_to_spec(stored_plans[p.slug]) != plan_to_spec(p)
        ),
        routes_created=tuple(r.name for r in config.routes if r.name not in stored_routes),
        routes_changed=tuple(r.name for r in config.routes if _changes(r, stored_routes)),
        routes_deactivated=tuple(
            name
            for name, stored in stored_routes.items()
            if stored.active and stored.managed_by == BY_CONFIG and name not in named
        ),
        prices_created=tuple(r.name for r in config.routes if _prices_anew(r, stored_routes)),
    )


def _begins_to_count(routes: Sequence[Route], report: CatalogReport) -> bool:
    """Whether a route with a graduated price is new, has that price anew, or is back in service."""
    touched = {*report.routes_created, *report.routes_changed, *report.prices_created}
    return any(
        route.name in touched and route.price is not None and graduated(route.price)
        for route in routes
    )


def _changes(route: Route, stored: Mapping[str, StoredRoute]) -> bool:
    before = stored.get(route.name)
    if before is None:
        return False
    kept = before.active and before.managed_by == BY_CONFIG
    return not kept or route_to_spec(before.route) != route_to_spec(route)


def _prices_anew(route: Route, stored: Mapping[str, StoredRoute]) -> bool:
    before = stored.get(route.name)
    return _spec_of(route.price) != _spec_of(before.route.price if before else None)


def _spec_of(price: Price | None) -> object:
    return None if price is None else price_to_spec(price)
