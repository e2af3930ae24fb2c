"""What the API can do: `/openapi.json` for programs, `/docs` for people (docs_page.py)."""

from __future__ import annotations

import importlib.metadata
from functools import cache
from typing import TYPE_CHECKING, Any

import orjson
from aiohttp import web

from gateway.control.api.openapi import describe
from gateway.control.docs_page import add_docs_page

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.control.api.endpoint import Endpoint

PATH = "/openapi.json"


def add_description(app: web.Application, endpoints: Sequence[Endpoint]) -> None:
    """Registers both; they are made when they are first asked for, and are no secret."""

    @cache
    def document() -> dict[str, Any]:
        return describe(endpoints, version=importlib.metadata.version("tollkeeper"))

    @cache
    def encoded() -> bytes:
        return orjson.dumps(document())

    async def openapi(_request: web.Request) -> web.Response:
        return web.Response(body=encoded(), content_type="application/json")

    app.router.add_get(PATH, openapi)
    add_docs_page(app, document)
