"""Apply: makes the database, and through it every worker, offer what the config says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.config import ConfigError
from gateway.config.stripe import resolve_stripe
from gateway.ledger.catalog import CatalogReport, ConfigStripe
from gateway.ledger.rows import BY_CONFIG
from gateway.ledger.specs import plan_to_spec, price_to_spec, route_to_spec
from gateway.operations.errors import NotToldError, OperationError, UsageError
from gateway.operations.publish import publish_accounts, unwatched
from policies.pricing import graduated

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from gateway.config import Config
    from gateway.counters import Counters
    from gateway.ledger import Ledger, StoredRoute
    from gateway.ledger.packs import StoredPack
    from gateway.ledger.stripe_settings import StoredStripe
    from policies.catalog import Pack, Plan, Price, Route


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

    Raises: OperationError when Redis could not be told all of it; UsageError, and nothing is
    changed, when a key of Stripe's that the config refers to is not there.
    """
    stripe = _stripe(config)
    report = await ledger.apply_catalog(
        config.platform, config.plans, config.routes, config.packs, stripe
    )
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
    """What `apply_config` would change now. Nothing is written; `platform_id` 0: a new platform.

    Raises: UsageError, as that.
    """
    stripe = _stripe(config)
    platform = await ledger.find_platform(config.platform.slug)
    stored_plans: dict[str, Plan] = {}
    own_plans: frozenset[str] = frozenset()
    stored_routes: dict[str, StoredRoute] = {}
    stored_packs: dict[str, StoredPack] = {}
    before: StoredStripe | None = None
    if platform is not None:
        stored_plans = {plan.slug: plan for plan in await ledger.plans(platform.platform_id)}
        own_plans = await ledger.config_plans(platform.platform_id)
        routes = await ledger.routes(platform.platform_id)
        stored_routes = {stored.route.name: stored for stored in routes}
        packs = await ledger.packs_page(platform.platform_id)
        stored_packs = {stored.pack.slug: stored for stored in packs}
        before = await ledger.stripe_settings(platform.platform_id)
    named = {route.name for route in config.routes}
    return CatalogReport(
        platform_id=platform.platform_id if platform else 0,
        plans_created=tuple(p.slug for p in config.plans if p.slug not in stored_plans),
        plans_changed=tuple(
            p.slug
            for p in config.plans
            if p.slug in stored_plans
            and (p.slug not in own_plans or plan_to_spec(stored_plans[p.slug]) != plan_to_spec(p))
        ),
        routes_created=tuple(r.name for r in config.routes if r.name not in stored_routes),
        routes_changed=tuple(r.name for r in config.routes if _changes(r, stored_routes)),
        routes_deactivated=tuple(
            name
            for name, stored in stored_routes.items()
            if stored.active and stored.managed_by == BY_CONFIG and name not in named
        ),
        prices_created=tuple(r.name for r in config.routes if _prices_anew(r, stored_routes)),
        packs_created=tuple(p.slug for p in config.packs if p.slug not in stored_packs),
        packs_changed=tuple(p.slug for p in config.packs if _changes_pack(p, stored_packs)),
        packs_retired=tuple(
            slug
            for slug, stored in stored_packs.items()
            if stored.managed_by == BY_CONFIG and slug not in {pack.slug for pack in config.packs}
        ),
        plans_retired=tuple(sorted(own_plans - {plan.slug for plan in config.plans})),
        stripe_changed=_stripe_changes(stripe, before),
    )


def _stripe(config: Config) -> ConfigStripe | None:
    """The config's Stripe settings, with the mode of their key. Raises: UsageError."""
    if config.stripe is None:
        return None
    try:
        keys = resolve_stripe(config.stripe)
    except ConfigError as error:
        raise UsageError("; ".join(map(str, error.problems))) from None
    return ConfigStripe(config.stripe, keys.livemode)


def _stripe_changes(after: ConfigStripe | None, before: StoredStripe | None) -> tuple[str, ...]:
    managed = before is not None and before.managed_by == BY_CONFIG
    if after is None:
        return ("none",) if managed else ()
    same = before is not None and managed and (before.table, before.livemode) == after
    return () if same else (after.mode,)


def _changes_pack(pack: Pack, stored: Mapping[str, StoredPack]) -> bool:
    before = stored.get(pack.slug)
    return before is not None and (before.pack, before.managed_by) != (pack, BY_CONFIG)


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
