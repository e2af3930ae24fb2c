"""Who is behind a request: from what it shows to a `Caller`, or 401.

admin token           operator
tt_…  API token       what it was made for
eyJ…  access token    of a login: what the API token behind it was made for
tk_…  API key         a member of its account; so is a delegated token

A key, or what it was delegated from, may be for some networks only: that binds here, too. Which
routes it is for does not matter: nothing is called.
"""

from __future__ import annotations

import hmac
from ipaddress import ip_network
from typing import TYPE_CHECKING

from gateway.clock import now_ms
from gateway.control.api.problems import forbidden, not_found, too_many, unauthenticated
from gateway.control.api.roles import Caller, Role
from gateway.identity.tokens import AccessToken, DelegatedToken, UnknownKey
from gateway.peers import is_in
from policies.apikeys import digest

if TYPE_CHECKING:
    from aiohttp import web

    from gateway.control.api.services import Services
    from gateway.ledger.access import TokenRow
    from gateway.ledger.rows import KeyRow
    from gateway.peers import Address

PLATFORM_HEADER = "Tollkeeper-Platform"
CREDENTIAL_CHARACTERS_MAX = 4_096


def client_of(request: web.Request, services: Services) -> Address | None:
    """Where a request comes from; None: that can't be told, as of a local socket's."""
    peer = request.transport.get_extra_info("peername") if request.transport is not None else None
    return services.peers.client(peer, request.headers.getall("X-Forwarded-For", ()))


async def identify(request: web.Request, services: Services, client: Address | None) -> Caller:
    """The caller, working on the platform that it names or belongs to.

    Raises: Problem: 401 for nobody known, 403 for a key that is not for `client`, 404 for a
    platform that is not the caller's, 429 after too many failures from one address.
    """
    address = "" if client is None else str(client)
    if wait_ms := services.failures.wait_ms(address):
        raise too_many(wait_ms, "Too many failed attempts from this address.")
    caller = await _known(_credential(request), services, client)
    if caller is None:
        services.failures.take(address)
        raise unauthenticated()
    named = request.headers.get(PLATFORM_HEADER)
    if caller.role is Role.OPERATOR:
        return await _on_platform(caller, named or services.platform, services)
    if named not in (None, caller.platform_slug):
        raise not_found("platform")
    return caller


def is_admin_token(credential: str, admin_token: str | None) -> bool:
    """Whether somebody shows the deployment's admin token; compared in constant time."""
    if admin_token is None:
        return False
    return hmac.compare_digest(credential.encode(), admin_token.encode())


def _credential(request: web.Request) -> str:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return token.strip()
    return request.headers.get("X-API-Key", "").strip()


async def _known(credential: str, services: Services, client: Address | None) -> Caller | None:
    if not credential or len(credential) > CREDENTIAL_CHARACTERS_MAX or not credential.isascii():
        return None
    if is_admin_token(credential, services.admin_token):
        return Caller(Role.OPERATOR, 0, "", None, services.operator)
    if credential.startswith("eyJ"):
        return await _of_jwt(credential, services, client)
    hashed = digest(credential, services.keys.pepper)
    if credential.startswith("tt_"):
        return _of_token(await services.ledger.find_token(hashed))
    if credential.startswith("tk_"):
        return _of_key(await services.ledger.find_key(hashed), client)
    return None


async def _of_jwt(credential: str, services: Services, client: Address | None) -> Caller | None:
    verifier = services.verifier
    token = verifier.access(credential)
    if isinstance(token, UnknownKey) and await verifier.reload(services.ledger.signing_keys):
        token = verifier.access(credential)
    if isinstance(token, AccessToken):
        caller = _of_token(await services.ledger.live_session(token.session_id))
        return caller and caller._replace(session_id=token.session_id)
    delegated = verifier.delegated(credential)
    if isinstance(delegated, DelegatedToken):
        hashed = digest(delegated.jti, services.keys.pepper)
        return _of_key(await services.ledger.find_key(hashed), client)
    return None


def _of_token(row: TokenRow | None) -> Caller | None:
    if row is None or row.revoked_ms or 0 < row.expires_ms <= now_ms():
        return None
    return Caller(
        Role(row.role),
        row.platform_id or 0,
        row.platform_slug or "",
        row.account_id,
        f"token:{row.token_id}",
        token_id=row.token_id,
    )


def _of_key(row: KeyRow | None, client: Address | None) -> Caller | None:
    if row is None or row.key_status != "active" or 0 < row.expires_ms <= now_ms():
        return None
    networks = tuple(map(ip_network, row.addresses))
    if networks and (client is None or not is_in(client, networks)):
        raise forbidden("This API key may not be used from this address.")
    return Caller(
        Role.MEMBER,
        row.platform_id,
        row.platform_slug,
        row.account_id,
        f"key:{row.key_id}",
        key_id=row.key_id,
    )


async def _on_platform(caller: Caller, slug: str, services: Services) -> Caller:
    platform = await services.ledger.find_platform(slug)
    if platform is None:
        raise not_found("platform")
    return caller._replace(platform_id=platform.platform_id, platform_slug=platform.slug)
