"""`/openapi.json`: what the API can do, for programs."""

from __future__ import annotations

import importlib.metadata
from typing import TYPE_CHECKING

import orjson
from aiohttp import web

from gateway.control.api.openapi import describe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.control.api.endpoint import Endpoint

PATH = "/openapi.json"


def add_description(app: web.Application, endpoints: Sequence[Endpoint]) -> None:
    """Registers it; it is made once, when it is first asked for, and is no secret."""
    made: list[bytes] = []

    async def openapi(_request: web.Request) -> web.Response:
        if not made:
            version = importlib.metadata.version("tollkeeper")
            made.append(orjson.dumps(describe(endpoints, version=version)))
        return web.Response(body=made[0], content_type="application/json")

    app.router.add_get(PATH, openapi)
