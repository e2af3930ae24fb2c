"""`/-/healthz`: this process lives. `/-/readyz`: calls can be served now, and why not."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    from gateway.control.node import Node


def add_health(app: web.Application, node: Node) -> None:
    """Registers both. They need no token and tell nothing that a stranger may not know."""

    async def healthz(_request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def readyz(_request: web.Request) -> web.Response:
        redis, postgres = await asyncio.gather(node.redis_answers(), node.postgres_answers())
        checks = {
            "workers": any(worker.ready for worker in node.workers()),
            "redis": redis,
            "postgres": postgres,
        }
        # Calls are decided in Redis; without Postgres they still pass, so that is no reason to be
        # taken out of a load balancer.
        ready = checks["workers"] and checks["redis"]
        body = {"status": "ready" if ready else "unavailable", "checks": checks}
        headers = {} if ready else {"Retry-After": "1"}
        return web.json_response(body, status=200 if ready else 503, headers=headers)

    app.router.add_get("/-/healthz", healthz)
    app.router.add_get("/-/readyz", readyz)
