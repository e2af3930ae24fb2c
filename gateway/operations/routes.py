"""Routes that people make by the API: read as the config's are, served from the next call.

What is answered is the catalogue's version with the change; `Spread.wait` says when all workers
serve by it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from gateway.config import Problem
from gateway.config.documents import merged, read_route_document
from gateway.config.writing import route_document
from gateway.ledger import BY_API, BY_CONFIG
from gateway.ledger.offerings import (
    RouteClash,
    RouteGone,
    RouteSaved,
    RouteTaken,
    SecretsMissing,
)
from gateway.operations.documents import Written, managed_by_config
from gateway.operations.errors import ConflictError, DocumentError, UnknownError
from gateway.operations.publish import publish_accounts
from gateway.operations.reach import Reach, check_upstream, reach
from gateway.upstream.tls import client_context
from policies.pricing import graduated

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.counters import Counters
    from gateway.ledger import Ledger, StoredRoute
    from gateway.ledger.offerings import RouteDenied
    from gateway.upstream import Networks
    from policies.catalog import Route


# What stands in place of a route's name in a path of the API.
RESERVED_NAME = "dry-run"


class Shop(NamedTuple):
    """A platform and what is needed to change what it sells. `networks`: where agents may be."""

    ledger: Ledger
    counters: Counters
    networks: Networks
    platform_id: int
    slug: str


async def find_route(ledger: Ledger, platform_id: int, name: str) -> StoredRoute:
    """The platform's route of this name, also if it is out of service.

    Raises: UnknownError.
    """
    stored = await ledger.route(platform_id, name)
    if stored is None:
        raise UnknownError("route", name)
    return stored


async def create_route(shop: Shop, written: Written) -> int:
    """Put a route into service.

    Raises: DocumentError with all mistakes; ConflictError for a name that is taken.
    """
    route = await _read(shop, written, written.content)
    return await _save(shop, route, new=True)


async def replace_route(shop: Shop, name: str, written: Written) -> int:
    """Make a route what a document says, and nothing that it was.

    Raises: UnknownError, DocumentError, ConflictError.
    """
    await _own(shop, name)
    document = {"name": name, **written.content}
    return await _change(shop, name, await _read(shop, written, document))


async def patch_route(shop: Shop, name: str, patch: Written) -> int:
    """Change a route by a merge patch.

    Raises: UnknownError, DocumentError, ConflictError.
    """
    stored = await _own(shop, name)
    document = merged(route_document(stored.route), patch.content)
    return await _change(shop, name, await _read(shop, patch, document))


async def retire_route(shop: Shop, name: str) -> int:
    """Take a route out of service. It stays known by its settlements.

    Raises: UnknownError, ConflictError.
    """
    done = await shop.ledger.retire_route(shop.platform_id, shop.slug, name)
    if isinstance(done, RouteTaken | RouteGone):
        _refuse(name, done)
    return done


async def try_route(shop: Shop, written: Written) -> Route:
    """The route that a document would make, or would make of one that there is.

    Raises: DocumentError with all mistakes.
    """
    route, problems = await _looked_at(written.content, shop.networks)
    if route.name and route.pattern:
        denied = await shop.ledger.route_denials(shop.platform_id, route)
        problems += [problem for one in denied for problem in _problems_of(one)]
    written.check(problems)
    return route


async def reach_route(shop: Shop, route: Route) -> Reach:
    """Whether a route's upstream can be reached now. One of the config may be anywhere."""
    try:
        tls = client_context(route.tls_ca_file) if route.tls_ca_file else None
    except OSError:
        return Reach(ok=False, ms=0, tls=None, problem="its tls_ca_file can't be used")
    return await reach(route.upstream, shop.networks if route.guarded else None, tls=tls)


async def _own(shop: Shop, name: str) -> StoredRoute:
    """A route in service that the API manages."""
    stored = await find_route(shop.ledger, shop.platform_id, name)
    if stored.managed_by == BY_CONFIG:
        raise managed_by_config("route", name)
    if not stored.active:
        raise _out_of_service(name)
    return stored


async def _read(shop: Shop, written: Written, document: Mapping[str, Any]) -> Route:
    """The route of a document, which may be the one written after changes to it."""
    route, problems = await _looked_at(document, shop.networks)
    written.check(problems)
    return route


async def _looked_at(
    document: Mapping[str, Any], networks: Networks
) -> tuple[Route, list[Problem]]:
    """The route of a document, and what is wrong with it and where it leads to."""
    route, problems = read_route_document(document)
    if route.upstream:
        found = await check_upstream(route.upstream, networks)
        problems += [Problem("upstream", problem) for problem in found]
    if route.name == RESERVED_NAME:
        problems.append(Problem("name", f'"{RESERVED_NAME}" has another meaning in paths'))
    return replace(route, guarded=True), problems


async def _change(shop: Shop, name: str, route: Route) -> int:
    if route.name != name:
        raise DocumentError([Problem("name", "stays as it is: settlements and keys go by it")])
    return await _save(shop, route, new=False)


async def _save(shop: Shop, route: Route, *, new: bool) -> int:
    saved = await shop.ledger.save_route(shop.platform_id, shop.slug, route, new=new)
    if not isinstance(saved, RouteSaved):
        _refuse(route.name, saved)
    begins = saved.comes_in or saved.priced
    if begins and route.price is not None and graduated(route.price):
        # It counts in billing periods, which Redis knows only where they matter.
        accounts = await shop.ledger.accounts(shop.platform_id)
        account_ids = [account.account_id for account in accounts]
        await publish_accounts(shop.ledger, shop.counters, account_ids)
    return saved.version


def _refuse(name: str, denied: RouteDenied) -> NoReturn:
    match denied:
        case RouteTaken(managed_by=by):
            if by == BY_API:
                raise ConflictError("name_taken", f'there is a route "{name}": choose another name')
            raise managed_by_config("route", name)
        case RouteGone():
            raise _out_of_service(name)
        case RouteClash() | SecretsMissing():
            raise DocumentError(_problems_of(denied))


def _problems_of(denied: RouteClash | SecretsMissing) -> list[Problem]:
    if isinstance(denied, RouteClash):
        return [Problem("match", f'matches the same calls as the route "{denied.name}"')]
    return [
        Problem(f"headers.{header}", f'there is no secret "{secret}" on this platform')
        for header, secret in denied.names.items()
    ]


def _out_of_service(name: str) -> ConflictError:
    return ConflictError(
        "out_of_service", f'the route "{name}" is out of service: make it again to change it'
    )
