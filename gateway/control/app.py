"""The control plane: an `aiohttp.web.Application` on a port of its own, apart from the calls' way.

It is put together here and knows only what it is given; the proxy serves on when it is down.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from aiohttp import web

from gateway.control.health import add_health
from gateway.control.status import add_status

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.control.node import Node

HEADER_BYTES_MAX = 16_384
BODY_BYTES_MAX = 1 << 20
KEEPALIVE_TIMEOUT_S = 75.0
SHUTDOWN_TIMEOUT_S = 2.0


def build_app(node: Node, admin_token: str | None) -> web.Application:
    """The application. Without an admin token its administrative part answers 401 to everybody."""
    app = web.Application(client_max_size=BODY_BYTES_MAX)
    add_health(app, node)
    add_status(app, node, admin_token)
    return app


@contextlib.asynccontextmanager
async def serving(app: web.Application, host: str, port: int) -> AsyncIterator[None]:
    """Serves the application as long as the context lasts. Raises: OSError if it can't listen."""
    runner = web.AppRunner(
        app,
        access_log=None,
        keepalive_timeout=KEEPALIVE_TIMEOUT_S,
        max_line_size=HEADER_BYTES_MAX,
        max_field_size=HEADER_BYTES_MAX,
        shutdown_timeout=SHUTDOWN_TIMEOUT_S,
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        yield
    finally:
        await runner.cleanup()
