"""Logging in and out, and the keys that all of our tokens are signed with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from gateway.clock import now_ms
from gateway.control.api.callers import is_admin_token
from gateway.control.api.endpoint import Endpoint
from gateway.control.api.problems import unauthenticated
from gateway.control.api.roles import EVERYBODY, OPERATORS
from gateway.control.logins.models import Jwks, Login, NewLogin, Refresh
from gateway.identity.signing import jwks_document
from gateway.operations import logins
from gateway.operations.tokens import find_token

if TYPE_CHECKING:
    from gateway.control.api.ask import Ask
    from gateway.control.api.services import Services

JWKS_PATH = "/.well-known/jwks.json"
# Who keeps it for longer may not know a key that signs by now.
JWKS_CACHE = "public, max-age=60"


async def log_in(ask: Ask, body: NewLogin) -> Login:
    """Begin a login."""
    services = ask.services
    if is_admin_token(body.token, services.admin_token):
        token_id = await logins.admin_token_id(services.ledger, services.keys, body.token)
        expires_ms = 0
    else:
        row = await find_token(services.ledger, services.keys, body.token)
        if row is None:
            services.failures.take(ask.address)
            raise unauthenticated()
        token_id, expires_ms = row.token_id, row.expires_ms
    begun = await logins.log_in(
        services.ledger, services.signer, services.keys, token_id, expires_ms_max=expires_ms
    )
    return _document(begun)


async def refresh(ask: Ask, body: Refresh) -> Login:
    """The next pair of tokens."""
    services = ask.services
    going_on = await logins.refresh(
        services.ledger, services.signer, services.keys, body.refresh_token
    )
    if going_on is None:
        services.failures.take(ask.address)
        raise unauthenticated()
    return _document(going_on)


async def log_out(ask: Ask) -> None:
    """End the login whose access token is shown; who shows another credential has none."""
    if ask.caller.session_id is not None:
        await logins.log_out(ask.services.ledger, ask.caller.session_id)


async def read_jwks(ask: Ask) -> web.Response:
    """What our tokens can be verified with."""
    document = await _jwks(ask.services)
    return web.Response(
        body=document.model_dump_json().encode(),
        content_type="application/json",
        headers={"Cache-Control": JWKS_CACHE},
    )


async def rotate(ask: Ask) -> Jwks:
    """Sign with a new key from now on; tokens of the old ones stay good until they expire."""
    version = await ask.services.signer.rotate()
    await ask.services.spread.wait(version)
    return await _jwks(ask.services)


async def _jwks(services: Services) -> Jwks:
    return Jwks.model_validate(jwks_document(await services.ledger.signing_keys()))


def _document(login: logins.Login) -> Login:
    return Login(
        access_token=login.access_token,
        expires_in_s=max((login.access_expires_ms - now_ms()) // 1_000, 0),
        refresh_token=login.refresh_token,
        login_expires_at=login.expires_ms,
    )


ENDPOINTS = (
    Endpoint(
        "POST", "/v1/login", "Log in", frozenset(), log_in,
        body=NewLogin, answers=Login, guarded=True, tag="login",
    ),
    Endpoint(
        "POST", "/v1/login/refresh", "Go on with a login", frozenset(), refresh,
        body=Refresh, answers=Login, guarded=True, tag="login",
    ),
    Endpoint("POST", "/v1/logout", "Log out", EVERYBODY, log_out, tag="login"),
    Endpoint(
        "GET", JWKS_PATH, "What our tokens are verified with", frozenset(), read_jwks,
        answers=Jwks, tag="login", extra={"operationId": "get_jwks"},
    ),
    Endpoint(
        "POST", "/v1/signing-keys/rotate", "Sign with a new key", OPERATORS, rotate,
        answers=Jwks, tag="login",
    ),
)  # fmt: skip
