"""`GET /v1/status`: the state of the node, for its operator."""

from __future__ import annotations

import asyncio
import importlib.metadata
from dataclasses import asdict
from typing import TYPE_CHECKING

from aiohttp import web

from gateway.control.access import authorized, unauthenticated

if TYPE_CHECKING:
    from gateway.control.node import Node


def add_status(app: web.Application, node: Node, admin_token: str | None) -> None:
    """Registers it, for holders of the admin token."""
    version = importlib.metadata.version("tollkeeper")

    async def status(request: web.Request) -> web.Response:
        if not authorized(request, admin_token):
            return unauthenticated()
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
