"""What can be done with routes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.config.writing import route_document
from gateway.control.api.cursors import read_text_cursor, write_cursor
from gateway.control.api.endpoint import Endpoint
from gateway.control.api.roles import EDITORS, VIEWERS
from gateway.control.routes.models import (
    NewRoute,
    Route,
    RoutePatch,
    Routes,
    RoutesQuery,
    WholeRoute,
)
from gateway.control.routes.trials import (
    Reach,
    StoredTrial,
    Trial,
    TrialResult,
    charge_document,
    sample_call,
)
from gateway.ledger import BY_CONFIG
from gateway.operations import routes

if TYPE_CHECKING:
    from gateway.control.api.ask import Ask
    from gateway.ledger import StoredRoute
    from policies.catalog import Route as SoldRoute

PATH = "/v1/routes"
ONE = f"{PATH}/{{route}}"
HIDDEN = "(hidden)"


def document(stored: StoredRoute) -> Route:
    """The route's document."""
    written = route_document(stored.route)
    del written["tls_ca_file"]  # of the operator's machine
    if stored.managed_by == BY_CONFIG and written["headers"]:
        # The config may have credentials in them; what people give here can't be one.
        written["headers"] = dict.fromkeys(written["headers"], HIDDEN)
    price = stored.route.price
    return Route.model_validate(
        {
            "id": stored.route.id,
            "active": stored.active,
            "managed_by": stored.managed_by,
            "price_version": None if price is None else price.version,
            **written,
        }
    )


async def create(ask: Ask, body: NewRoute) -> Route:
    """Put one into service: it serves from the next call on."""
    version = await routes.create_route(_shop(ask), body.written)
    await ask.services.spread.wait(version)
    return document(await _find(ask, str(body.written.content["name"])))


async def read(ask: Ask) -> Route:
    """One of them, also if it is out of service."""
    return document(await _find(ask, ask.path["route"]))


async def read_list(ask: Ask, query: RoutesQuery) -> Routes:
    """All, by name."""
    page = await ask.ledger.routes_page(
        ask.platform_id,
        after=read_text_cursor(query.cursor),
        limit=query.limit,
        active=query.active,
    )
    return Routes(
        data=[document(stored) for stored in page],
        next_cursor=write_cursor(page[-1].route.name) if len(page) == query.limit else None,
    )


async def change(ask: Ask, body: RoutePatch) -> Route:
    """Change it, from the next call on."""
    version = await routes.patch_route(_shop(ask), ask.path["route"], body.written)
    await ask.services.spread.wait(version)
    return await read(ask)


async def replace(ask: Ask, body: WholeRoute) -> Route:
    """Make it what the document says, from the next call on."""
    version = await routes.replace_route(_shop(ask), ask.path["route"], body.written)
    await ask.services.spread.wait(version)
    return await read(ask)


async def delete(ask: Ask) -> None:
    """Take it out of service, from the next call on."""
    version = await routes.retire_route(_shop(ask), ask.path["route"])
    await ask.services.spread.wait(version)


async def try_new(ask: Ask, body: Trial) -> TrialResult:
    """Price a sample by a route that is not there yet, and see whether its agent is."""
    route = await routes.try_route(_shop(ask), body.route.written)
    return await _try(ask, route, body)


async def try_stored(ask: Ask, body: StoredTrial) -> TrialResult:
    """The same of a route that is there."""
    stored = await _find(ask, ask.path["route"])
    return await _try(ask, stored.route, body)


async def reach(ask: Ask) -> Reach:
    """Connect to its upstream now."""
    stored = await _find(ask, ask.path["route"])
    return await _reach(ask, stored.route)


async def _try(ask: Ask, route: SoldRoute, body: StoredTrial) -> TrialResult:
    charge = None
    if body.sample is not None:
        charge = charge_document(ask.services.price_sample(route, sample_call(body.sample)))
    return TrialResult(charge=charge, reach=await _reach(ask, route) if body.reach else None)


async def _reach(ask: Ask, route: SoldRoute) -> Reach:
    return Reach(**(await routes.reach_route(_shop(ask), route))._asdict())


async def _find(ask: Ask, name: str) -> StoredRoute:
    return await routes.find_route(ask.ledger, ask.platform_id, name)


def _shop(ask: Ask) -> routes.Shop:
    services, caller = ask.services, ask.caller
    return routes.Shop(
        ask.ledger, ask.counters, services.networks, caller.platform_id, caller.platform_slug
    )


ENDPOINTS = (
    Endpoint(
        "POST", PATH, "Put a route into service", EDITORS, create,
        body=NewRoute, answers=Route, status=201, creates=True,
        description="It serves from the next call on, on every worker.",
    ),
    Endpoint("GET", PATH, "List routes", VIEWERS, read_list, query=RoutesQuery, answers=Routes),
    Endpoint(
        "POST", f"{PATH}/dry-run", "Try a route before it is made", EDITORS, try_new,
        body=Trial, answers=TrialResult,
        description="Names every mistake in it, and prices a sample call.",
    ),
    Endpoint("GET", ONE, "Read a route", VIEWERS, read, answers=Route),
    Endpoint(
        "PATCH", ONE, "Change a route", EDITORS, change,
        body=RoutePatch, answers=Route, reads=read,
        description="A changed price is a new version, by which calls are priced that begin later.",
    ),
    Endpoint(
        "PUT", ONE, "Replace a route", EDITORS, replace,
        body=WholeRoute, answers=Route, reads=read,
    ),
    Endpoint(
        "DELETE", ONE, "Take a route out of service", EDITORS, delete, reads=read,
        description="It stays known, for its settlements name it. Its name can be used again.",
    ),
    Endpoint(
        "POST", f"{ONE}/dry-run", "Try the price of a route", EDITORS, try_stored,
        body=StoredTrial, answers=TrialResult,
    ),
    Endpoint(
        "POST", f"{ONE}/reach", "Connect to the upstream of a route", EDITORS, reach, answers=Reach,
    ),
)  # fmt: skip
