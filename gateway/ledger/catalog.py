"""What the config sells, in the database: what `apply` writes and lists read."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from gateway.ledger.database import Database, Session
from gateway.ledger.packs import stored_packs, write_pack
from gateway.ledger.rows import BY_API, BY_CONFIG, PlatformRow
from gateway.ledger.specs import (
    plan_from_spec,
    plan_to_spec,
    price_to_spec,
    route_from_spec,
    route_to_spec,
)
from gateway.ledger.stripe_settings import write_stripe_settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncpg import Record

    from gateway.config.stripe import StripeTable
    from policies.catalog import Pack, Plan, Platform, Price, Route

# The channel that `catalog_notify.sql` names; payload: the slug of the platform.
CATALOG_CHANNEL = "tollkeeper_catalog"
# Where workers tell which version they serve by, as "<worker id>:<version>"; with "!" behind it:
# which they could not, so that they go on with the one before.
CATALOG_SEEN_CHANNEL = "tollkeeper_catalog_seen"


class CatalogReport(NamedTuple):
    """What `apply` changed, by slug and name.

    Accounts of `plans_changed` may be loaded in Redis with the limits from before.
    """

    platform_id: int
    plans_created: tuple[str, ...]
    plans_changed: tuple[str, ...]
    routes_created: tuple[str, ...]
    routes_changed: tuple[str, ...]
    routes_deactivated: tuple[str, ...]
    prices_created: tuple[str, ...]
    packs_created: tuple[str, ...] = ()
    packs_changed: tuple[str, ...] = ()
    packs_retired: tuple[str, ...] = ()
    plans_retired: tuple[str, ...] = ()
    stripe_changed: tuple[str, ...] = ()  # "test" or "live" of settings that are new, or "none"


class ConfigStripe(NamedTuple):
    """The config's Stripe settings, with the mode of their key."""

    table: StripeTable
    livemode: bool

    @property
    def mode(self) -> str:
        """In a word."""
        return "live" if self.livemode else "test"


class StoredRoute(NamedTuple):
    """A route of the database, also if it is out of service."""

    route: Route
    active: bool
    managed_by: str = BY_CONFIG


class Catalog(Database):
    """Platforms, plans and routes."""

    async def find_platform(self, slug: str) -> PlatformRow | None:
        """The platform of this slug."""
        record = await self._session.one("platform_find", slug)
        return PlatformRow(**record) if record else None

    async def plans(self, platform_id: int) -> list[Plan]:
        """The platform's plans by slug."""
        records = await self._session.all("plan_list", platform_id)
        return [plan_from_spec(row["slug"], json.loads(row["spec"])) for row in records]

    async def config_plans(self, platform_id: int) -> frozenset[str]:
        """The slugs of the platform's plans that the config describes."""
        records = await self._session.all("plan_list", platform_id)
        return frozenset(row["slug"] for row in records if row["managed_by"] == BY_CONFIG)

    async def routes(self, platform_id: int) -> list[StoredRoute]:
        """The platform's routes by name, those out of service too."""
        return await stored_routes(self._session, platform_id)

    async def apply_catalog(
        self,
        platform: Platform,
        plans: Sequence[Plan],
        routes: Sequence[Route],
        packs: Sequence[Pack] = (),
        stripe: ConfigStripe | None = None,
    ) -> CatalogReport:
        """Make the database say what the config says, in one transaction, and tell the workers.

        Its routes that the config does not name any more go out of service, its packs are not sold
        any more. Nor are its plans, but they stay, because accounts have them: without a price, and
        the API's from then on, by which they are changed, and deleted when nobody has them. What
        people made by the API, or Stripe describes, stays as it is, unless the config has one of
        the same name: that is the config's from then on. A price gets a new version only if it
        changed.
        """
        async with self.transaction() as session:
            await lock_catalog(session)
            platform_id = int(
                await session.value(
                    "platform_upsert",
                    platform.slug,
                    platform.name or platform.slug,
                    platform.upgrade_url,
                    platform.signup_plan,
                    platform.trial_microcredits,
                    platform.trial_days,
                )
            )
            created_plans, changed_plans, retired_plans = await _apply_plans(
                session, platform_id, plans
            )
            created, changed, deactivated, priced = await _apply_routes(
                session, platform_id, routes
            )
            packs_changes = await _apply_packs(session, platform_id, packs)
            stripe_changed = await _apply_stripe(session, platform_id, stripe)
            await announce(session, platform.slug)
        return CatalogReport(
            *(platform_id, created_plans, changed_plans, created, changed, deactivated, priced),
            *(*packs_changes, retired_plans, stripe_changed),
        )


async def announce(session: Session, platform_slug: str) -> int:
    """Have the workers read the catalogue anew when this transaction is done; its version then."""
    version = int(await session.value("catalog_bump"))
    await session.value("catalog_notify", platform_slug)
    return version


Names = tuple[str, ...]


async def _apply_plans(
    session: Session, platform_id: int, plans: Sequence[Plan]
) -> tuple[Names, Names, Names]:
    rows = await session.all("plan_list", platform_id)
    stored = {row["slug"]: json.loads(row["spec"]) for row in rows}
    own = {row["slug"] for row in rows if row["managed_by"] == BY_CONFIG}
    created: list[str] = []
    changed: list[str] = []
    for plan in plans:
        spec = plan_to_spec(plan)
        if stored.get(plan.slug) == spec and plan.slug in own:
            continue
        await write_plan(session, platform_id, plan, BY_CONFIG)
        (changed if plan.slug in stored else created).append(plan.slug)
    retired = sorted(own - {plan.slug for plan in plans})
    for slug in retired:
        before = plan_from_spec(slug, stored[slug])
        await write_plan(session, platform_id, replace(before, prices=()), BY_API)
    return tuple(created), tuple(changed), tuple(retired)


async def write_plan(session: Session, platform_id: int, plan: Plan, managed_by: str) -> None:
    """Make this the platform's plan of its slug, managed so from now on."""
    spec = json.dumps(plan_to_spec(plan))
    await session.value("plan_upsert", platform_id, plan.slug, spec, managed_by)


async def lock_catalog(session: Session) -> None:
    """Wait until nobody else changes what is sold, and do."""
    await session.value("catalog_lock")


async def _apply_packs(
    session: Session, platform_id: int, packs: Sequence[Pack]
) -> tuple[Names, Names, Names]:
    stored = await stored_packs(session, platform_id)
    created: list[str] = []
    changed: list[str] = []
    for pack in packs:
        before = stored.get(pack.slug)
        if before is not None and (before.pack, before.active, before.managed_by) == (
            *(pack, True),
            BY_CONFIG,
        ):
            continue
        await write_pack(session, platform_id, pack, BY_CONFIG)
        (created if before is None else changed).append(pack.slug)
    named = {pack.slug for pack in packs}
    retired = [
        slug
        for slug, row in stored.items()
        if row.active and row.managed_by == BY_CONFIG and slug not in named
    ]
    for slug in retired:
        await session.value("pack_retire", platform_id, slug, BY_CONFIG)
    return tuple(created), tuple(changed), tuple(retired)


async def _apply_stripe(session: Session, platform_id: int, stripe: ConfigStripe | None) -> Names:
    if stripe is None:
        gone = await session.value("stripe_settings_delete", platform_id, BY_CONFIG)
        return () if gone is None else ("none",)
    written = await write_stripe_settings(
        session, platform_id, stripe.table, livemode=stripe.livemode, managed_by=BY_CONFIG
    )
    return (stripe.mode,) if written else ()


async def _apply_routes(
    session: Session, platform_id: int, routes: Sequence[Route]
) -> tuple[Names, Names, Names, Names]:
    stored = {row.route.name: row for row in await stored_routes(session, platform_id)}
    created: list[str] = []
    changed: list[str] = []
    priced: list[str] = []
    for route in routes:
        before = stored.get(route.name)
        spec = route_to_spec(route)
        own = before is not None and before.active and before.managed_by == BY_CONFIG
        if before is None or not own or route_to_spec(before.route) != spec:
            route_id = await session.value(
                "route_upsert", platform_id, route.name, json.dumps(spec), BY_CONFIG
            )
            (created if before is None else changed).append(route.name)
        else:
            route_id = before.route.id
        before_price = before.route.price if before else None
        if await save_price(session, route_id, before_price, route.price):
            priced.append(route.name)
    named = {route.name for route in routes}
    gone = [
        row.route
        for name, row in stored.items()
        if row.active and row.managed_by == BY_CONFIG and name not in named
    ]
    for route in gone:
        await session.value("route_deactivate", route.id)
    return tuple(created), tuple(changed), tuple(route.name for route in gone), tuple(priced)


async def save_price(
    session: Session, route_id: int, before: Price | None, price: Price | None
) -> bool:
    """Give a route another price, as a new version; False where it is the same."""
    if _spec_of(price) == _spec_of(before):
        return False
    version = None
    if price is not None:
        spec = json.dumps(price_to_spec(price))
        version = await session.value("price_version_insert", route_id, spec)
    await session.value("route_price", route_id, version)
    return True


async def stored_routes(session: Session, platform_id: int) -> list[StoredRoute]:
    """A platform's routes by name."""
    return [stored_route(row) for row in await session.all("route_list", platform_id)]


def stored_route(row: Record) -> StoredRoute:
    """A row of a query of routes with the price in force."""
    route = route_from_spec(
        json.loads(row["spec"]),
        row["route_id"],
        price=json.loads(row["price"]) if row["price"] else None,
        price_version=row["price_version_id"] or 0,
        guarded=row["managed_by"] != BY_CONFIG,
    )
    return StoredRoute(route, row["active"], row["managed_by"])


def _spec_of(price: Price | None) -> dict[str, Any] | None:
    return None if price is None else price_to_spec(price)
