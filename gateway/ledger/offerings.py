"""What people sell by the API: single plans, routes and platforms.

`apply` (catalog.py) makes all of the config's true at once; here is one at a time, and never one of
the config's. Changes of routes take turns with each other and with `apply`, so that what was
looked at before a change is still so when it is made.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from gateway.config.match import calls_of
from gateway.config.references import secret_name
from gateway.ledger.catalog import (
    StoredRoute,
    announce,
    lock_catalog,
    save_price,
    stored_route,
    stored_routes,
)
from gateway.ledger.database import Database, rows
from gateway.ledger.rows import BY_API, BY_CONFIG
from gateway.ledger.specs import plan_from_spec, plan_to_spec, route_to_spec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncpg import Record

    from gateway.ledger.database import Session
    from policies.catalog import Plan, Platform, Route


class StoredPlan(NamedTuple):
    """A plan of the database."""

    plan_id: int
    plan: Plan
    managed_by: str


class PlanUse(NamedTuple):
    """What keeps a plan from being deleted."""

    has_accounts: bool = False
    has_subscriptions: bool = False  # that are for it, or to be, and are not over
    is_signup: bool = False  # accounts get it when they are made
    product_ids: Sequence[str] = ()  # Stripe's, which describe it: of one of Stripe's only


class PlatformDetails(NamedTuple):
    """A platform as people see it."""

    platform_id: int
    slug: str
    name: str
    upgrade_url: str | None
    signup_plan: str | None
    trial_microcredits: int
    trial_days: int
    created_ms: int


class RouteSaved(NamedTuple):
    """What workers serve by from `version` on; `comes_in`: it was not in service before."""

    version: int
    comes_in: bool
    priced: bool  # it has another price than before


@dataclass(frozen=True, slots=True)
class RouteTaken:
    """There is one of this name: in service, or one that the config describes or described."""

    managed_by: str


@dataclass(frozen=True, slots=True)
class RouteGone:
    """None of this name is in service."""


@dataclass(frozen=True, slots=True)
class RouteClash:
    """Another route of the platform is for the same calls."""

    name: str


@dataclass(frozen=True, slots=True)
class SecretsMissing:
    """Headers refer to secrets that the platform does not have: header → secret."""

    names: dict[str, str]


RouteDenied = RouteTaken | RouteGone | RouteClash | SecretsMissing


class Offerings(Database):
    """Plans, routes and platforms, one by one."""

    async def plan(self, platform_id: int, slug: str) -> StoredPlan | None:
        """The platform's plan of this slug."""
        return await find_plan(self._session, platform_id, slug)

    async def plans_page(
        self, platform_id: int, *, after: str | None = None, limit: int
    ) -> list[StoredPlan]:
        """Plans by slug, behind one."""
        found = await self._session.all("plan_page", platform_id, after, None, limit)
        return [_plan(record) for record in found]

    async def create_plan(self, platform_id: int, plan: Plan) -> bool:
        """A new plan; False when the platform has one of this slug."""
        spec = json.dumps(plan_to_spec(plan))
        made = await self._session.value("plan_insert", platform_id, plan.slug, spec, BY_API)
        return made is not None

    async def change_plan(self, platform_id: int, plan: Plan) -> bool:
        """Another content of a plan; False without one of this slug that the API manages."""
        spec = json.dumps(plan_to_spec(plan))
        return await self._session.value("plan_change", platform_id, plan.slug, spec) is not None

    async def delete_plan(self, platform_id: int, slug: str) -> bool:
        """Delete a plan; False without one that the API manages and no account has.

        Raises: LedgerRejected when an account was put on it at this moment.
        """
        return await self._session.value("plan_delete", platform_id, slug) is not None

    async def plan_use(self, platform_id: int, slug: str) -> PlanUse:
        """What keeps a plan from being deleted; nothing, where it is not there."""
        record = await self._session.one("plan_use", platform_id, slug)
        return PlanUse(**record) if record else PlanUse()

    async def route(self, platform_id: int, name: str) -> StoredRoute | None:
        """The platform's route of this name, also if it is out of service."""
        record = await self._session.one("route_page", platform_id, None, None, name, 1)
        return stored_route(record) if record else None

    async def routes_page(
        self, platform_id: int, *, after: str | None = None, limit: int, active: bool | None = None
    ) -> list[StoredRoute]:
        """Routes by name, behind one."""
        found = await self._session.all("route_page", platform_id, after, active, None, limit)
        return [stored_route(record) for record in found]

    async def save_route(
        self, platform_id: int, platform_slug: str, route: Route, *, new: bool
    ) -> RouteSaved | RouteDenied:
        """Put a `new` route into service, or change one that is; its price only if it changed."""
        async with self.transaction() as session:
            await lock_catalog(session)
            stored = {row.route.name: row for row in await stored_routes(session, platform_id)}
            before = stored.get(route.name)
            denied = (
                _taken(before, new=new)
                or _clash(route, list(stored.values()))
                or await _missing_secrets(session, platform_id, route)
            )
            if denied is not None:
                return denied
            route_id = await session.value(
                "route_upsert", platform_id, route.name, json.dumps(route_to_spec(route)), BY_API
            )
            before_price = before.route.price if before else None
            priced = await save_price(session, route_id, before_price, route.price)
            version = await announce(session, platform_slug)
        return RouteSaved(version, before is None or not before.active, priced)

    async def route_denials(
        self, platform_id: int, route: Route
    ) -> list[RouteClash | SecretsMissing]:
        """What would keep a route out of service now, apart from its name."""
        async with self.transaction() as session:
            stored = await stored_routes(session, platform_id)
            found = [_clash(route, stored), await _missing_secrets(session, platform_id, route)]
        return [denied for denied in found if denied is not None]

    async def retire_route(
        self, platform_id: int, platform_slug: str, name: str
    ) -> int | RouteTaken | RouteGone:
        """Take a route out of service; answers the catalogue's version without it."""
        async with self.transaction() as session:
            await lock_catalog(session)
            record = await session.one("route_page", platform_id, None, None, name, 1)
            before = stored_route(record) if record else None
            denied = _taken(before, new=False)
            if denied is not None or before is None:
                return denied or RouteGone()
            await session.value("route_deactivate", before.route.id)
            return await announce(session, platform_slug)

    async def platform_details(self, slug: str) -> PlatformDetails | None:
        """The platform of this slug."""
        record = await self._session.one("platform_page", None, slug, 1)
        return PlatformDetails(**record) if record else None

    async def platforms_page(
        self, *, after: str | None = None, limit: int
    ) -> list[PlatformDetails]:
        """Platforms by slug, behind one."""
        return rows(PlatformDetails, await self._session.all("platform_page", after, None, limit))

    async def create_platform(self, platform: Platform) -> int | None:
        """A new platform; the catalogue's version with it, None when there is one of this slug."""
        fields = (platform.slug, platform.name, platform.upgrade_url, *_signup(platform))
        async with self.transaction() as session:
            await lock_catalog(session)
            if await session.value("platform_insert", *fields) is None:
                return None
            return await announce(session, platform.slug)

    async def change_platform(self, platform_id: int, platform: Platform) -> int | None:
        """Another content of a platform; the catalogue's version, None without it.

        Its slug stays.
        """
        fields = (platform.name, platform.upgrade_url, *_signup(platform))
        async with self.transaction() as session:
            await lock_catalog(session)
            slug = await session.value("platform_change", platform_id, *fields)
            return None if slug is None else await announce(session, slug)


def _signup(platform: Platform) -> tuple[str | None, int, int]:
    return platform.signup_plan, platform.trial_microcredits, platform.trial_days


async def find_plan(session: Session, platform_id: int, slug: str) -> StoredPlan | None:
    """A platform's plan of this slug."""
    record = await session.one("plan_page", platform_id, None, slug, 1)
    return _plan(record) if record else None


def _plan(record: Record) -> StoredPlan:
    plan = plan_from_spec(record["slug"], json.loads(record["spec"]))
    return StoredPlan(record["plan_id"], plan, record["managed_by"])


def _taken(before: StoredRoute | None, *, new: bool) -> RouteTaken | RouteGone | None:
    """Why a route of this name can't be made (`new`) or changed."""
    if before is not None and before.managed_by == BY_CONFIG:
        return RouteTaken(BY_CONFIG)
    in_service = before is not None and before.active
    if new:
        return RouteTaken(BY_API) if in_service else None
    return None if in_service else RouteGone()


def _clash(route: Route, others: Sequence[StoredRoute]) -> RouteClash | None:
    own = set(calls_of(route.methods, route.pattern))
    for other in others:
        theirs = calls_of(other.route.methods, other.route.pattern)
        if other.active and other.route.name != route.name and not own.isdisjoint(theirs):
            return RouteClash(other.route.name)
    return None


async def _missing_secrets(
    session: Session, platform_id: int, route: Route
) -> SecretsMissing | None:
    named = {header: secret_name(value) for header, value in route.headers}
    wanted = {header: name for header, name in named.items() if name is not None}
    if not wanted:
        return None
    there = {row["name"] for row in await session.all("secret_list", platform_id, None)}
    missing = {header: name for header, name in wanted.items() if name not in there}
    return SecretsMissing(missing) if missing else None
