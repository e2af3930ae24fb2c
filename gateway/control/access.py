"""Who is let in: holders of the admin token. One body for all strangers."""

from __future__ import annotations

import hmac

from aiohttp import web

_UNAUTHENTICATED = (
    b'{"type":"urn:tollkeeper:problem:unauthenticated","title":"Unauthorized","status":401,'
    b'"code":"unauthenticated","detail":"Send the admin token as \'Authorization: Bearer ...\'."}'
)


def authorized(request: web.Request, admin_token: str | None) -> bool:
    """Compares in constant time. No token set: nobody is let in."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if admin_token is None or scheme.lower() != "bearer":
        return False
    return hmac.compare_digest(token.strip().encode(errors="replace"), admin_token.encode())


def unauthenticated() -> web.Response:
    """The answer to everybody else."""
    return web.Response(
        body=_UNAUTHENTICATED,
        status=401,
        content_type="application/problem+json",
        headers={"WWW-Authenticate": "Bearer"},
    )
