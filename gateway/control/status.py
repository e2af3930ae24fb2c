"""`GET /v1/status`: the state of the node, for its operator."""

from __future__ import annotations

import asyncio
import hmac
import importlib.metadata
from dataclasses import asdict
from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    from gateway.control.node import Node

_UNAUTHENTICATED = (
    b'{"type":"urn:tollkeeper:problem:unauthenticated","title":"Unauthorized","status":401,'
    b'"code":"unauthenticated","detail":"Send the admin token as \'Authorization: Bearer ...\'."}'
)


def add_status(app: web.Application, node: Node, admin_token: str | None) -> None:
    """Registers it, for holders of the admin token."""
    version = importlib.metadata.version("tollkeeper")

    async def status(request: web.Request) -> web.Response:
        if not _authorized(request, admin_token):
            return web.Response(
                body=_UNAUTHENTICATED,
                status=401,
                content_type="application/problem+json",
                headers={"WWW-Authenticate": "Bearer"},
            )
        redis, postgres = await asyncio.gather(node.redis_answers(), node.postgres_answers())
        return web.json_response(
            {
                "version": version,
                "platform": node.platform,
                "workers": [asdict(worker) for worker in node.workers()],
                "redis": {"answers": redis},
                "postgres": {"answers": postgres},
            }
        )

    app.router.add_get("/v1/status", status)


def _authorized(request: web.Request, admin_token: str | None) -> bool:
    """Compares in constant time. No token set: nobody is let in."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if admin_token is None or scheme.lower() != "bearer":
        return False
    return hmac.compare_digest(token.strip().encode(errors="replace"), admin_token.encode())
